"""De-identified copies: which original, under which profile, gave which object, and what was flagged in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from clinic_ai.store.tables import deidentified
from clinic_ai.tasks import DeidentifiedFile

_AT_ONCE = 500


def copies_of(connection: Connection, profile: str, originals: Collection[str]) -> dict[str, DeidentifiedFile]:
    """Return the copies that were made of these originals under ``profile``, by the SHA-256 of the original."""
    found = {}
    for some in _batches(originals):
        query = select(deidentified).where(deidentified.c.profile == profile, deidentified.c.original_sha256.in_(some))
        for row in connection.execute(query):
            found[row.original_sha256] = DeidentifiedFile.model_validate_json(row.document)
    return found


def add_copies(connection: Connection, profile: str, copies: Iterable[DeidentifiedFile]) -> None:
    """Remember copies that lie in the object store; one that is made anew takes the place of the old."""
    rows = [
        {
            "original_sha256": copy.original_sha256,
            "profile": profile,
            "sha256": copy.sha256,
            "document": copy.model_dump_json(),
            "created_at": time.time(),
        }
        for copy in copies
    ]
    if rows:
        statement = insert(deidentified)
        fresh = {name: statement.excluded[name] for name in ("sha256", "document", "created_at")}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["original_sha256", "profile"], set_=fresh), rows
        )


def _batches(originals: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(originals)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
