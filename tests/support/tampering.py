"""What somebody does to an audit who may write the home: rows changed, cut off, and the chain made anew over it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable

from clinic_ai.heads.verifying import examine
from clinic_ai.home import Home
from clinic_ai.store.database import Database

FORGET = (
    "DELETE FROM sqlite_sequence WHERE name = 'audit'",
    "DELETE FROM meta WHERE key = 'audit_head'",
)
"""What the database itself keeps about the log."""


def by_hand(home: Home, *statements: str) -> None:
    """Change the database as somebody would who may write the file, without triggers and foreign keys."""
    connection = sqlite3.connect(home.database)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def chain_anew(home: Home) -> None:
    """Make the chain hold again over whatever the rows say now."""
    connection = sqlite3.connect(home.database)
    rows = connection.execute("SELECT seq, at, actor, action, subject, details FROM audit ORDER BY seq").fetchall()
    previous = "0" * 64
    for seq, at, *rest in rows:
        parts = json.dumps([previous, repr(at), *rest], ensure_ascii=False)
        digest = hashlib.sha256(parts.encode()).hexdigest()
        connection.execute("UPDATE audit SET previous_hash = ?, hash = ? WHERE seq = ?", (previous, digest, seq))
        previous = digest
    connection.commit()
    connection.close()


def sentences(home: Home, database: Database, *, now: float | None = None) -> list[str]:
    """Return what an examination finds; ``now`` is UTC seconds, None: those of the clock."""
    return [finding.sentence for finding in examine(home, database, now=now).findings]


def said(found: Iterable[str], words: str) -> bool:
    """Return whether one of these sentences has these words."""
    return any(words in sentence for sentence in found)
