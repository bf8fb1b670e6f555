"""The audit: rows chained by SHA-256, written in the same transaction as what they record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from clinic_ai.store.tables import audit

GENESIS = "0" * 64
KEY = "document_sha256"
"""The detail of a row that names the hash of the document it is about, where that stands in another table."""


def record(
    connection: Connection, *, actor: str, action: str, subject: str, details: Mapping[str, object] | None = None
) -> None:
    """Append one row inside the caller's write transaction. ``details`` must not hold personal data."""
    previous = connection.execute(select(audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).scalar() or GENESIS
    at = time.time()
    text = json.dumps(details or {}, sort_keys=True, ensure_ascii=False)
    connection.execute(
        insert(audit).values(
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            details=text,
            previous_hash=previous,
            hash=_digest(previous, at, actor, action, subject, text),
        )
    )


@dataclass(frozen=True)
class Entry:
    """One row of the log. ``at`` is UTC seconds, ``details`` JSON text."""

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
    query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    return [Entry(**row._mapping) for row in connection.execute(query)]


def newest(connection: Connection) -> Entry | None:
    """Return the newest row, None of an empty log."""
    row = connection.execute(select(audit).order_by(audit.c.seq.desc()).limit(1)).first()
    return None if row is None else Entry(**row._mapping)


def hash_at(connection: Connection, seq: int) -> str | None:
    """Return the hash of a row, None if there is no such row."""
    return connection.execute(select(audit.c.hash).where(audit.c.seq == seq)).scalar()


def digest_of(entry: Entry) -> str:
    """Return the hash that a row should have, by what stands in it."""
    return _digest(entry.previous_hash, entry.at, entry.actor, entry.action, entry.subject, entry.details)


def chain_break(connection: Connection) -> Break | None:
    """Return where the log does not fit its chain, None if the whole of it holds. Reads every row."""
    previous, expected = GENESIS, 1
    query = select(audit).order_by(audit.c.seq).execution_options(yield_per=1000)
    for row in connection.execute(query):
        entry = Entry(**row._mapping)
        if entry.seq != expected:
            return Break(expected, f"Row {expected} of the audit is missing; the next one there is {entry.seq}.")
        if entry.previous_hash != previous:
            return Break(entry.seq, f"Row {entry.seq} of the audit does not follow from row {entry.seq - 1}.")
        if entry.hash != digest_of(entry):
            return Break(entry.seq, f"Row {entry.seq} of the audit is not what was written.")
        previous, expected = entry.hash, expected + 1
    return None


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
