"""Originals whose results are delivered: which may be removed, and the record that they were, or are back.

Only bytes are ever removed. Headers, results, ledger and audit stay. Functions take the connection of the caller's
transaction; times are UTC seconds, sizes bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, update

from clinic_ai.domain import ArtefactState, DeliveryState, Fate, JobState, StudyState
from clinic_ai.errors import Conflict
from clinic_ai.store import audit
from clinic_ai.store.references import needed
from clinic_ai.store.studies import in_version
from clinic_ai.store.tables import artefacts, deidentified, deliveries, files, instances, jobs, studies


@dataclass(frozen=True)
class Delivered:
    """A study whose originals nobody needs for its result any more, and when the last of that was delivered."""

    study_id: str
    version: int
    delivered_at: float


@dataclass(frozen=True)
class Original:
    """One stored original."""

    sha256: str
    size_bytes: int


def size_of(connection: Connection, study_id: str, version: int, sha256: str) -> int | None:
    """Return the size in bytes of an original of a version of a study, None if it has none such."""
    query = select(instances.c.size_bytes).where(*in_version(study_id, version), instances.c.sha256 == sha256)
    return connection.execute(query).scalar()


def delivered_studies(
    connection: Connection, *, before: float, limit: int, after: tuple[float, str] = (0.0, "")
) -> list[Delivered]:
    """Return studies of whose newest version all is released and delivered, before ``before``, oldest first.

    Never one that is still arriving, waits, failed or is in work, of which anything is held, blocked, rejected or not
    sent, that has a file in the quarantine, or whose originals were removed already. ``after`` is time and id of the
    last one already seen.
    """
    delivered = _delivered().subquery()
    query = (
        select(delivered)
        .where(
            delivered.c.delivered_at < before,
            or_(
                delivered.c.delivered_at > after[0],
                and_(delivered.c.delivered_at == after[0], delivered.c.study_id > after[1]),
            ),
        )
        .order_by(delivered.c.delivered_at, delivered.c.study_id)
        .limit(limit)
    )
    return [Delivered(row.study_id, row.version, row.delivered_at) for row in connection.execute(query)]


def _delivered() -> Select[str, int, float]:
    """Return the studies that may lose their originals, each with the time of its last delivery."""
    newer = studies.alias("newer")
    return (
        select(studies.c.study_id, studies.c.version, func.max(deliveries.c.done_at).label("delivered_at"))
        .join(artefacts, and_(artefacts.c.study_id == studies.c.study_id, artefacts.c.version == studies.c.version))
        .join(deliveries, deliveries.c.artefact_id == artefacts.c.artefact_id)
        .where(
            studies.c.state == StudyState.DONE.value,
            artefacts.c.state.in_(_RELEASED),
            studies.c.originals_removed_at.is_(None),
            ~exists().where(newer.c.study_id == studies.c.study_id, newer.c.version > studies.c.version),
            ~_open_artefact(),
            ~exists().where(jobs.c.study_id == studies.c.study_id, jobs.c.state.in_(_AT_WORK)),
            ~exists().where(files.c.study_id == studies.c.study_id, files.c.fate == Fate.QUARANTINED.value),
        )
        .group_by(studies.c.study_id, studies.c.version)
    )


def _open_artefact() -> ColumnElement[bool]:
    """Return the condition that something of a study is not released, or released and not where it should be.

    Of the newest version everything must have arrived; of earlier ones nothing may still be undecided or on its way,
    though a result that was superseded before it went out does not count.
    """
    made, sent = artefacts.alias("made"), deliveries.alias("sent")
    newest = made.c.version == studies.c.version
    any_sent = exists().where(sent.c.artefact_id == made.c.artefact_id)
    pending = any_sent.where(sent.c.state == DeliveryState.PENDING.value)
    not_arrived = any_sent.where(sent.c.state.not_in(_ARRIVED))
    return exists().where(
        made.c.study_id == studies.c.study_id,
        or_(
            made.c.state.in_(_UNDECIDED),
            pending,
            # One that a signed report took the place of within its version is settled by that one.
            and_(
                newest,
                made.c.state != ArtefactState.SUPERSEDED.value,
                or_(made.c.state.not_in(_RELEASED), ~any_sent, not_arrived),
            ),
        ),
    )


def exclusive(connection: Connection, study_id: str) -> list[Original]:
    """Return the originals of a study that nothing else needs."""
    query = select(instances.c.sha256, instances.c.size_bytes).where(instances.c.study_id == study_id)
    own = {row.sha256: row.size_bytes for row in connection.execute(query)}
    shared = needed(connection, list(own), besides=study_id)
    return [Original(sha256, size) for sha256, size in own.items() if sha256 not in shared]


def copies_of(connection: Connection, study_id: str, *, exclusively: bool = False) -> list[str]:
    """Return the hashes of de-identified copies of a study's originals; ``exclusively``: that nothing else needs."""
    made = select(deidentified.c.sha256).join(instances, instances.c.sha256 == deidentified.c.original_sha256)
    found = [*connection.execute(made.where(instances.c.study_id == study_id).distinct()).scalars()]
    shared = needed(connection, found, besides=study_id) if exclusively else {}
    return [sha256 for sha256 in found if sha256 not in shared]


def note_removed(connection: Connection, study: Delivered, originals: Sequence[Original], *, why: str) -> None:
    """Record that the originals of a study are removed; the caller does so once this is committed.

    ``why`` is the rule of retention. Raise Conflict if the study may not lose them any more.
    """
    still = connection.execute(_delivered().where(studies.c.study_id == study.study_id)).first()
    if still is None or still.version != study.version:
        raise Conflict(
            f"The originals of study {study.study_id} are needed again.", remedy="Nothing is needed; they stay."
        )
    connection.execute(
        update(studies).where(studies.c.study_id == study.study_id).values(originals_removed_at=time.time())
    )
    audit.record(
        connection,
        actor="retention",
        action="study.originals_removed",
        subject=study.study_id,
        details={"objects": len(originals), "bytes": sum(o.size_bytes for o in originals), "why": why},
    )


def removed_at(connection: Connection, study_id: str) -> float | None:
    """Return when retention removed originals of a study, None if they are all there."""
    query = select(func.max(studies.c.originals_removed_at)).where(studies.c.study_id == study_id)
    found = connection.execute(query).scalar()
    return None if found is None else float(found)


@dataclass(frozen=True)
class Lost:
    """How many images of a study retention removed, of how many, and when (UTC seconds)."""

    removed: int
    images: int
    at: float


def removed_of(connection: Connection, study_id: str) -> Lost:
    """Return what retention removed of a study of which it removed something."""
    gone = studies.c.study_id == study_id, studies.c.originals_removed_at.is_not(None)
    row = connection.execute(select(func.max(studies.c.version), func.max(studies.c.originals_removed_at)).where(*gone))
    version, at = row.one()
    own = instances.c.study_id == study_id
    count = select(func.count()).select_from(instances)
    removed = connection.execute(count.where(own, instances.c.first_version <= version)).scalar_one()
    return Lost(int(removed), int(connection.execute(count.where(own)).scalar_one()), float(at))


def hashes_of(connection: Connection, study_id: str) -> list[str]:
    """Return the hashes of all originals that a study ever had."""
    return [*connection.execute(select(instances.c.sha256).where(instances.c.study_id == study_id)).scalars()]


def note_restored(connection: Connection, study_id: str) -> None:
    """Record that all originals of a study are there again."""
    connection.execute(update(studies).where(studies.c.study_id == study_id).values(originals_removed_at=None))
    audit.record(connection, actor="ingest", action="study.originals_restored", subject=study_id)


def removed_count(connection: Connection) -> int:
    """Return how many studies have lost their originals to retention."""
    query = select(func.count(func.distinct(studies.c.study_id))).where(studies.c.originals_removed_at.is_not(None))
    return int(connection.execute(query).scalar_one())


def _values(found: Sequence[StrEnum]) -> list[str]:
    return [state.value for state in found]


_RELEASED = _values((ArtefactState.PRELIMINARY, ArtefactState.FINAL))
_UNDECIDED = _values((ArtefactState.DRAFT, ArtefactState.HELD, ArtefactState.BLOCKED))
_ARRIVED = _values((DeliveryState.SENT, DeliveryState.RECEIPTED))
_AT_WORK = _values((JobState.QUEUED, JobState.LEASED))
