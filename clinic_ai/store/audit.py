"""The audit: rows chained by SHA-256, written in the same transaction as what they record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from clinic_ai.store.tables import audit

GENESIS = "0" * 64


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


def first_break(connection: Connection) -> int | None:
    """Return the ``seq`` of the first row that does not fit its chain, or None if the whole log holds."""
    previous, expected = GENESIS, 1
    for row in connection.execute(select(audit).order_by(audit.c.seq)):
        digest = _digest(previous, row.at, row.actor, row.action, row.subject, row.details)
        if row.seq != expected or row.previous_hash != previous or row.hash != digest:
            return int(row.seq)
        previous, expected = row.hash, expected + 1
    return None


def _digest(previous: str, at: float, actor: str, action: str, subject: str, details: str) -> str:
    parts = [previous, repr(at), actor, action, subject, details]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
