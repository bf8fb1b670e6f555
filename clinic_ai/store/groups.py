"""What the assembler asks of studies that may be there already: by grouping key, by hash, by UID.

Functions take the connection of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from clinic_ai.domain import Instance, PatientIdentity, StudyState, Urgency
from clinic_ai.store.studies import NOT_URGENT, instance_of_row
from clinic_ai.store.tables import instances, studies


@dataclass(frozen=True)
class Group:
    """The newest version of the study that a grouping key names, as the assembler needs it."""

    study_id: str
    version: int
    state: StudyState
    identity: PatientIdentity
    urgency: Urgency = NOT_URGENT


def find_group(connection: Connection, grouping_key: str) -> Group | None:
    """Return the newest version of the study with this key, None if it was never seen."""
    row = connection.execute(
        select(
            studies.c.study_id,
            studies.c.version,
            studies.c.state,
            studies.c.identity,
            studies.c.urgency,
        )
        .where(studies.c.grouping_key == grouping_key)
        .order_by(studies.c.version.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return Group(
        row.study_id,
        row.version,
        StudyState(row.state),
        PatientIdentity.model_validate_json(row.identity),
        Urgency.model_validate_json(row.urgency),
    )


def known_hashes(connection: Connection, study_id: str, hashes: Sequence[str]) -> set[str]:
    """Return those of ``hashes`` that the study has or had. At most some hundreds are asked at a time."""
    query = select(instances.c.sha256).where(instances.c.study_id == study_id, instances.c.sha256.in_(hashes))
    return set(connection.execute(query).scalars())


def known_uids(connection: Connection, study_id: str, uids: Sequence[str]) -> set[str]:
    """Return those SOP Instance UIDs that the study has now."""
    query = select(instances.c.sop_instance_uid).where(
        instances.c.study_id == study_id, instances.c.last_version.is_(None), instances.c.sop_instance_uid.in_(uids)
    )
    return set(connection.execute(query).scalars())


def replaced_hashes(connection: Connection, study_id: str, hashes: Sequence[str]) -> set[str]:
    """Return those of ``hashes`` that the study had and a person replaced."""
    query = select(instances.c.sha256).where(
        instances.c.study_id == study_id, instances.c.last_version.is_not(None), instances.c.sha256.in_(hashes)
    )
    return set(connection.execute(query).scalars())


def instance_by_uid(connection: Connection, study_id: str, uid: str) -> Instance | None:
    """Return the object that has this SOP Instance UID in the study now."""
    query = select(instances).where(
        instances.c.study_id == study_id, instances.c.last_version.is_(None), instances.c.sop_instance_uid == uid
    )
    row = connection.execute(query).first()
    return None if row is None else instance_of_row(row)


def key_of_nameless(connection: Connection, key: str, sha256: str) -> str:
    """Return the key of the study that an object belongs to which names neither patient nor study nor day.

    That is the study that has its bytes, else the one that still receives, else a new one: what came into the same
    folder on another day may be of another patient. Keys of such studies begin with ``key``.
    """
    mine = (studies.c.grouping_key >= key) & (studies.c.grouping_key < f"{key}{_AFTER_MARK}")
    has_it = select(studies.c.grouping_key).join(instances, instances.c.study_id == studies.c.study_id)
    found = connection.execute(has_it.where(mine, instances.c.sha256 == sha256).limit(1)).scalar()
    if found is None:
        receiving = select(studies.c.grouping_key).where(mine, studies.c.state == StudyState.RECEIVING.value)
        found = connection.execute(receiving.limit(1)).scalar()
    if found is None:
        count = select(func.count(studies.c.grouping_key.distinct())).where(mine)
        number = connection.execute(count).scalar_one()
        found = f"{key}{_MARK}{number + 1}" if number else key
    return str(found)


_MARK = "+"
_AFTER_MARK = chr(ord(_MARK) + 1)
"""Keys end in a hash of hexadecimal digits, so that all that begin with one and the mark lie between these."""
