"""The ledger: one row per file that was ever seen in an inbox, what became of it, and what people decided of it.

Functions take the connection of the caller's transaction. ``seen_at`` and ``decided_at`` are UTC seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field
from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.engine import Row

from clinic_ai.domain import Fate, FileDecision, Word
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.states import FILE, step
from clinic_ai.store.tables import file_counts, files

PENDING = tuple(fate for fate in Fate if fate.pending)
_WAITING = text("fate = 'QUARANTINED'")  # no parameter: else SQLite cannot use the index of quarantined files
_AT_ONCE = 500
"""Rows asked for by number in one statement."""


@dataclass(frozen=True)
class Sighting:
    """A file as an inbox showed it. ``name`` is for people, ``raw_name`` is what the file system has."""

    source: str
    name: str
    raw_name: bytes
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Outcome:
    """The final fate of one file; ``reason`` is a sentence, ``remedy`` what a person can do."""

    file_id: int
    fate: Fate
    reason_code: str = ""
    reason: str = ""
    remedy: str = ""
    study_id: str | None = None


class LedgerEntry(Word):
    """One row of the ledger."""

    file_id: int
    source: str
    name: str
    raw_name: bytes = Field(exclude=True, repr=False)
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    fate: Fate
    reason_code: str
    reason: str
    remedy: str
    study_id: str | None
    seen_at: float
    decided_at: float | None
    decision: str = ""
    decided_by: str = ""


def begin_claims(connection: Connection, sightings: Sequence[Sighting], *, seen_at: float | None = None) -> list[int]:
    """Note the intent to take these files (CLAIMING); return their numbers in the same order."""
    if not sightings:
        return []
    now = time.time() if seen_at is None else seen_at
    # The write transaction holds the only write lock, so that numbering by hand is safe; it lets one
    # executemany do the work of many single inserts that return their number.
    first = (connection.execute(select(func.max(files.c.file_id))).scalar() or 0) + 1
    rows = [
        {
            "file_id": first + offset,
            "source": sighting.source,
            "name": sighting.name,
            "raw_name": sighting.raw_name,
            "size_bytes": sighting.size_bytes,
            "mtime_ns": sighting.mtime_ns,
            "fate": Fate.CLAIMING.value,
            "seen_at": now,
        }
        for offset, sighting in enumerate(sightings)
    ]
    connection.execute(insert(files), rows)
    return [first + offset for offset in range(len(rows))]


def confirm_claims(connection: Connection, hashes: Iterable[tuple[int, str, int]]) -> None:
    """Note that the bytes lie in the spool, synced (CLAIMED): file number, SHA-256 and size of what was taken."""
    rows: list[dict[str, object]] = [{"id": file_id, "hash": sha256, "size": size} for file_id, sha256, size in hashes]
    if rows:
        _move(
            connection,
            _before(Fate.CLAIMED),
            rows,
            fate=Fate.CLAIMED.value,
            sha256=bindparam("hash"),
            size_bytes=bindparam("size"),
        )


def decide(connection: Connection, outcomes: Iterable[Outcome]) -> None:
    """Write the final fates. Raise Conflict if ``states.FILE`` does not permit one; nothing may be committed then."""
    now = time.time()
    by_fate: dict[Fate, list[dict[str, object]]] = {}
    for outcome in outcomes:
        by_fate.setdefault(outcome.fate, []).append(
            {
                "id": outcome.file_id,
                "new_fate": outcome.fate.value,
                "code": outcome.reason_code,
                "sentence": outcome.reason,
                "what_to_do": outcome.remedy,
                "study": outcome.study_id,
            }
        )
    for fate, rows in by_fate.items():
        _move(
            connection,
            _before(fate),
            rows,
            fate=bindparam("new_fate"),
            reason_code=bindparam("code"),
            reason=bindparam("sentence"),
            remedy=bindparam("what_to_do"),
            study_id=bindparam("study"),
            decided_at=now,
            **(_UNDECIDED if fate is Fate.QUARANTINED else {}),
        )


def accept(connection: Connection, entry: LedgerEntry, decision: FileDecision, by: str) -> None:
    """Note that a person let a file out of the quarantine; ingest finds it among ``claimed`` and carries it out.

    Raise Conflict if it is not in quarantine.
    """
    fate = _step(entry, "accept")
    _person_moves(connection, entry, fate=fate.value, decision=decision.value, decided_by=by)


def discard(connection: Connection, entry: LedgerEntry, reason: str, by: str) -> None:
    """Note that a person does not want a quarantined file, and why. Raise Conflict if it is not in quarantine."""
    fate = _step(entry, "discard")
    _person_moves(
        connection,
        entry,
        fate=fate.value,
        decision=FileDecision.DISCARD.value,
        decided_by=by,
        decided_at=time.time(),
        reason=f"{entry.reason} Discarded: {reason}".strip(),
        remedy="",
    )


_UNDECIDED: dict[str, object] = {"decision": "", "decided_by": ""}
"""Of a file that waits for a decision; whatever was decided of it before, the audit has."""


def _step(entry: LedgerEntry, event: str) -> Fate:
    try:
        return step(FILE, entry.fate, event)
    except Conflict:
        by = f", as {entry.decided_by} decided" if entry.decided_by else ""
        raise Conflict(
            f"File {entry.file_id} is {entry.fate.value}{by}; only a file in quarantine can be decided about.",
            remedy=f"`clinic-ai file show {entry.file_id}` says what became of it. Nothing was written.",
        ) from None


def _person_moves(connection: Connection, entry: LedgerEntry, **values: object) -> None:
    same = (files.c.file_id == entry.file_id) & (files.c.fate == entry.fate.value)
    if connection.execute(update(files).where(same).values(**values)).rowcount != 1:
        raise Conflict(f"File {entry.file_id} was decided about just now.", remedy="Look at it again.")


def _before(fate: Fate) -> list[str]:
    """Return the fates from which ingest may come to this one."""
    return [old.value for (old, _), new in FILE.items() if new is fate and old.pending]


def _move(connection: Connection, allowed: list[str], rows: list[dict[str, object]], **values: object) -> None:
    """Update the rows by their ``id``. Raise Conflict if one of them is not in an ``allowed`` fate."""
    in_one = or_(*(files.c.fate == fate for fate in allowed))  # IN cannot be sent for many rows at once
    statement = update(files).where(files.c.file_id == bindparam("id"), in_one).values(**values)
    if connection.execute(statement, rows).rowcount != len(rows):
        raise Conflict(
            f"Files {_numbers(rows)} are not all on their way any more; nothing was written about them.",
            remedy="`clinic-ai file list` shows what became of each.",
        )


def _numbers(rows: list[dict[str, object]]) -> str:
    return ", ".join(str(row["id"]) for row in rows[:5]) + (" …" if len(rows) > 5 else "")


def abandon(connection: Connection, file_ids: Iterable[int]) -> None:
    """Take back claims whose files were not moved and still lie in their inbox: nothing happened to them."""
    rows = [{"id": file_id} for file_id in file_ids]
    if rows:
        connection.execute(
            delete(files).where(files.c.file_id == bindparam("id"), files.c.fate == Fate.CLAIMING.value), rows
        )


def ignore(connection: Connection, sighting: Sighting, code: str, reason: str, remedy: str) -> int:
    """Note something that is left where it lies, never opened; return its number."""
    (file_id,) = begin_claims(connection, [sighting])
    decide(connection, [Outcome(file_id, Fate.IGNORED, code, reason, remedy)])
    return file_id


def ignored_before(connection: Connection, sighting: Sighting) -> bool:
    """Return whether exactly this is in the ledger as IGNORED already, so that each is noted once."""
    return (
        connection.execute(
            select(files.c.file_id)
            .where(
                text("fate = 'IGNORED'"),  # no parameter: else SQLite cannot use the index of ignored files
                files.c.source == sighting.source,
                files.c.raw_name == sighting.raw_name,
                files.c.mtime_ns == sighting.mtime_ns,
            )
            .limit(1)
        ).first()
        is not None
    )


def pending(connection: Connection) -> list[LedgerEntry]:
    """Return the files on their way, oldest first: after a crash, the work to be picked up."""
    query = select(files).where(files.c.fate.in_([fate.value for fate in PENDING])).order_by(files.c.file_id)
    return [_entry(row) for row in connection.execute(query)]


def claimed(connection: Connection) -> list[LedgerEntry]:
    """Return the files that are CLAIMED, oldest first: being filed, or let out of the quarantine by a person."""
    query = select(files).where(files.c.fate == Fate.CLAIMED.value).order_by(files.c.file_id)
    return [_entry(row) for row in connection.execute(query)]


def undecided(connection: Connection, study_id: str) -> list[LedgerEntry]:
    """Return the files in quarantine that belong to a study, oldest first."""
    query = (
        select(files)
        .where(files.c.fate == Fate.QUARANTINED.value, files.c.study_id == study_id)
        .order_by(files.c.file_id)
    )
    return [_entry(row) for row in connection.execute(query)]


def undecided_counts(connection: Connection) -> list[tuple[str, str | None, str, int]]:
    """Return how many files lie in quarantine, by source, study and code of the reason."""
    columns = (files.c.source, files.c.study_id, files.c.reason_code)
    query = select(*columns, func.count()).where(_WAITING).group_by(*columns)
    return [(row[0], row[1], row[2], int(row[3])) for row in connection.execute(query)]


def quarantined_bytes(connection: Connection) -> dict[str, int]:
    """Return how many bytes lie in quarantine, by source."""
    query = select(files.c.source, func.sum(files.c.size_bytes)).where(_WAITING)
    return {str(source): int(size) for source, size in connection.execute(query.group_by(files.c.source))}


def get_files(connection: Connection, file_ids: Sequence[int]) -> dict[int, LedgerEntry]:
    """Return those rows that there are, by number."""
    found: dict[int, LedgerEntry] = {}
    for start in range(0, len(file_ids), _AT_ONCE):
        query = select(files).where(files.c.file_id.in_(file_ids[start : start + _AT_ONCE]))
        found |= {row.file_id: _entry(row) for row in connection.execute(query)}
    return found


def get_file(connection: Connection, file_id: int) -> LedgerEntry:
    """Return one row. Raise NotFound if there is none."""
    row = connection.execute(select(files).where(files.c.file_id == file_id)).first()
    if row is None:
        raise NotFound(f"There is no file number {file_id}.", remedy="`clinic-ai file list` shows the files there are.")
    return _entry(row)


def list_files(
    connection: Connection,
    *,
    fates: Iterable[Fate] | None = None,
    study_id: str | None = None,
    source: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[LedgerEntry]:
    """Return rows, newest first; ``before`` is the number of the last one already shown."""
    query = select(files).order_by(files.c.file_id.desc()).limit(limit)
    if fates is not None:
        query = query.where(files.c.fate.in_([fate.value for fate in fates]))
    if study_id is not None:
        query = query.where(files.c.study_id == study_id)
    if source is not None:
        query = query.where(files.c.source == source)
    if before is not None:
        query = query.where(files.c.file_id < before)
    return [_entry(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[Fate, int]:
    """Return how many files have each fate; fates without a file are 0."""
    found = {str(row.fate): int(row.number) for row in connection.execute(select(file_counts))}
    return {fate: found.get(fate.value, 0) for fate in Fate}


def _entry(row: Row[tuple[object, ...]]) -> LedgerEntry:
    return LedgerEntry.model_validate(dict(row._mapping))
