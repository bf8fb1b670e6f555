"""A store with studies in any state, made row by row and object by object: real SQLite, real files, no daemon."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import delete, func, insert, select, update

from clinic_ai.domain import InstanceHeader, PatientIdentity, StudyFacts
from clinic_ai.home import Home, init_home
from clinic_ai.settings import Settings
from clinic_ai.store import tables
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore

_FACTS = StudyFacts(source="inbox", modalities=("CT",)).model_dump_json()
_HEADER = InstanceHeader(kind="dicom", modality="CT", frames=1).model_dump_json()
DELIVERED = (("PRELIMINARY", ("SENT",)),)
"""One artefact, released and delivered."""


@dataclass
class Shelf:
    """One home; ``settings`` may be replaced."""

    home: Home
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        self.database = Database(self.home.database)
        self.database.open()
        self.objects = ObjectStore(self.home.objects)
        self._number = 0

    def configure(self, **sections: dict[str, object]) -> None:
        """Replace sections of the settings."""
        fresh = {name: type(getattr(self.settings, name)).model_validate(keys) for name, keys in sections.items()}
        self.settings = self.settings.model_copy(update=fresh)

    def keep(self, *contents: bytes) -> list[str]:
        """Store bytes; return their hashes."""
        return [self.objects.write_bytes(content)[0] for content in contents]

    def add_study(
        self,
        contents: Sequence[bytes] = (),
        *,
        state: str = "DONE",
        artefacts: Sequence[tuple[str, Sequence[str]]] = DELIVERED,
        delivered_at: float | None = None,
        version: int = 1,
        job: str = "DONE",
        results: Sequence[bytes] = (),
    ) -> str:
        """Store a study of one version with these originals; ``artefacts`` are states, each with its deliveries'."""
        self._number += 1
        study_id = f"S-{self._number:04d}"
        hashes = self.keep(*contents)
        produced = self.keep(*results)
        at = time.time() if delivered_at is None else delivered_at
        with self.database.write() as c:
            self._version(c, study_id, version, state)
            for sha256, content in zip(hashes, contents, strict=True):
                file_id = self._file(c, study_id, "STORED", sha256, len(content))
                values = {"sop_instance_uid": f"1.2.{file_id}", "sha256": sha256, "size_bytes": len(content)}
                c.execute(
                    insert(tables.instances).values(
                        study_id=study_id, first_version=version, header=_HEADER, file_id=file_id, **values
                    )
                )
            job_id = f"J-{self._number:04d}"
            c.execute(
                insert(tables.jobs).values(
                    job_id=job_id, kind="report", study_id=study_id, version=version, state=job, created_at=at
                )
            )
            for number, sha256 in enumerate(produced):
                c.execute(
                    insert(tables.job_files).values(
                        job_id=job_id, name=f"f{number}", sha256=sha256, size_bytes=1, media_type="image/png"
                    )
                )
            for number, (made, sent) in enumerate(artefacts):
                self._artefact(c, job_id, study_id, version, f"A-{self._number}-{number}", made, sent, at)
        return study_id

    def add_version(self, study_id: str, state: str, artefacts: Sequence[tuple[str, Sequence[str]]] = ()) -> None:
        """Add an earlier or later version, without instances of its own."""
        with self.database.write() as c:
            newest = c.execute(
                select(func.max(tables.studies.c.version)).where(tables.studies.c.study_id == study_id)
            ).scalar_one()
            self._version(c, study_id, newest + 1, state)
            job_id = f"J-{study_id}-{newest + 1}"
            c.execute(
                insert(tables.jobs).values(
                    job_id=job_id, kind="report", study_id=study_id, version=newest + 1, state="DONE", created_at=1.0
                )
            )
            for number, (made, sent) in enumerate(artefacts):
                self._artefact(
                    c, job_id, study_id, newest + 1, f"A-{study_id}-{newest + 1}-{number}", made, sent, time.time()
                )

    def add_quarantined(self, study_id: str | None, size_bytes: int = 1, source: str = "inbox") -> None:
        """Note a quarantined file, of a study or of none."""
        with self.database.write() as c:
            self._file(c, study_id, "QUARANTINED", "f" * 64, size_bytes, source)

    def add_dataset(self, hashes: Sequence[str]) -> None:
        """Freeze a dataset of these images, as far as anybody looks."""
        self._number += 1
        examples = ", ".join(f'{{"sha256": "{sha256}"}}' for sha256 in hashes)
        with self.database.write() as c:
            c.execute(
                insert(tables.datasets).values(
                    dataset_id=f"D-{self._number}",
                    plugin="xray",
                    digest=f"{self._number}",
                    document=f'{{"examples": [{examples}]}}',
                    created_at=time.time(),
                )
            )

    def add_copy(self, original: bytes, copy: bytes) -> str:
        """Remember a de-identified copy of an original; return its hash."""
        (sha256,) = self.keep(copy)
        with self.database.write() as c:
            c.execute(
                insert(tables.deidentified).values(
                    original_sha256=hashlib.sha256(original).hexdigest(),
                    profile="basic",
                    sha256=sha256,
                    document="{}",
                    created_at=1.0,
                )
            )
        return sha256

    def set_job(self, study_id: str, state: str) -> None:
        """Put the jobs of a study into a state."""
        with self.database.write() as c:
            c.execute(update(tables.jobs).where(tables.jobs.c.study_id == study_id).values(state=state))

    def audited(self, action: str) -> list[str]:
        """Return the subjects of these audit rows."""
        with self.database.read() as c:
            return [*c.execute(select(tables.audit.c.subject).where(tables.audit.c.action == action)).scalars()]

    def alerts(self) -> dict[tuple[str, str], str]:
        """Return the sentences of the open alerts, by code and subject."""
        with self.database.read() as c:
            open_ = select(tables.alerts).where(tables.alerts.c.acknowledged_at.is_(None))
            return {(row.code, row.subject): row.sentence for row in c.execute(open_)}

    def empty(self) -> None:
        """Forget all studies and files; the objects stay."""
        with self.database.write() as c:
            c.exec_driver_sql("DROP TRIGGER IF EXISTS review_is_kept")  # which is there so that nobody does this
            for table in reversed(tables.metadata.sorted_tables):
                if table is not tables.audit:
                    c.execute(delete(table))

    def close(self) -> None:
        self.database.close()

    # ------------------------------------------------------------

    def _file(
        self, c: object, study_id: str | None, fate: str, sha256: str, size_bytes: int, source: str = "inbox"
    ) -> int:
        made = c.execute(  # type: ignore[attr-defined]
            insert(tables.files).values(
                source=source,
                name="a.dcm",
                raw_name=b"a.dcm",
                size_bytes=size_bytes,
                mtime_ns=1,
                sha256=sha256,
                fate=fate,
                study_id=study_id,
                seen_at=1.0,
            )
        )
        return int(made.inserted_primary_key[0])

    def _version(self, c: object, study_id: str, version: int, state: str) -> None:
        c.execute(  # type: ignore[attr-defined]
            insert(tables.studies).values(
                study_id=study_id,
                version=version,
                state=state,
                study_instance_uid=f"1.2.{study_id}",
                grouping_key=f"dicom:{study_id}:{version}",
                pseudonym="P-1",
                patient_key="d" * 64,
                source="inbox",
                facts=_FACTS,
                identity=PatientIdentity().model_dump_json(),
                opened_at=1.0,
                last_instance_at=1.0,
                closed_at=2.0,
            )
        )

    def _artefact(
        self,
        c: object,
        job_id: str,
        study_id: str,
        version: int,
        artefact_id: str,
        state: str,
        sent: Sequence[str],
        at: float,
    ) -> None:
        c.execute(  # type: ignore[attr-defined]
            insert(tables.artefacts).values(
                artefact_id=artefact_id,
                job_id=job_id,
                study_id=study_id,
                version=version,
                audience="clinician",
                state="PRELIMINARY" if state == "FINAL" else state,
                verdict="{}",
                policy_hash="",
                created_at=at,
            )
        )
        if state == "FINAL":
            self._sign(c, artefact_id, study_id, version, at)
        for number, delivery in enumerate(sent):
            c.execute(  # type: ignore[attr-defined]
                insert(tables.deliveries).values(
                    delivery_id=f"{artefact_id}-{number}",
                    artefact_id=artefact_id,
                    target=f"t{number}",
                    state=delivery,
                    created_at=at,
                    done_at=None if delivery == "PENDING" else at,
                )
            )

    def _sign(self, c: object, artefact_id: str, study_id: str, version: int, at: float) -> None:
        """Make an artefact FINAL; the database wants the decision of a named person for it."""
        review_id = f"W-{artefact_id}"
        c.execute(  # type: ignore[attr-defined]
            insert(tables.reviews).values(
                review_id=review_id,
                artefact_id=artefact_id,
                study_id=study_id,
                version=version,
                decision="accept",
                reviewer="Dr. Example",
                actor="tester",
                digest="0" * 64,
                document="{}",
                consent=0,
                decided_at=at,
            )
        )
        final = update(tables.artefacts).where(tables.artefacts.c.artefact_id == artefact_id)
        c.execute(final.values(state="FINAL", review_id=review_id, signed_by="Dr. Example"))  # type: ignore[attr-defined]


def shelf(path: Path) -> Shelf:
    """Return a shelf in a home of its own."""
    return Shelf(init_home(path))
