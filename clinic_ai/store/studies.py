"""Studies and their instances. A study is one row per version; an instance belongs to its versions first to last.

Functions take the connection of the caller's transaction. Identity is in here and nowhere else: never log a row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, tuple_, union_all, update
from sqlalchemy.engine import Row

from clinic_ai.domain import (
    CloseCode,
    Instance,
    InstanceHeader,
    PatientIdentity,
    Study,
    StudyFacts,
    StudyState,
    Urgency,
    WaitReason,
    new_id,
)
from clinic_ai.errors import NotFound
from clinic_ai.states import STUDY, step
from clinic_ai.store import audit
from clinic_ai.store.tables import instances, studies

_NO_NUMBER = 1 << 62
NOT_URGENT = Urgency()


@dataclass(frozen=True)
class NewInstance:
    """An instance to be added; ``file_id`` is its row in the ledger."""

    file_id: int
    sha256: str
    size_bytes: int
    header: InstanceHeader


# ---------------------------------------------------------------- reading


def get_study(connection: Connection, study_id: str, version: int | None = None) -> Study:
    """Return one version of a study, the newest if ``version`` is None. Raise NotFound if there is none."""
    query = select(studies).where(studies.c.study_id == study_id).order_by(studies.c.version.desc()).limit(1)
    if version is not None:
        query = query.where(studies.c.version == version)
    row = connection.execute(query).first()
    if row is None:
        which = f"version {version} of study {study_id}" if version is not None else f"study {study_id}"
        raise NotFound(f"There is no {which}.", remedy="`clinic-ai study list` shows the studies there are.")
    return study_of_row(row)


def versions_of(connection: Connection, study_id: str) -> list[Study]:
    """Return all versions of a study, the first one first."""
    query = select(studies).where(studies.c.study_id == study_id).order_by(studies.c.version)
    return [study_of_row(row) for row in connection.execute(query)]


def of_versions(connection: Connection, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Study]:
    """Return the studies of these ids and versions, as far as there are any."""
    wanted = tuple_(studies.c.study_id, studies.c.version).in_(versions)
    found = (study_of_row(row) for row in connection.execute(select(studies).where(wanted))) if versions else ()
    return {(study.study_id, study.version): study for study in found}


def instances_of(connection: Connection, study_id: str, version: int) -> tuple[Instance, ...]:
    """Return the instances of a version, by series and instance number whatever the order they arrived in."""
    query = select(instances).where(*in_version(study_id, version))
    return tuple(sorted((instance_of_row(row) for row in connection.execute(query)), key=_reading_order))


Place = tuple[float, str, int]
"""Where a study version stands in a list: ``opened_at``, its id, its version."""


def list_studies(
    connection: Connection,
    *,
    states: Iterable[StudyState] | None = None,
    limit: int = 100,
    before: Place | None = None,
) -> list[Study]:
    """Return study versions, newest first: those in ``states``, or all that are not SUPERSEDED.

    ``before`` is the place of the last one already shown, so that of two of one moment none is lost or comes twice.
    """
    wanted = list(states) if states is not None else [state for state in StudyState if state != StudyState.SUPERSEDED]
    if not wanted:
        return []
    # Of each state the newest, which its index has in order, then the newest of these: whatever the table's size.
    key = (studies.c.opened_at, studies.c.study_id, studies.c.version)
    backwards = [column.desc() for column in key]
    of_state = [
        select(*key).where(studies.c.state == state.value).order_by(*backwards).limit(limit) for state in wanted
    ]
    if before is not None:
        of_state = [query.where(tuple_(*key) < tuple_(*before)) for query in of_state]
    newest = union_all(*(select(query.subquery()) for query in of_state)).subquery()
    query = (
        select(studies)
        .join(newest, (studies.c.study_id == newest.c.study_id) & (studies.c.version == newest.c.version))
        .order_by(*backwards)
        .limit(limit)
    )
    return [study_of_row(row) for row in connection.execute(query)]


def studies_in(connection: Connection, state: StudyState) -> list[Study]:
    """Return all study versions in a state, the most urgent and then the oldest first."""
    query = (
        select(studies)
        .where(studies.c.state == state.value)
        .order_by(studies.c.priority.desc(), studies.c.opened_at, studies.c.study_id)
    )
    return [study_of_row(row) for row in connection.execute(query)]


def oldest(connection: Connection, states: Iterable[StudyState]) -> float | None:
    """Return when the oldest study version in one of ``states`` was opened, None if there is none."""
    query = select(func.min(studies.c.opened_at)).where(studies.c.state.in_([state.value for state in states]))
    found = connection.execute(query).scalar()
    return None if found is None else float(found)


def counts(connection: Connection) -> dict[StudyState, int]:
    """Return how many study versions are in each state; states without one are 0."""
    found = {
        str(state): int(number)
        for state, number in connection.execute(select(studies.c.state, func.count()).group_by(studies.c.state))
    }
    return {state: found.get(state.value, 0) for state in StudyState}


def count_instances(connection: Connection, study_id: str, version: int) -> int:
    """Return how many instances a version has."""
    query = select(func.count()).select_from(instances).where(*in_version(study_id, version))
    return int(connection.execute(query).scalar_one())


def patient_key(connection: Connection, study_id: str) -> str:
    """Return the keyed hash that stands for the patient of a study. Raise NotFound if there is no such study."""
    query = select(studies.c.patient_key).where(studies.c.study_id == study_id).order_by(studies.c.version.desc())
    found = connection.execute(query.limit(1)).scalar()
    if found is None:
        raise NotFound(f"There is no study {study_id}.", remedy="`clinic-ai study list` shows the studies there are.")
    return str(found)


# ---------------------------------------------------------------- moving


def move_study(
    connection: Connection,
    study_id: str,
    version: int,
    event: str,
    *,
    actor: str,
    wait: WaitReason | None = None,
    **details: object,
) -> StudyState:
    """Take one transition of ``states.STUDY``, with its audit row; ``wait`` replaces what the study waits for.

    ``details`` go into the audit and must not hold personal data. Raise NotFound if there is no such
    version, Conflict if its state does not permit the event.
    """
    old = _state(connection, study_id, version)
    new = step(STUDY, old, event)
    _set(connection, study_id, version, state=new.value, **_of_wait(wait))
    audit.record(
        connection,
        actor=actor,
        action=f"study.{event}",
        subject=study_id,
        details={"version": version, "from": old.value, "to": new.value, **details},
    )
    return new


def set_wait(connection: Connection, study_id: str, version: int, wait: WaitReason | None) -> None:
    """Say what a study waits for; None if for nothing."""
    _set(connection, study_id, version, **_of_wait(wait))


# ---------------------------------------------------------------- assembling (for ingest)


def end_instances(connection: Connection, study_id: str, version: int, replacements: Mapping[str, str]) -> int:
    """Let objects that were replaced belong to the versions before ``version`` only; return how many these are.

    ``replacements`` gives for each SOP Instance UID the SHA-256 of the object that has it from now on.
    """
    ended = 0
    for uid, sha256 in replacements.items():
        replaced = (
            instances.c.study_id == study_id,
            instances.c.sop_instance_uid == uid,
            instances.c.sha256 != sha256,
            instances.c.last_version.is_(None),
        )
        ended += connection.execute(update(instances).where(*replaced).values(last_version=version - 1)).rowcount
    return ended


def count_replaced(connection: Connection, study_id: str, version: int) -> int:
    """Return how many objects a person replaced when this version was made."""
    query = (
        select(func.count())
        .select_from(instances)
        .where(instances.c.study_id == study_id, instances.c.last_version == version - 1)
    )
    return int(connection.execute(query).scalar_one())


def open_study(
    connection: Connection,
    *,
    grouping_key: str,
    study_instance_uid: str,
    pseudonym: str,
    patient_key: str,
    source: str,
    facts: StudyFacts,
    identity: PatientIdentity,
    priority: int = 0,
    urgency: Urgency | None = None,
    wait: WaitReason | None = None,
) -> str:
    """Open version 1 of a new study (RECEIVING); return its identifier."""
    now = time.time()
    study_id = new_id("S", at=now)
    connection.execute(
        insert(studies).values(
            study_id=study_id,
            version=1,
            state=StudyState.RECEIVING.value,
            study_instance_uid=study_instance_uid,
            grouping_key=grouping_key,
            pseudonym=pseudonym,
            patient_key=patient_key,
            source=source,
            **_of_facts(facts),
            identity=identity.model_dump_json(),
            priority=priority,
            urgency=(urgency or Urgency()).model_dump_json(),
            opened_at=now,
            last_instance_at=now,
            **_of_wait(wait),
        )
    )
    audit.record(connection, actor="ingest", action="study.open", subject=study_id, details={"version": 1})
    return study_id


def open_next_version(connection: Connection, study_id: str, *, wait: WaitReason | None = None) -> int:
    """Open the version after the newest one for late instances (RECEIVING); return its number."""
    now = time.time()
    row = connection.execute(
        select(studies).where(studies.c.study_id == study_id).order_by(studies.c.version.desc()).limit(1)
    ).one()
    values = dict(row._mapping) | {
        "version": row.version + 1,
        "state": StudyState.RECEIVING.value,
        "opened_at": now,
        "last_instance_at": now,
        "closed_at": None,
        "closed_reason": "",
        "close_code": "",
        "originals_removed_at": None,  # of the images that came before, that is for the earlier versions to say
        **_of_wait(wait),
    }
    connection.execute(insert(studies).values(**values))
    audit.record(
        connection, actor="ingest", action="study.open", subject=study_id, details={"version": row.version + 1}
    )
    return int(row.version) + 1


def add_instances(
    connection: Connection, study_id: str, version: int, new: Sequence[NewInstance], *, wait: WaitReason | None = None
) -> None:
    """Add instances to a RECEIVING version."""
    connection.execute(
        insert(instances),
        [
            {
                "study_id": study_id,
                "first_version": version,
                "sop_instance_uid": instance.header.sop_instance_uid,
                "sha256": instance.sha256,
                "size_bytes": instance.size_bytes,
                "header": instance.header.model_dump_json(),
                "file_id": instance.file_id,
            }
            for instance in new
        ],
    )
    _set(
        connection,
        study_id,
        version,
        last_instance_at=time.time(),
        **_of_wait(wait),
    )
    audit.record(
        connection,
        actor="ingest",
        action="study.receive",
        subject=study_id,
        details={"version": version, "instances": len(new)},
    )


def set_identity(
    connection: Connection, study_id: str, version: int, identity: PatientIdentity, *, patient_key: str, pseudonym: str
) -> None:
    """Complete the identity of a RECEIVING version, when a later instance says what the first left empty."""
    _set(
        connection,
        study_id,
        version,
        identity=identity.model_dump_json(),
        patient_key=patient_key,
        pseudonym=pseudonym,
    )


def set_urgency(connection: Connection, study_id: str, version: int, urgency: Urgency, priority: int) -> None:
    """Give a study version another priority, and say what it is made of."""
    _set(connection, study_id, version, urgency=urgency.model_dump_json(), priority=priority)


def close_version(
    connection: Connection,
    study_id: str,
    version: int,
    *,
    facts: StudyFacts,
    code: CloseCode,
    reason: str,
    actor: str,
) -> None:
    """Close a RECEIVING version for a stated reason, and supersede the versions before it.

    Raise Conflict if it is not RECEIVING.
    """
    _set(
        connection,
        study_id,
        version,
        **_of_facts(facts),
        closed_at=time.time(),
        close_code=code.value,
        closed_reason=reason,
    )
    move_study(connection, study_id, version, "close", actor=actor, code=code.value, reason=reason)
    earlier = select(studies.c.version).where(
        studies.c.study_id == study_id,
        studies.c.version < version,
        studies.c.state != StudyState.SUPERSEDED.value,
    )
    for old in connection.execute(earlier).scalars().all():
        move_study(connection, study_id, old, "supersede", actor=actor, by_version=version)


# ---------------------------------------------------------------- rows and words


def in_version(study_id: str, version: int) -> tuple[ColumnElement[bool], ...]:
    """Return what picks the instances of a version."""
    return (
        instances.c.study_id == study_id,
        instances.c.first_version <= version,
        or_(instances.c.last_version.is_(None), instances.c.last_version >= version),
    )


def _state(connection: Connection, study_id: str, version: int) -> StudyState:
    found = connection.execute(
        select(studies.c.state).where(studies.c.study_id == study_id, studies.c.version == version)
    ).scalar()
    if found is None:
        raise NotFound(
            f"There is no version {version} of study {study_id}.",
            remedy="`clinic-ai study list` shows the studies there are.",
        )
    return StudyState(found)


def _set(connection: Connection, study_id: str, version: int, **values: object) -> None:
    connection.execute(
        update(studies).where(studies.c.study_id == study_id, studies.c.version == version).values(**values)
    )


def _of_facts(facts: StudyFacts) -> dict[str, object]:
    """Return the columns that hold the facts: the document, and what the queue sorts and searches by."""
    return {
        "facts": facts.model_dump_json(),
        "modality": " ".join(facts.modalities),
        "body_parts": " ".join(facts.body_parts),
    }


def _of_wait(wait: WaitReason | None) -> dict[str, object]:
    """Return the columns that hold what a study waits for, None: for nothing."""
    if wait is None:
        return {"wait": None, "wait_code": "", "wait_sentence": ""}
    return {"wait": wait.model_dump_json(), "wait_code": wait.code, "wait_sentence": wait.sentence}


def study_of_row(row: Row[tuple[object, ...]]) -> Study:
    found = row._mapping
    return Study(
        study_id=found["study_id"],
        version=found["version"],
        state=StudyState(found["state"]),
        study_instance_uid=found["study_instance_uid"],
        pseudonym=found["pseudonym"],
        source=found["source"],
        facts=StudyFacts.model_validate_json(found["facts"]),
        identity=PatientIdentity.model_validate_json(found["identity"]),
        priority=found["priority"],
        urgency=Urgency.model_validate_json(found["urgency"]),
        opened_at=found["opened_at"],
        last_instance_at=found["last_instance_at"],
        closed_at=found["closed_at"],
        close_code=CloseCode(found["close_code"]) if found["close_code"] else None,
        closed_reason=found["closed_reason"],
        wait=WaitReason.model_validate_json(found["wait"]) if found["wait"] else None,
        originals_removed_at=found["originals_removed_at"],
    )


def instance_of_row(row: Row[tuple[object, ...]]) -> Instance:
    found = row._mapping
    return Instance(
        sha256=found["sha256"],
        size_bytes=found["size_bytes"],
        header=InstanceHeader.model_validate_json(found["header"]),
        first_version=found["first_version"],
    )


def _reading_order(instance: Instance) -> tuple[int, str, int, str, str]:
    header = instance.header
    return (
        _NO_NUMBER if header.series_number is None else header.series_number,
        header.series_instance_uid,
        _NO_NUMBER if header.instance_number is None else header.instance_number,
        header.sop_instance_uid,
        instance.sha256,
    )
