"""The audit: rows chained by SHA-256, written in the same transaction as what they record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, literal_column, select, text
from sqlalchemy.exc import DatabaseError

from clinic_ai.store.raw import raw, values
from clinic_ai.store.tables import audit

GENESIS = "0" * 64
KEY = "document_sha256"
"""The detail of a row that names the hash of the document it is about, where that stands in another table."""


def record(
    connection: Connection, *, actor: str, action: str, subject: str, details: Mapping[str, object] | None = None
) -> None:
    """Append one row inside the caller's write transaction. ``details`` must not hold personal data."""
    last = connection.execute(raw(audit, "hash").order_by(audit.c.seq.desc()).limit(1)).first()
    # Also upon a damaged hash: work goes on, and an examination names the damaged row.
    previous = GENESIS if last is None else values(last)[0].shown()
    at = time.time()
    words = json.dumps(details or {}, sort_keys=True, ensure_ascii=False)
    connection.execute(
        insert(audit).values(
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            details=words,
            previous_hash=previous,
            hash=_digest(previous, at, actor, action, subject, words),
        )
    )


@dataclass(frozen=True)
class Entry:
    """One row of the log. ``at`` is UTC seconds, ``details`` JSON text. What is damaged is shown as well as may be."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    details: str
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class Break:
    """The first row that does not fit its chain, and what is wrong with it, in words."""

    seq: int
    sentence: str


def rows(connection: Connection, *, after: int, limit: int) -> list[Entry]:
    """Return the rows after number ``after``, oldest first, at most ``limit``."""
    query = raw(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    return [_entry(row)[0] for row in connection.execute(query)]


def newest(connection: Connection) -> Entry | None:
    """Return the newest row, None of an empty log."""
    row = connection.execute(raw(audit).order_by(audit.c.seq.desc()).limit(1)).first()
    return None if row is None else _entry(row)[0]


def oldest(connection: Connection) -> Entry | None:
    """Return the oldest row, None of an empty log."""
    row = connection.execute(raw(audit).order_by(audit.c.seq).limit(1)).first()
    return None if row is None else _entry(row)[0]


def highest(connection: Connection) -> int:
    """Return the highest number that a row ever had, by what SQLite keeps beside the table; 0 if there is none."""
    kept = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'sqlite_sequence'")
    if connection.execute(kept).first() is None:
        return 0  # made by an earlier version, and no daemon has started since
    query = text("SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = 'audit'")
    return int(connection.execute(query).scalar() or 0)


def hash_at(connection: Connection, seq: int) -> str | None:
    """Return the hash of a row that is as it was written, that of nothing for 0; None if there is no such row."""
    if seq == 0:
        return GENESIS
    row = connection.execute(raw(audit).where(audit.c.seq == seq)).first()
    if row is None:
        return None
    entry, whole = _entry(row)
    return entry.hash if whole and entry.hash == digest_of(entry) else None


def digest_of(entry: Entry) -> str:
    """Return the hash that a row should have, by what stands in it."""
    return _digest(entry.previous_hash, entry.at, entry.actor, entry.action, entry.subject, entry.details)


def whole_rows(connection: Connection, *actions: str) -> Iterator[Entry]:
    """Yield the rows whose action is like one of these (SQL), oldest first, without the damaged ones."""
    wanted = literal_column("0") == 1
    for action in actions:
        wanted = wanted | audit.c.action.like(action)
    for row in connection.execute(_streamed(raw(audit).where(wanted))):
        entry, whole = _entry(row)
        if whole:
            yield entry


def chain_break(connection: Connection, *, after: int = 0, previous: str = GENESIS) -> Break | None:
    """Return where the log does not fit its chain, None if the whole of it holds. Reads every row after ``after``.

    ``previous`` is the hash of the row ``after``.
    """
    expected = after + 1
    try:
        for row in connection.execute(_streamed(raw(audit).where(audit.c.seq > after))):
            entry, whole = _entry(row)
            if entry.seq != expected:
                return Break(expected, f"Row {expected} of the audit is missing; the next one there is {entry.seq}.")
            if not whole or entry.hash != digest_of(entry):
                return Break(entry.seq, f"Row {entry.seq} of the audit is not what was written.")
            if entry.previous_hash != previous:
                return Break(entry.seq, f"Row {entry.seq} of the audit does not follow from row {entry.seq - 1}.")
            previous, expected = entry.hash, expected + 1
    except DatabaseError:  # the file is damaged where the row lies
        return Break(expected, f"Row {expected} of the audit cannot be read, or one after it.")
    there = highest(connection)
    if there >= expected:
        return Break(expected, f"The audit ends with row {expected - 1}, and there was a row {there}: it was cut off.")
    return None


def _streamed(query: Select[Any]) -> Select[Any]:
    return query.order_by(audit.c.seq).execution_options(yield_per=1000)


def _entry(row: Row[Any]) -> tuple[Entry, bool]:
    """Return a row, and whether each of its columns holds what an audit writes there."""
    found = dict(zip(audit.c.keys(), values(row), strict=True))
    seq, at = found.pop("seq"), found.pop("at").content
    entry = Entry(
        seq=int(seq.content or 0),
        at=at if isinstance(at, float) else 0.0,
        **{name: value.shown() for name, value in found.items()},
    )
    return entry, isinstance(at, float) and all(value.text() is not None for value in found.values())


def first_break(connection: Connection) -> int | None:
    """Return the ``seq`` of the first row that does not fit its chain, or None if the whole log holds."""
    found = chain_break(connection)
    if found is None:
        return None
    # A missing row is named by the one that stands in its place.
    following = connection.execute(select(func.min(audit.c.seq)).where(audit.c.seq >= found.seq)).scalar()
    return found.seq if following is None else int(following)


def document_digest(text: str) -> str:
    """Return what the log says of a document that stands in another table: its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(previous: str, at: float, actor: str, action: str, subject: str, details: str) -> str:
    parts = [previous, repr(at), actor, action, subject, details]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
