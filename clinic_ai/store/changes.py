"""What changed, in order, for people who watch: the audit without its details."""

from __future__ import annotations

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
