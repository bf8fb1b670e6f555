"""Fills a database as years of work would, without files: rows as ingest writes them, of studies of nobody."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from sqlalchemy import insert
from sqlalchemy.schema import Table

from clinic_ai.domain import Fate, FileKind, InstanceHeader, PatientIdentity, StudyFacts, StudyState, WaitReason
from clinic_ai.home import Home
from clinic_ai.store.database import Database
from clinic_ai.store.tables import files, instances, jobs, studies
from parts.slices import sop_uid, study_uid

STATES = (*(StudyState.DONE,) * 95, *(StudyState.UNROUTED,) * 3, *(StudyState.FAILED,) * 2)
FATES = (*(Fate.STORED,) * 960, *(Fate.DUPLICATE,) * 30, *(Fate.QUARANTINED,) * 9, Fate.IGNORED)
STORED_PER_STUDY = 10
"""Instances of a study in the database; the ledger has as many files as are asked for."""
RECEIVING_HASH = [hashlib.sha256(bytes([n])).hexdigest() for n in range(200)]
_MANY = 10_000


def fill(home: Home, *, studies: int, files: int, receiving: int) -> None:
    """Make the database of a home: ``receiving`` of the studies are open, the others ended in the last year."""
    database = Database(home.database)
    database.open()
    _insert(database, _TABLES["files"], _files(files, studies))
    _insert(database, _TABLES["studies"], _studies(studies, receiving))
    _insert(database, _TABLES["instances"], _instances(min(files, studies * STORED_PER_STUDY), studies))
    _insert(database, _TABLES["jobs"], _jobs(studies, receiving))
    database.close()


_TABLES = {"files": files, "studies": studies, "instances": instances, "jobs": jobs}


def _insert(database: Database, table: Table, rows: Iterator[dict[str, object]]) -> None:
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _MANY:
            _write(database, table, batch)
            batch = []
    if batch:
        _write(database, table, batch)


def _write(database: Database, table: Table, rows: list[dict[str, object]]) -> None:
    with database.write() as connection:
        connection.execute(insert(table), rows)


def _study_id(index: int) -> str:
    return f"S-20260101-{index:08d}"


def _sha256(index: int) -> str:
    return hashlib.sha256(str(index).encode()).hexdigest()


def _files(count: int, studies: int) -> Iterator[dict[str, object]]:
    now = time.time()
    for index in range(count):
        fate = FATES[index * 7 % len(FATES)]
        bad = fate is not Fate.STORED
        yield {
            "file_id": index + 1,
            "source": "inbox",
            "name": f"scanner/study {index % studies}/slice {index}.dcm",
            "raw_name": f"scanner/study {index % studies}/slice {index}.dcm".encode(),
            "size_bytes": 527_000,
            "mtime_ns": index,
            "sha256": _sha256(index),
            "fate": fate.value,
            "reason_code": "damaged" if bad else "",
            "reason": "The file ends inside the image: 8062 of 8192 bytes of pixels are there." if bad else "",
            "remedy": "Send it again from where it came; the copy here is kept as it is." if bad else "",
            "study_id": None if fate in {Fate.QUARANTINED, Fate.IGNORED} else _study_id(index % studies),
            "seen_at": now - count + index,
            "decided_at": now - count + index,
        }


def _studies(count: int, receiving: int) -> Iterator[dict[str, object]]:
    now = time.time()
    wait = WaitReason(code="no_rule", sentence="No routing rule and no plugin takes a study like this one.")
    facts = StudyFacts(
        source="inbox",
        modalities=("CT",),
        body_parts=("CHEST",),
        stations=("CT_ROOM_1",),
        study_description="CT chest without contrast",
        series_descriptions=("Scout", "Lung 1.0", "Mediastinum 3.0"),
        sop_class_uids=("1.2.840.10008.5.1.4.1.1.2",),
        slices=250,
    ).model_dump_json()
    for index in range(count):
        state = StudyState.RECEIVING if index >= count - receiving else STATES[index * 7 % len(STATES)]
        identity = PatientIdentity(patient_id=f"BENCH-{index}", patient_name="PHANTOM^Benchmark")
        opened = now - (count - index) * 3000
        yield {
            "study_id": _study_id(index),
            "version": 1,
            "state": state.value,
            "study_instance_uid": study_uid("crowd", index),
            "grouping_key": f"uid:{study_uid('crowd', index)}",
            "pseudonym": f"P-{index:06d}",
            "patient_key": _sha256(index),
            "source": "inbox",
            "facts": facts,
            "modality": "CT",
            "body_parts": "CHEST",
            "identity": identity.model_dump_json(),
            "opened_at": now if state is StudyState.RECEIVING else opened,
            "last_instance_at": now if state is StudyState.RECEIVING else opened + 60,
            "closed_at": None if state is StudyState.RECEIVING else opened + 65,
            "closed_reason": "" if state is StudyState.RECEIVING else "nothing new arrived for 5 s, 250 instances",
            "wait": wait.model_dump_json() if state is StudyState.UNROUTED else None,
            "wait_code": wait.code if state is StudyState.UNROUTED else "",
            "wait_sentence": wait.sentence if state is StudyState.UNROUTED else "",
        }


def _instances(count: int, studies: int) -> Iterator[dict[str, object]]:
    for index in range(count):
        study, number = study_uid("crowd", index % studies), index // studies + 1
        header = InstanceHeader(
            kind=FileKind.DICOM,
            sop_instance_uid=sop_uid(study, number),
            series_instance_uid=f"{study}.1",
            study_instance_uid=study,
            modality="CT",
            body_part="CHEST",
            instance_number=number,
            series_number=1,
        )
        yield {
            "study_id": _study_id(index % studies),
            "first_version": 1,
            "sop_instance_uid": sop_uid(study, number),
            "sha256": _sha256(index),
            "size_bytes": 527_000,
            "header": header.model_dump_json(),
            "file_id": index + 1,
        }


def _jobs(studies: int, receiving: int) -> Iterator[dict[str, object]]:
    for index in range(studies - receiving):
        for kind in ("analyse", "report"):
            yield {
                "job_id": f"J-{kind}-{index:08d}",
                "kind": kind,
                "study_id": _study_id(index),
                "version": 1,
                "plugin": "echo" if kind == "analyse" else "",
                "state": "DONE",
                "created_at": time.time(),
                "finished_at": time.time(),
            }
