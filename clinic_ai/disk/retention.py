"""Which originals may go, and their removal: only of studies whose result is delivered, the oldest first.

A removal is one transaction, which says that the originals are gone, and then the unlinking. A crash in between leaves
objects that nobody needs, which the collection of garbage removes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from clinic_ai.disk.room import MIB, free_bytes
from clinic_ai.errors import Conflict
from clinic_ai.settings import Settings
from clinic_ai.store import datasets, originals
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.originals import Delivered

log = structlog.get_logger()

DAY_S = 86400.0
AIM = 10
"""Once it removes for want of room, it goes on until there is this much more than asked for, in percent."""
PER_STEP = 5
"""Studies that lose their originals in one step."""
PLANNED = 100
"""Studies in one plan at most; the next one goes on."""
UNSETTLED_S = 600.0
"""An object adopted within this time may be part of a transaction still to come; the collection of garbage gets it."""


@dataclass(frozen=True)
class Candidate:
    """A study that may lose its originals, and how many bytes that would free: what others need too does not count."""

    study: Delivered
    frees_bytes: int
    objects: int


@dataclass(frozen=True)
class Removal:
    """A study that is to lose its originals, and the rule that says so: ``age``, ``free_space`` or ``quota``."""

    candidate: Candidate
    why: str


@dataclass(frozen=True)
class Need:
    """How many bytes have to be freed, and by which rule."""

    why: str
    size_bytes: int


def choose(
    candidates: Iterable[Candidate], *, aged_before: float, needs: Sequence[Need], most: int = PLANNED
) -> list[Removal]:
    """Return what goes, of candidates given oldest first: all delivered before ``aged_before``, then what is needed.

    That is ``most`` of them at most. ``candidates`` is asked for no more than it takes.
    """
    chosen: list[Removal] = []
    freed = 0
    for candidate in candidates:
        pressing = next((need for need in needs if need.size_bytes > freed), None)
        if candidate.study.delivered_at < aged_before:
            chosen.append(Removal(candidate, "age"))
        elif pressing is not None:
            if not candidate.frees_bytes:
                continue  # its images are shared, and removing it would help nobody
            chosen.append(Removal(candidate, pressing.why))
        else:
            break
        freed += candidate.frees_bytes
        if len(chosen) == most:
            break
    return chosen


class Retention:
    """Plans and removes. ``originals_bytes`` says what originals take now, None while that is not known."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        settings: Callable[[], Settings],
        originals_bytes: Callable[[], int | None],
        *,
        unsettled_s: float = UNSETTLED_S,
    ) -> None:
        self._database = database
        self._objects = objects
        self._settings = settings
        self._originals_bytes = originals_bytes
        self._unsettled_s = unsettled_s
        self._in_datasets: tuple[object, frozenset[str]] = (None, frozenset())
        self.removed_studies = self.removed_bytes = 0
        """What it removed since the daemon started."""

    def needs(self) -> list[Need]:
        """Return what has to be freed for want of room."""
        settings = self._settings()
        needs = []
        wanted = settings.retention.when_free_below_mb * MIB
        if wanted and (free := free_bytes(self._objects.root)) < wanted:
            needs.append(Need("free_space", wanted + wanted * AIM // 100 - free))
        quota, taken = settings.quota.originals_mb * MIB, self._originals_bytes()
        if quota and taken is not None and taken > quota:
            needs.append(Need("quota", taken - quota + quota * AIM // 100))
        return needs

    def plan(self) -> list[Removal]:
        """Return what it would remove now, the oldest first; at most ``PLANNED`` studies."""
        days = self._settings().retention.originals_days
        aged_before = time.time() - days * DAY_S if days else 0.0
        needs = self.needs()
        if not days and not needs:
            return []
        return choose(
            self._candidates(time.time() if needs else aged_before), aged_before=aged_before, needs=needs, most=PLANNED
        )

    def remove(self, removals: Sequence[Removal]) -> int:
        """Remove the originals of these studies; return the bytes that freed. One that is needed again stays."""
        freed = 0
        for removal in removals:
            try:
                freed += self._remove(removal)
            except Conflict:
                continue  # something of it is in work again
        return freed

    # ------------------------------------------------------------

    def _candidates(self, before: float) -> Iterable[Candidate]:
        """Yield, oldest first, what may go; each is asked for in a transaction of its own, for there may be many."""
        last = (0.0, "")
        while True:
            with self._database.read() as connection:
                found = originals.delivered_studies(connection, before=before, limit=PLANNED, after=last)
            for study in found:
                with self._database.read() as connection:
                    if self._in_a_dataset(connection, study.study_id):
                        continue
                    own = originals.exclusive(connection, study.study_id)
                yield Candidate(study, sum(original.size_bytes for original in own), len(own))
            if len(found) < PLANNED:
                return
            last = (found[-1].delivered_at, found[-1].study_id)

    def _in_a_dataset(self, connection: Connection, study_id: str) -> bool:
        stamp = datasets.stamp(connection)
        if self._in_datasets[0] != stamp:
            self._in_datasets = stamp, datasets.all_images(connection)
        images = originals.hashes_of(connection, study_id) + originals.copies_of(connection, study_id)
        return not self._in_datasets[1].isdisjoint(images)

    def _remove(self, removal: Removal) -> int:
        study = removal.candidate.study
        with self._database.write() as connection:
            if self._in_a_dataset(connection, study.study_id):
                return 0
            own = originals.exclusive(connection, study.study_id)
            copies = originals.copies_of(connection, study.study_id, exclusively=True)
            originals.note_removed(connection, study, own, why=removal.why)
        before = time.time() - self._unsettled_s
        gone = [*(original.sha256 for original in own), *copies]
        freed = sum(self._objects.discard(sha256, adopted_before=before) for sha256 in gone)
        self.removed_studies += 1
        self.removed_bytes += freed
        log.info("retention.removed", study=study.study_id, objects=len(own), bytes=freed, why=removal.why)
        return freed
