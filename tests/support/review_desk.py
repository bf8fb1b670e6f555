"""A desk where results are reviewed: real database, guard child and renderer child; the findings are given."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from rendering import STUDY_UID, header_of, pdf_text, sr_texts, wrap_as_dx

from clinic_ai.domain import (
    Analysis,
    Answer,
    CloseCode,
    Finding,
    JobKind,
    PatientIdentity,
    Presence,
    ReportSentence,
    Segment,
    Segmentation,
    SliceRef,
    StoredFile,
    StudyFacts,
)
from clinic_ai.domain.reviews import Correction, Passage, ReviewDecision
from clinic_ai.execution import Execution
from clinic_ai.guard.client import Guard
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.lanes import Wake
from clinic_ai.ml.segmentations import write_masks
from clinic_ai.processes import Crew
from clinic_ai.results.reporting import ReportRunner
from clinic_ai.results.reviewing import Order, Reviews
from clinic_ai.results.signing import SignRunner
from clinic_ai.settings import ReviewSettings, Settings
from clinic_ai.store import artefacts, jobs, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore

SIGNER = "Dr. Ada Example"


class Models:
    """There are none: the analyses name no model."""

    def loaded(self, _ref: object) -> Any:
        raise AssertionError("analyses here name no model")


@dataclass(frozen=True)
class Report:
    """A rendered report, read back: the PDF's text, the texts of the SR, the SR itself, and ``result.json``."""

    pdf: str
    texts: list[str]
    sr: pydicom.Dataset
    result: dict[str, Any]


@dataclass
class Desk:
    """Studies are reported and reviewed here."""

    path: Path
    database: Database
    objects: ObjectStore
    reviews: Reviews
    execution: Execution

    def add_report(
        self,
        *findings: dict[str, object],
        remarks: tuple[str, ...] = (),
        answers: tuple[Answer, ...] = (),
        report: tuple[ReportSentence, ...] = (),
        masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> str:
        """Report on a radiograph with these findings, pneumonia at 0.98 if none is given; return the artefact.

        ``masks`` are (row, column) by condition.
        """
        stored = wrap_as_dx(self.path / "dx.dcm")
        sha256, size = self.objects.write_bytes(stored.read_bytes())
        values: dict[str, object] = {
            "condition": "pneumonia",
            "label": "Pneumonia",
            "probability": 0.98,
            "threshold": 0.47,
            "presence": Presence.PRESENT,
            "instance_sha256": sha256,
        }
        found = tuple(Finding.model_validate(values | finding) for finding in findings or ({},))
        about = tuple(answer.model_copy(update={"instance_sha256": sha256}) for answer in answers)
        analysis = Analysis(
            plugin="echo", plugin_version="1", models=(), findings=found, answers=about, remarks=remarks, report=report
        )
        files: tuple[StoredFile, ...] = ()
        if masks:
            drawn, file = self._masks(sha256, masks)
            analysis, files = analysis.model_copy(update={"segmentations": (drawn,)}), (file,)
        facts = StudyFacts(modalities=("DX",), body_parts=("CHEST",), slices=1)
        with self.database.write() as c:
            seen = ledger.Sighting(source="inbox", name="dx.dcm", raw_name=b"dx.dcm", size_bytes=size, mtime_ns=1)
            (file_id,) = ledger.begin_claims(c, [seen])
            study_id = studies.open_study(
                c,
                grouping_key=f"g{file_id}",
                study_instance_uid=STUDY_UID,
                pseudonym="P-A",
                patient_key="k",
                source="inbox",
                facts=facts,
                identity=PatientIdentity(patient_name="Doe^Jane", patient_id="4711", birth_date="19700131"),
            )
            new = studies.NewInstance(file_id=file_id, sha256=sha256, size_bytes=size, header=header_of(stored))
            studies.add_instances(c, study_id, 1, [new])
            studies.close_version(c, study_id, 1, facts=facts, code=CloseCode.QUIET, reason="a test", actor="test")
            studies.move_study(c, study_id, 1, "route", actor="test")
            job_id = jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="echo")
            jobs.save_analysis(c, jobs.lease(c, jobs.get_job(c, job_id), "test", (), ""), analysis, files)
            jobs.succeed(c, job_id)
            jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1)
        assert self.execution.step(JobKind.REPORT)
        return self.newest()

    def _masks(self, sha256: str, masks: Mapping[str, npt.NDArray[np.bool_]]) -> tuple[Segmentation, StoredFile]:
        stacked = np.stack(list(masks.values()))[:, np.newaxis]
        path = self.path / "masks.npz"
        write_masks(path, stacked)
        stored, size = self.objects.write_bytes(path.read_bytes())
        segments = tuple(Segment(number=n, name=name, label=name) for n, name in enumerate(masks, start=1))
        drawn = Segmentation(
            file=path.name,
            slices=(SliceRef(sha256=sha256, frame=0),),
            rows=stacked.shape[2],
            columns=stacked.shape[3],
            segments=segments,
        )
        return drawn, StoredFile(name=path.name, sha256=stored, size_bytes=size, media_type="application/x-npz")

    def newest(self) -> str:
        """Return the id of the artefact that was made last."""
        with self.database.read() as c:
            row = c.exec_driver_sql("SELECT artefact_id FROM artefacts ORDER BY created_at DESC").first()
        assert row is not None
        return str(row[0])

    def order(
        self,
        artefact_id: str,
        said: dict[str, str] | None = None,
        corrections: dict[str, str] | None = None,
        decision: ReviewDecision = ReviewDecision.AMEND,
    ) -> Order:
        """Return an order about the artefact as it is shown now."""
        passages = None if said is None else tuple(Passage(statement_id=key, text=said[key]) for key in said)
        made = tuple(Correction(condition=key, presence=Presence(to)) for key, to in (corrections or {}).items())
        shown = self.reviews.show(artefact_id, SIGNER)
        return Order(artefact_id, decision, shown.digest, said=passages, corrections=made, reason="a test")

    def decide(self, order: Order) -> str:
        """Decide, in the signer's name; return what is said of it."""
        return self.reviews.decide(order, user="tester", name=SIGNER)

    def sign(self, order: Order) -> Report:
        """Decide and carry it out; return the signed report."""
        self.decide(order)
        assert self.execution.step(JobKind.SIGN)
        return self.read(self.newest())

    def read(self, artefact_id: str) -> Report:
        """Return the report of an artefact."""
        folder = self.path / artefact_id
        folder.mkdir()
        with self.database.read() as c:
            for file in artefacts.get_artefact(c, artefact_id).files:
                (folder / file.name).write_bytes(self.objects.path(file.sha256).read_bytes())
        sr = pydicom.dcmread(folder / "report.sr.dcm")
        return Report(pdf_text(folder), list(sr_texts(sr)), sr, json.loads((folder / "result.json").read_text()))


@contextlib.contextmanager
def review_desk(path: Path) -> Iterator[Desk]:
    """Set up a desk in an empty folder."""
    database, crew = Database(path / "clinic.db"), Crew()
    database.open()
    objects = ObjectStore(path / "objects")
    settings = Settings(review=ReviewSettings(reviewers=(SIGNER,)))
    guard = Guard(crew, shipped_pack("default"), archive=path / "packs", clock=time.monotonic)
    guard.load()
    reports = ReportRunner(
        database=database,
        objects=objects,
        job_directories=path,
        crew=crew,
        guard=guard,
        models=Models(),  # type: ignore[arg-type]
        settings=lambda: settings,
        manifests=dict,
    )
    execution = Execution(
        database=database,
        settings=lambda: settings,
        manifests=dict,
        runners=(reports, SignRunner(database, reports)),
        owner="test",
        wake=Wake(),
    )
    reviews = Reviews(database, objects, reports, lambda: settings.review, lambda: None)
    try:
        yield Desk(path, database, objects, reviews, execution)
    finally:
        reports.press.renderer.close()
        guard.close()
        crew.close()
        database.close()
