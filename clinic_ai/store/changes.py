"""What changed, in order, for people who watch: the audit without its details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from clinic_ai.store.tables import audit


@dataclass(frozen=True)
class Change:
    """One row of the audit. ``at`` is UTC seconds, ``subject`` the id of what moved."""

    seq: int
    at: float
    action: str
    subject: str


@dataclass(frozen=True)
class Deed:
    """One row of the audit with who did it."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str


def last_seq(connection: Connection) -> int:
    """Return the number of the newest change, 0 if nothing ever happened."""
    return int(connection.execute(select(func.max(audit.c.seq))).scalar() or 0)


def after(connection: Connection, seq: int, *, limit: int) -> list[Change]:
    """Return the changes after number ``seq``, oldest first."""
    query = (
        select(audit.c.seq, audit.c.at, audit.c.action, audit.c.subject)
        .where(audit.c.seq > seq)
        .order_by(audit.c.seq)
        .limit(limit)
    )
    return [Change(row.seq, row.at, row.action, row.subject) for row in connection.execute(query)]


def about(connection: Connection, subjects: Sequence[str], *, since: float, limit: int) -> list[Deed]:
    """Return the rows about these subjects from ``since`` (UTC seconds) on, newest first, at most ``limit``."""
    query = (
        select(audit.c.seq, audit.c.at, audit.c.actor, audit.c.action, audit.c.subject)
        .where(audit.c.seq >= _first_since(connection, since), audit.c.subject.in_(subjects))
        .order_by(audit.c.seq.desc())
        .limit(limit)
    )
    return [Deed(row.seq, row.at, row.actor, row.action, row.subject) for row in connection.execute(query)]


def _first_since(connection: Connection, at: float) -> int:
    """Return the number from which rows are as young as that, by halving: the audit has no index of its times."""
    low, high = 0, last_seq(connection) + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(select(audit.c.at).where(audit.c.seq >= middle).order_by(audit.c.seq).limit(1)).first()
        if row is None or row.at >= at:
            high = middle
        else:
            low = middle + 1
    return low
