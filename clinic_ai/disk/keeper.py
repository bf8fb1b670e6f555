"""The keeper of the disk: looks after reserve, quotas, retention and garbage, a little at each step of its lane."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import structlog

from clinic_ai.disk import usage, words
from clinic_ai.disk.garbage import GRACE_S, StoreCount, sweep_job_directories
from clinic_ai.disk.retention import PER_STEP, UNSETTLED_S, Removal, Retention
from clinic_ai.disk.room import MIB, Room, Shortage, with_slack
from clinic_ai.disk.usage import Class, Counting, Tally
from clinic_ai.disk.verify import Fault, Verified, Verifier
from clinic_ai.disk.words import Said
from clinic_ai.home import Home
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, ledger, originals
from clinic_ai.store.database import Database
from clinic_ai.store.objects import SLICES, ObjectStore

log = structlog.get_logger()

STEP_S = 2.0
VERIFY_S = 5.0
"""How long one request for verifying is worked at."""
COUNT_BUDGET_S = 0.02
"""Processor time in seconds that one step may spend on counting: about a percent of a core."""
COUNT_PAUSE_S = 600.0
RETENTION_PAUSE_S = 60.0
"""Time between two plans of retention. Some file systems say only later what an unlink freed."""
WARN_AT = 2
"""People are told when free space falls below this multiple of the reserve, before anything has to wait."""
CODES = frozenset({"disk_reserve", "disk_low", "quota"})
"""Codes of the alerts that come and go here."""
CULPRIT = 10
"""A source whose files are this share of a quarantine beyond its quota, in percent, has to wait."""


@dataclass(frozen=True)
class FileSystem:
    """A file system that something of the appliance lies on. ``names`` are what lies there."""

    names: tuple[str, ...]
    path: str
    free_bytes: int
    total_bytes: int
    short: bool


@dataclass(frozen=True)
class ClassUse:
    """What one class takes; ``quota_bytes`` is 0 without a quota."""

    name: str
    files: int
    size_bytes: int
    oldest_at: float | None
    quota_bytes: int


@dataclass(frozen=True)
class DiskState:
    """How the disk stands. ``counted_at`` is None until everything was counted once (UTC seconds)."""

    reserve_bytes: int
    waiting: str
    file_systems: tuple[FileSystem, ...]
    classes: tuple[ClassUse, ...]
    counted_at: float | None
    studies_without_originals: int
    removed_studies: int
    removed_bytes: int
    garbage_objects: int
    garbage_bytes: int


class Keeper:
    """Keeps the disk of one home. ``step`` is for one lane, the rest for any thread."""

    def __init__(
        self,
        *,
        home: Home,
        settings: Callable[[], Settings],
        database: Database,
        objects: ObjectStore,
        room: Room,
        on_room: Callable[[], None],
        grace_s: float = GRACE_S,
        unsettled_s: float = UNSETTLED_S,
        step_s: float = STEP_S,
    ) -> None:
        self._home = home
        self._settings = settings
        self._database = database
        self._objects = objects
        self._room = room
        self._on_room = on_room
        self._step_s = step_s
        self._store = StoreCount(database, objects, grace_s=grace_s)
        self._retention = Retention(database, objects, settings, self._store.originals_bytes, unsettled_s=unsettled_s)
        self._verifier = Verifier(database, objects)
        self._tallies: dict[Class, Tally] = {}
        self._counting = Counting(self._count)
        self._counted_at: float | None = None
        self._step_after = self._count_after = self._plan_after = 0.0  # monotonic seconds
        self._pending: list[Removal] = []
        self._nothing_may_go = False
        self._said: set[tuple[str, str]] | None = None
        """Code and subject of the alerts that are raised; None until those of an earlier start were looked up."""
        self._waited = False
        self._reading: Iterator[tuple[int, Fault | None]] = iter(())
        self._slice = time.time_ns() % len(SLICES)
        self._read_ahead = 0.0
        self._read_at = time.monotonic()

    def step(self) -> bool:
        """Do a little of everything, if it is time; return whether there is more to remove at once."""
        if not self._pending and time.monotonic() < self._step_after:
            return False  # somebody woke all lanes
        self._step_after = time.monotonic() + self._step_s
        self._watch()
        if time.monotonic() >= self._count_after and self._counting.advance(COUNT_BUDGET_S):
            self._counted_at = time.time()
            self._count_after = time.monotonic() + COUNT_PAUSE_S
            self._verifier.withdraw_repaired()
            sweep_job_directories(self._database, self._home.jobs)
        self._retain()
        self._verify_some()
        return bool(self._pending)

    # ------------------------------------------------------------ what people ask

    def state(self) -> DiskState:
        """Return how the disk stands."""
        quotas = self._quotas()
        short = self._room.shortage()
        with self._database.read() as connection:
            without = originals.removed_count(connection)
        return DiskState(
            reserve_bytes=self._reserve(),
            waiting=short.sentence if short else "",
            file_systems=tuple(self._file_systems()),
            classes=tuple(
                ClassUse(kind.value, tally.files, tally.size_bytes, tally.oldest_at, quotas[kind])
                for kind, tally in self._use().items()
            ),
            counted_at=self._counted_at,
            studies_without_originals=without,
            removed_studies=self._retention.removed_studies,
            removed_bytes=self._retention.removed_bytes,
            garbage_objects=self._store.collected_objects,
            garbage_bytes=self._store.collected_bytes,
        )

    def waiting(self, source: str) -> Shortage | None:
        """Return why what comes from a source waits for room, None if it does not."""
        return self._room.shortage(source=source)

    def plan(self) -> list[Removal]:
        """Return what retention would remove now."""
        return self._retention.plan()

    def verify(self, prefixes: Sequence[str]) -> Verified:
        """Compare with their hashes the objects of slices, for some seconds; see ``store.objects.SLICES``."""
        return self._verifier.verify(prefixes, for_s=VERIFY_S)

    # ------------------------------------------------------------ room

    def _reserve(self) -> int:
        return self._settings().disk.reserve_mb * MIB

    def _outbox(self) -> Path:
        return self._home.path / self._settings().results.outbox

    def _file_systems(self) -> Iterator[FileSystem]:
        """Yield the file systems of the home, each once; a place that is not there is not listed."""
        places = {"home": self._home.state, "quarantine": self._home.quarantine, "outbox": self._outbox()}
        places |= {"datasets": self._home.datasets, "runs": self._home.runs, "backups": self._home.backups}
        by_device: dict[int, list[str]] = {}
        for name, place in places.items():
            try:
                by_device.setdefault(place.stat().st_dev, []).append(name)
            except OSError:
                continue
        for names in by_device.values():
            place = places[names[0]]
            status = os.statvfs(place)
            free = status.f_bavail * status.f_frsize
            total = status.f_blocks * status.f_frsize
            yield FileSystem(tuple(names), str(place), free, total, free < self._reserve())

    def _watch(self) -> None:
        """Say which disks are short, which quotas are used up, and what has to wait for that."""
        if self._said is None:
            with self._database.read() as connection:
                self._said = {(a.code, a.subject) for a in alerts.open_alerts(connection) if a.code in CODES}
        said = dict(self._judge_disks(self._said))
        everything, sources = self._judge_quotas(said)
        if (own_disk := ("disk_reserve", "quarantine")) in said:
            sources = self._let_culprits_wait(*said[own_disk]) | sources
        self._room.shut(everything, sources)
        self._say(self._said, said)
        waits = self._room.shortage() is not None or bool(sources)
        if self._waited and not waits:
            log.info("disk.room_again")
            self._on_room()
        self._waited = waits

    def _judge_disks(self, raised: Set[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Said]]:
        """Yield what is to be said of each disk; what was ``raised`` stays until there is clearly more room."""
        reserve = self._reserve()
        for system in self._file_systems():
            short, low = ("disk_reserve", system.names[0]), ("disk_low", system.names[0])
            if system.free_bytes < (with_slack(reserve) if short in raised else reserve):
                yield short, words.below_reserve(system.names, system.path, system.free_bytes, reserve)
            elif system.free_bytes < WARN_AT * (with_slack(reserve) if {short, low} & raised else reserve):
                yield low, words.getting_low(system.names, system.path, system.free_bytes, reserve)

    def _judge_quotas(self, said: dict[tuple[str, str], Said]) -> tuple[Shortage | None, dict[str, Shortage]]:
        """Add to ``said`` what is to be said of each quota; return what has to wait for one."""
        quotas, use = self._quotas(), self._use()
        everything: Shortage | None = None
        sources: dict[str, Shortage] = {}
        for kind, tally in use.items():
            size = self._store.originals_bytes() or 0 if kind is Class.ORIGINALS else tally.size_bytes
            if not quotas[kind] or size <= quotas[kind]:
                continue
            sentence, remedy = words.beyond_quota(kind, size, quotas[kind])
            if kind is Class.ORIGINALS:
                if not self._nothing_may_go:
                    continue  # retention is about to make room
                everything = Shortage(f"{sentence} No original may be removed, so new files wait.", remedy)
                sentence = everything.sentence
            elif kind is Class.QUARANTINE:
                sources = self._let_culprits_wait(sentence, remedy)
                sentence = next((waiting.sentence for waiting in sources.values()), sentence)
            said["quota", kind.value] = sentence, remedy
        return everything, sources

    def _let_culprits_wait(self, sentence: str, remedy: str) -> dict[str, Shortage]:
        """Return the sources whose files fill the quarantine, and why they wait; the others need not."""
        with self._database.read() as connection:
            by_source = ledger.quarantined_bytes(connection)
        limit = sum(by_source.values()) * CULPRIT / 100
        culprits = sorted(source for source, size in by_source.items() if size >= limit)
        waiting = Shortage(f"{sentence} What comes from {', '.join(culprits)} waits.", remedy)
        return dict.fromkeys(culprits, waiting)

    def _say(self, raised: Set[tuple[str, str]], said: Mapping[tuple[str, str], Said]) -> None:
        """Raise the alerts that are new, withdraw those whose cause is gone."""
        if said.keys() == raised:
            return
        with self._database.write() as connection:
            for code, subject in raised - said.keys():
                alerts.withdraw(connection, code, subject)
            for code, subject in said.keys() - raised:
                sentence, remedy = said[code, subject]
                alerts.raise_alert(connection, code, subject, sentence, remedy)
                log.warning("alert", code=code, subject=subject, sentence=sentence, remedy=remedy)
        self._said = set(said)

    # ------------------------------------------------------------ counting and removing

    def _count(self) -> Iterator[None]:
        """Count everything; a pause is possible at each ``yield``."""
        for kind, folder in usage.folders_of(self._home, self._outbox()).items():
            tally = Tally()
            for tally in usage.walk(folder):  # noqa: B007 - the last one counts
                yield
            self._tallies[kind] = tally
        state = self._home.database
        wal, shared = state.with_name(state.name + "-wal"), state.with_name(state.name + "-shm")
        self._tallies[Class.DATABASE] = usage.tally_of(state, wal, shared)
        yield from self._store.work()

    def _use(self) -> dict[Class, Tally]:
        found = {kind: self._tallies.get(kind, Tally()) for kind in Class}
        return found | {kind: self._store.tally(kind) for kind in (Class.ORIGINALS, Class.RESULTS)}

    def _quotas(self) -> dict[Class, int]:
        quota = self._settings().quota
        return {kind: getattr(quota, f"{kind.value}_mb") * MIB for kind in Class}

    def _retain(self) -> None:
        if not self._pending and time.monotonic() >= self._plan_after:
            self._plan_after = time.monotonic() + RETENTION_PAUSE_S
            self._pending = self._retention.plan()
            self._nothing_may_go = not self._pending and bool(self._retention.needs())
        now, self._pending = self._pending[:PER_STEP], self._pending[PER_STEP:]
        if now and self._retention.remove(now):
            self._count_after = 0.0

    def _verify_some(self) -> None:
        """Read on, as far as ``disk.verify_mb_per_hour`` permits by now."""
        per_second = self._settings().disk.verify_mb_per_hour * MIB / 3600
        now = time.monotonic()
        self._read_ahead = max(0.0, self._read_ahead - per_second * (now - self._read_at))
        self._read_at = now
        if not per_second or self._read_ahead:
            return
        for size, _ in self._reading:
            self._read_ahead += size
            if self._read_ahead:
                return
        self._slice = (self._slice + 1) % len(SLICES)
        self._reading = self._verifier.one_by_one(SLICES[self._slice])
