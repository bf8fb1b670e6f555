"""Objects that nobody needs: found slice by slice while the store is counted, and removed once they are old.

Whoever stores an object adopts it first and commits afterwards. An object without a reference may therefore be one
whose transaction is still to come; only one that was last adopted ``GRACE_S`` ago is garbage. See ``store.objects``
for why nothing slips in between.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import structlog

from clinic_ai.disk.usage import Class, Tally
from clinic_ai.store import audit, jobs, references
from clinic_ai.store.database import Database
from clinic_ai.store.objects import SLICES, ObjectStore, StoredObject
from clinic_ai.store.references import Kind

log = structlog.get_logger()

GRACE_S = 86400.0
"""So long, too, that a study whose originals were removed can be sent again in parts."""
_CLASS = {Kind.ORIGINAL: Class.ORIGINALS, Kind.COPY: Class.ORIGINALS, Kind.RESULT: Class.RESULTS}


def sweep_job_directories(database: Database, folder: Path, *, grace_s: float = GRACE_S) -> int:
    """Remove what attempts left behind that could not remove it themselves; return how many directories."""
    with database.read() as connection:
        at_work = jobs.leased(connection)
    before, swept = time.time() - grace_s, 0
    for place in folder.iterdir():
        try:
            young = place.lstat().st_mtime >= before
        except FileNotFoundError:
            continue  # an attempt that has just ended removed its own
        if place.name not in at_work and not young:
            shutil.rmtree(place, ignore_errors=True)  # the next round tries again
            swept += 1
    return swept


@dataclass
class _Slice:
    tallies: dict[Class, Tally] = field(default_factory=dict)
    collected: int = 0
    freed: int = 0

    def add(self, kind: Class, found: StoredObject) -> None:
        self.tallies[kind] = self.tallies.get(kind, Tally()).plus(found.size_bytes, found.adopted_at)


class StoreCount:
    """Counts the object store by class, and collects its garbage on the way."""

    def __init__(self, database: Database, objects: ObjectStore, *, grace_s: float = GRACE_S) -> None:
        self._database = database
        self._objects = objects
        self._grace_s = grace_s
        self._slices: dict[str, dict[Class, Tally]] = {}
        self.collected_objects = self.collected_bytes = 0
        """What was garbage since the daemon started."""

    @property
    def complete(self) -> bool:
        """Whether every slice was counted once."""
        return len(self._slices) == len(SLICES)

    def tally(self, kind: Class) -> Tally:
        """Return what was counted of originals or results."""
        return sum((tallies.get(kind, Tally()) for tallies in list(self._slices.values())), Tally())

    def originals_bytes(self) -> int | None:
        """Return what originals take by now, None before all was counted; what came since counts as originals."""
        return self.tally(Class.ORIGINALS).size_bytes + self._objects.growth() if self.complete else None

    def work(self) -> Iterator[None]:
        """Count every slice; a pause is possible at each ``yield``."""
        for prefix in SLICES:
            slice_ = _Slice()
            self._objects.take_growth(prefix)
            objects = self._objects.in_slice(prefix)
            while some := list(islice(objects, references.MANY)):
                self._look_at(some, slice_)
                yield
            self._slices[prefix] = slice_.tallies
            self._note(slice_)
            yield

    def _look_at(self, some: list[StoredObject], slice_: _Slice) -> None:
        before = time.time() - self._grace_s  # asked before the store is: what is adopted meanwhile is younger
        with self._database.read() as connection:
            kinds = references.needed(connection, [found.sha256 for found in some])
            arriving = references.on_their_way(connection) if len(kinds) < len(some) else set()
        for found in some:
            kind = kinds.get(found.sha256)
            if kind is None and found.sha256 not in arriving and found.adopted_at < before:
                freed = self._objects.discard(found.sha256, adopted_before=before)
                slice_.collected += freed > 0
                slice_.freed += freed
            else:
                slice_.add(Class.ORIGINALS if kind is None else _CLASS[kind], found)

    def _note(self, slice_: _Slice) -> None:
        if not slice_.collected:
            return
        self.collected_objects += slice_.collected
        self.collected_bytes += slice_.freed
        details = {"objects": slice_.collected, "bytes": slice_.freed}
        with self._database.write() as connection:
            audit.record(connection, actor="clinic-ai", action="objects.collected", subject="objects", details=details)
        log.info("objects.collected", **details)
