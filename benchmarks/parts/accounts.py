"""Whether everything that was sent is there at the end: the sender's notes against ledger, studies and outbox."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from clinic_ai.home import Home
from parts.traffic import PEER, Sent

_LIVING = "('RECEIVING', 'CLOSED', 'ROUTED')"
_PENDING = "('CLAIMING', 'CLAIMED')"


class Books:
    """The database of a home, read from outside without disturbing the daemon."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def rows(self, query: str) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(f"file:{self._home.database}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query).fetchall()

    def number(self, query: str) -> int:
        """Return the one number of a query."""
        return int(self.rows(query)[0][0])

    def unfinished(self) -> str:
        """Return in words what is still on its way; nothing if all came to rest."""
        waiting = {
            "files in the inbox": len(_files(self._home, "inbox")),
            "files of the receiver": len([p for p in self._home.incoming.rglob("*") if p.is_file()]),
            "files without a fate": self.number(f"SELECT count(*) FROM files WHERE fate IN {_PENDING}"),
            "studies without an end": self.number(f"SELECT count(*) FROM studies WHERE state IN {_LIVING}"),
            "deliveries": self.number("SELECT count(*) FROM deliveries WHERE state = 'PENDING'"),
        }
        return ", ".join(f"{number} {what}" for what, number in waiting.items() if number)

    def problems(self, sent: Sent) -> Iterator[str]:
        """Yield in one sentence each thing that was lost, came twice or has no fate; nothing if all is well."""
        if left := self.unfinished():
            yield f"Not everything came to its end: {left}."
        yield from self._files(sent)
        yield from self._objects(sent)
        yield from self._results(sent)
        for name in ("spool", "jobs"):
            place = getattr(self._home, name)
            if left_over := [p for p in place.rglob("*") if p.is_file()]:
                yield f"{len(left_over)} files are left over in {name}."

    def _files(self, sent: Sent) -> Iterator[str]:
        fates: dict[str, list[str]] = {}
        for row in self.rows(f"SELECT name, fate FROM files WHERE source != '{PEER}'"):
            fates.setdefault(row["name"], []).append(row["fate"])
        for name, allowed in sent.files.items():
            found = fates.pop(name, [])
            if len(found) != 1 or found[0] not in allowed:
                yield f"{name} has the fates {found or 'none'} and should have {' or '.join(sorted(allowed))}."
        for name in fates:
            yield f"{name} is in the ledger, and nobody dropped it."
        received = self.number(
            f"SELECT count(*) FROM files WHERE source = '{PEER}' AND fate IN ('STORED', 'DUPLICATE')"
        )
        if received < sent.answered:
            yield f"{sent.answered} objects were answered with success, and {received} are stored or duplicates."

    def _objects(self, sent: Sent) -> Iterator[str]:
        stored: dict[str, list[str]] = {}
        query = (
            "SELECT DISTINCT studies.study_instance_uid AS study, instance_id, sop_instance_uid AS uid "
            "FROM instances JOIN studies USING (study_id)"
        )
        for row in self.rows(query):
            stored.setdefault(row["study"], []).append(row["uid"])
        for study, uids in sent.objects.items():
            found = Counter(stored.get(study, []))
            if missing := uids - set(found):
                yield f"{len(missing)} of {len(uids)} objects of study {study} are lost."
            if more := {uid for uid in found if uid not in uids or found[uid] > 1}:
                yield f"{len(more)} objects of study {study} are there twice or came from nowhere."

    def _results(self, sent: Sent) -> Iterator[str]:
        newest = self.rows(
            "SELECT study_id, study_instance_uid, max(version) AS version, state FROM studies GROUP BY 1"
        )
        lost = set(sent.objects) - {row["study_instance_uid"] for row in newest}
        if lost:
            yield f"{len(lost)} studies are lost."
        if len(newest) != len(sent.objects) + sent.pictures:
            yield f"{len(sent.objects)} scans and {sent.pictures} pictures went in; {len(newest)} studies are there."
        delivered = {
            (document["study"]["study_instance_uid"], document["study"]["version"])
            for place in self._home.outbox.glob("*/v*/result.json")
            if (document := json.loads(place.read_text()))
        }
        held = {
            (row["study_id"], row["version"])
            for row in self.rows("SELECT study_id, version FROM artefacts WHERE state = 'HELD'")
        }
        if len(held) > sent.kills["guard"]:
            yield f"{len(held)} results are held, and the guard was killed only {sent.kills['guard']} times."
        for row in newest:
            if row["state"] != "DONE":
                yield f"Study {row['study_id']} ended as {row['state']}."
            elif (row["study_instance_uid"], row["version"]) not in delivered and (
                row["study_id"],
                row["version"],
            ) not in held:
                yield f"Study {row['study_id']} version {row['version']} is done and was not delivered."


def _files(home: Home, name: str) -> list[str]:
    return [path.name for path in (home.path / name).rglob("*") if path.is_file() or path.is_symlink()]
