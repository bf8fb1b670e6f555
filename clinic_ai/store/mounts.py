"""The file system each inbox was on when it was last seen.

Functions take the connection of the caller's transaction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from clinic_ai.store.tables import files, inbox_mounts


@dataclass(frozen=True)
class Remembered:
    """Where an inbox was: the folder that clinic.toml named, and what ingest wrote of its file system (JSON)."""

    path: str
    file_system: str
    seen_at: float


def remembered(connection: Connection, source: str) -> Remembered | None:
    """Return where an inbox was when it was last seen, None if it never was."""
    row = connection.execute(select(inbox_mounts).where(inbox_mounts.c.source == source)).first()
    return None if row is None else Remembered(row.path, row.file_system, row.seen_at)


def remember(connection: Connection, source: str, *, path: str, device: str, file_system: str) -> None:
    """Note where an inbox is now."""
    values = {"path": path, "device": device, "file_system": file_system, "seen_at": time.time()}
    statement = insert(inbox_mounts).values(source=source, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[inbox_mounts.c.source], set_=values))


def ever_delivered(connection: Connection, source: str) -> bool:
    """Return whether the ledger has any file of an inbox."""
    return connection.execute(select(files.c.file_id).where(files.c.source == source).limit(1)).first() is not None
