"""How the studies of each source arrived: one document a source, which ``ingest.pace`` makes and reads.

Functions take the connection of the caller's transaction.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from clinic_ai.store.tables import source_pace


def load_paces(connection: Connection) -> dict[str, str]:
    """Return the documents by source."""
    rows = connection.execute(select(source_pace.c.source, source_pace.c.document))
    return {row.source: row.document for row in rows}


def save_pace(connection: Connection, source: str, document: str) -> None:
    """Keep the document of a source instead of the one before."""
    values = {"document": document, "updated_at": time.time()}
    connection.execute(
        insert(source_pace)
        .values(source=source, **values)
        .on_conflict_do_update(index_elements=["source"], set_=values)
    )
