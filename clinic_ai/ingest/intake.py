"""The way in: looks at the inboxes, takes what has come to rest, files it, and closes studies that are complete.

One pass is ``cycle``; ``run`` repeats it. What a crash interrupted, ``recover`` picks up from the ledger.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import structlog

from clinic_ai.disk.room import Room
from clinic_ai.domain import Fate, Study, StudyState
from clinic_ai.errors import ChildError, ClinicError, HomeError, NotFound
from clinic_ai.home import Home
from clinic_ai.ingest import assemble, watch
from clinic_ai.ingest.decisions import Decisions, bring_back
from clinic_ai.ingest.facts import facts_of
from clinic_ai.ingest.filing import ACTOR, Claim, Filing
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.ingest.receiving import received
from clinic_ai.ingest.recovery import claim_of, recover
from clinic_ai.ingest.spool import Spool, Taken, outcome_of
from clinic_ai.ingest.watch import Entry, Inbox
from clinic_ai.lanes import places
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Outcome, Sighting
from clinic_ai.store.objects import ObjectStore

log = structlog.get_logger()

MAX_BATCH = 200
"""Files taken at once whatever the settings say: each of their folders is held open meanwhile."""
_NAP_S = 0.5
_TRY_AGAIN_S = 60.0
"""Pause before a file that could not be taken is tried again: a share may answer again, a right may be granted."""

_NOTHING = watch.ignore_pattern(())

T = TypeVar("T")


class Intake:
    """Everything that comes in passes here. ``on_closed`` is called after studies were closed."""

    def __init__(
        self,
        *,
        home: Home,
        settings: Callable[[], Settings],
        database: Database,
        objects: ObjectStore,
        crew: Crew,
        on_closed: Callable[[], None],
        room: Room | None = None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._database = database
        self._on_closed = on_closed
        self._objects = objects
        self.room = room or Room(home.state, lambda: settings().disk.reserve_mb << 20)
        self._spool = Spool(home.spool, self.room)
        self._quarantine = Quarantine(home.quarantine)
        self._filing = Filing(
            spool=self._spool,
            quarantine=self._quarantine,
            database=database,
            objects=objects,
            reader=HeaderReader(crew),
            settings=lambda: settings().ingest,
        )
        self.decisions = Decisions(database=database, quarantine=self._quarantine, wake=self.wake)
        self._watch = watch.Watch()
        self._wake = threading.Event()
        self._hints = watch.Hints(self._wake)
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._backlog: list[Claim] = []
        self._left_alone: dict[tuple[str, bytes, int], float] = {}  # until when, in monotonic seconds
        self._offline: set[str] = set()
        self._arrived: dict[str, float] = {}  # study → monotonic time of its newest instance

    # ------------------------------------------------------------ what the daemon calls

    def recover(self) -> None:
        """Pick up what a crash interrupted. Call it before anything else."""
        with self._busy:
            self._backlog = recover(
                spool=self._spool,
                quarantine=self._quarantine,
                database=self._database,
                objects=self._objects,
                inboxes={inbox.source: inbox for inbox in self._inboxes()},
            )

    def cycle(self) -> bool:
        """Make one pass over all inboxes; return whether anything moved.

        Raise HomeError or OSError if the disk does not take it, and ChildError if no parser can be started;
        nothing is lost, and the next pass goes on where this one stopped.
        """
        with self._busy:
            looked_at = time.monotonic()
            self._take_accepted()
            moved = self._work_off()
            for batch in _batches(self._settled(), self._batch_size()):
                if self._stop.is_set():
                    return moved  # the rest lies well where it is
                if self.room.shortage() is not None:
                    break  # so it does until there is room
                moved = self._take_from_inbox(batch) or moved
            return self._close_due(looked_at) or moved

    def run(self, stop: threading.Event) -> None:
        """Repeat ``cycle`` until ``stop``: when the kernel hints at a new file, and every ``rescan_s`` anyway."""
        failures, watched = 0, None
        self._stop = stop
        while not stop.is_set():
            self._wake.clear()
            roots = [inbox.root for inbox in self._inboxes() if not inbox.whole]  # the receiver wakes us itself
            if roots != watched:
                watched = roots
                if not self._hints.watch(roots):
                    log.info("ingest.no_hints", sentence="The kernel gives no hints for some inbox; rescans find all.")
            try:
                self.cycle()
            except Exception as error:  # noqa: BLE001 - thread boundary: without this thread nothing comes in any more
                failures += 1
                self._report(error)
                stop.wait(min(60.0, 2.0**failures))
                continue
            failures = 0
            self._sleep(stop)
        self._hints.close()

    def wake(self) -> None:
        """Let ``run`` make its next pass now."""
        self._wake.set()

    def take(self, paths: Sequence[Path], source: str) -> list[int]:
        """Copy a person's files, or all files in a folder, in and file them; return their numbers in the ledger.

        Originals stay as they are. Raise NotFound if a path does not exist, and what ``cycle`` raises.
        """
        entries = list(self._given(paths, source))
        numbers: list[int] = []
        with self._busy:
            for batch in _batches(iter(entries), self._batch_size()):
                numbers += self._copy_in(batch)
                self._work_off()
        return numbers

    def flush(self) -> None:
        """Close every study that is still receiving now."""
        with self._busy:
            self._work_off()
            with self._database.read() as connection:
                receiving = studies.studies_in(connection, StudyState.RECEIVING)
                reasons = [
                    "asked for by clinic-ai process, "
                    + assemble.counted(studies.count_instances(connection, study.study_id, study.version))
                    for study in receiving
                ]
            self._close_studies(list(zip(receiving, reasons, strict=True)))

    def close(self) -> None:
        """End the parser child and let go of everything. What is on its way is picked up by ``recover``."""
        self._wake.set()
        self._hints.close()
        with self._busy:
            self._filing.close()

    # ------------------------------------------------------------ looking

    def _inboxes(self) -> list[Inbox]:
        settings = self._settings()
        inboxes = [watch.inbox_of(inbox, settings.ingest, self._home.path) for inbox in settings.inbox]
        return sorted([*received(self._home.incoming), *inboxes], key=lambda inbox: -inbox.priority)

    def _batch_size(self) -> int:
        return min(MAX_BATCH, self._settings().ingest.batch)

    def _settled(self) -> Iterator[Entry]:
        """Yield the files of all inboxes that have come to rest."""
        ignore = watch.ignore_pattern(self._settings().ingest.ignore)
        for inbox in self._inboxes():
            try:
                entries = list(watch.look(inbox, _NOTHING if inbox.whole else ignore))
            except OSError as error:
                self._note_offline(inbox, error)
                continue
            if inbox.source in self._offline:
                self._offline.discard(inbox.source)
                with self._database.write() as connection:
                    alerts.withdraw(connection, "inbox_offline", inbox.source)
            self._forget_left_alone(inbox, entries)
            self._leave_odd([entry for entry in entries if entry.odd])
            now = time.monotonic()
            files = [entry for entry in entries if not entry.odd and self._left_alone.get(_identity(entry), now) <= now]
            yield from files if inbox.whole else self._watch.settled(inbox, files, now)

    def _note_offline(self, inbox: Inbox, error: OSError) -> None:
        if inbox.source in self._offline:
            return
        self._offline.add(inbox.source)
        log.warning("inbox.offline", source=inbox.source, error=error.strerror)
        with self._database.write() as connection:
            alerts.raise_alert(
                connection,
                "inbox_offline",
                inbox.source,
                f"The inbox {inbox.source} cannot be read: {error.strerror}.",
                "Check that its folder exists, is mounted, and may be read and written by the appliance.",
            )

    def _leave_odd(self, entries: Iterable[Entry]) -> None:
        """Note, once each, what is no regular file; it is never opened."""
        for entry in entries:
            if _identity(entry) in self._left_alone:
                continue
            self._left_alone[_identity(entry)] = math.inf
            with self._database.write() as connection:
                if not ledger.ignored_before(connection, _sighting(entry)):
                    ledger.ignore(connection, _sighting(entry), entry.odd, _ODD[entry.odd], _ODD_REMEDY[entry.odd])

    def _forget_left_alone(self, inbox: Inbox, entries: Iterable[Entry]) -> None:
        if any(source == inbox.source for source, *_ in self._left_alone):
            present = {_identity(entry) for entry in entries}
            self._left_alone = {
                one: until for one, until in self._left_alone.items() if one[0] != inbox.source or one in present
            }

    # ------------------------------------------------------------ taking

    def _take_from_inbox(self, entries: Sequence[Entry]) -> bool:
        now = time.time()
        with self._database.write() as connection:
            numbers = ledger.begin_claims(connection, [_sighting(entry) for entry in entries], seen_at=now)
        claims = list(zip(numbers, entries, strict=True))
        results = self._spool.take(claims)
        by_result: dict[Taken, list[tuple[int, Entry]]] = {result: [] for result in Taken}
        for claim, result in zip(claims, results, strict=True):
            by_result[result].append(claim)
        self._watch.forget(entry for _, entry in by_result[Taken.TAKEN])
        self._backlog += [_claim(number, entry, now) for number, entry in by_result[Taken.TAKEN]]
        self._settle_untaken(by_result)
        self._work_off()
        if by_result[Taken.NO_SPACE]:
            raise self._full()
        return bool(by_result[Taken.TAKEN])

    def _full(self) -> HomeError:
        return HomeError(
            f"The disk of {self._home.spool} is full; new files stay where they lie.",
            remedy="Free space on that disk; the appliance goes on by itself.",
        )

    def _settle_untaken(self, by_result: dict[Taken, list[tuple[int, Entry]]]) -> None:
        gone, refused = by_result[Taken.GONE], by_result[Taken.REFUSED]
        full = by_result[Taken.NO_SPACE]
        if not (gone or refused or full):
            return
        self._left_alone |= dict.fromkeys((_identity(entry) for _, entry in refused), time.monotonic() + _TRY_AGAIN_S)
        with self._database.write() as connection:
            said = [claim for claim in refused if ledger.ignored_before(connection, _sighting(claim[1]))]
            ledger.abandon(connection, [number for number, _ in (*full, *said)])
            ledger.decide(
                connection,
                [Outcome(number, Fate.VANISHED, "gone", "It was gone before it could be taken.") for number, _ in gone]
                + [
                    Outcome(number, Fate.IGNORED, "cannot_take", _CANNOT_TAKE, _CANNOT_TAKE_REMEDY)
                    for number, _ in (claim for claim in refused if claim not in said)
                ],
            )

    def _given(self, paths: Sequence[Path], source: str) -> Iterator[tuple[Entry, Path]]:
        """Yield what a person named: files, and everything in folders. The last folders' names go along as hints."""
        ignore = watch.ignore_pattern(self._settings().ingest.ignore)
        for given in paths:
            path = given.absolute()
            if not path.exists():
                raise NotFound(f"There is no {given}.", remedy="Name files, or folders with files, that exist.")
            inbox = Inbox(source=source, root=path, settle_s=0.0)
            prefix = b"/".join(os.fsencode(part) for part in path.parts[1:][-3 if path.is_file() else -2 :])
            if path.is_dir():
                for entry in watch.look(inbox, ignore):
                    real = path / os.fsdecode(entry.raw_name)
                    raw_name = prefix + b"/" + entry.raw_name
                    yield _renamed(entry, raw_name), real
            else:
                status = path.stat()
                odd = "" if path.is_file() else "special"
                yield Entry(inbox, prefix, status.st_size, status.st_mtime_ns, status.st_ino, odd), path

    def _copy_in(self, batch: Sequence[tuple[Entry, Path]]) -> list[int]:
        now = time.time()
        with self._database.write() as connection:
            numbers = ledger.begin_claims(connection, [_sighting(entry) for entry, _ in batch], seen_at=now)
        outcomes = []
        for number, (entry, path) in zip(numbers, batch, strict=True):
            if entry.odd:
                outcomes.append(Outcome(number, Fate.IGNORED, entry.odd, _ODD[entry.odd], _ODD_REMEDY[entry.odd]))
                continue
            try:
                self._spool.copy_in(number, path)
            except OSError as error:
                if outcome_of(error) is Taken.NO_SPACE:
                    raise self._full() from error
                outcomes.append(Outcome(number, Fate.IGNORED, "cannot_take", _CANNOT_TAKE, _CANNOT_TAKE_REMEDY))
            else:
                self._backlog.append(_claim(number, entry, now))
        with self._database.write() as connection:
            ledger.decide(connection, outcomes)
        return numbers

    def _take_accepted(self) -> None:
        """Take what people accepted out of the quarantine, to be filed like what came from an inbox."""
        on_the_way = {claim.file_id for claim in self._backlog}
        with self._database.read() as connection:
            rows = [row for row in ledger.claimed(connection) if row.file_id not in on_the_way]
        if not rows:
            return
        there, outcomes = bring_back(rows, spool=self._spool, quarantine=self._quarantine)
        inboxes = {inbox.source: inbox for inbox in self._inboxes()}
        self._backlog += [claim_of(row, inboxes.get(row.source)) for row in there]
        with self._database.write() as connection:
            ledger.decide(connection, outcomes)

    # ------------------------------------------------------------ filing and closing

    def _work_off(self) -> bool:
        """File everything that lies in the spool; return whether there was anything."""
        moved = False
        while self._backlog and not self._stop.is_set():
            batch = self._backlog[: self._batch_size()]
            filed = self._filing.file(batch)
            del self._backlog[: len(batch)]
            self._arrived |= dict.fromkeys(filed.receiving, time.monotonic())
            if filed.closed:
                self._on_closed()
            moved = True
        return moved

    def _close_due(self, looked_at: float) -> bool:
        """Close what is complete, judged by the look that began at ``looked_at`` (monotonic seconds).

        Monotonic time, so that setting the clock closes nothing early. What came after the look began, or was
        seen in time but has not come to rest, may belong to a study that is quiet: so that one waits.
        """
        settings = self._settings().ingest
        due = []
        with self._database.read() as connection:
            receiving = studies.studies_in(connection, StudyState.RECEIVING)
            unsettled = {source: self._watch.oldest(source) for source in {study.source for study in receiving}}
            for study in receiving:
                # A study found open at start counts as having just arrived: more of it may lie in the inbox.
                arrived = self._arrived.setdefault(study.study_id, looked_at)
                complete_by = arrived + settings.quiet_period_s
                reason = assemble.close_reason(
                    studies.count_instances(connection, study.study_id, study.version),
                    quiet=complete_by <= looked_at and complete_by < unsettled[study.source],
                    quiet_period_s=settings.quiet_period_s,
                    late=time.time() - study.opened_at >= settings.deadline_s,
                    deadline_s=settings.deadline_s,
                )
                if reason:
                    due.append((study, reason))
        return self._close_studies(due)

    def _close_studies(self, due: Sequence[tuple[Study, str]]) -> bool:
        if not due:
            return False
        with self._database.write() as connection:
            for study, reason in due:
                instances = studies.instances_of(connection, study.study_id, study.version)
                facts = facts_of([instance.header for instance in instances], study.source)
                studies.close_version(
                    connection, study.study_id, study.version, facts=facts, reason=reason, actor=ACTOR
                )
        for study, _ in due:
            self._arrived.pop(study.study_id, None)
        log.info("ingest.closed", studies=len(due))
        self._on_closed()
        return True

    # ------------------------------------------------------------ waiting

    def _sleep(self, stop: threading.Event) -> None:
        """Sleep until the next pass is due; a hint or ``wake`` ends it early."""
        settings = self._settings().ingest
        until = time.monotonic() + settings.rescan_s
        if len(self._watch):
            settle_s = min(inbox.settle_s for inbox in self._inboxes() if not inbox.whole)
            until = min(until, time.monotonic() + max(0.05, settle_s / 2))
        if self._arrived:
            until = min(until, max(time.monotonic() + 0.05, min(self._arrived.values()) + settings.quiet_period_s))
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, _NAP_S)):
                stop.wait(0.05)  # the next hints of a burst need no pass of their own
                return

    def _report(self, error: Exception) -> None:
        """Say what stopped a pass; never the text of a foreign error, it may hold personal data."""
        log.error("ingest.failed", error=type(error).__name__, at=places(error))
        if not isinstance(error, ClinicError):
            return
        code = "parser_unavailable" if isinstance(error, ChildError) else "ingest_stopped"
        try:
            with self._database.write() as connection:
                alerts.raise_alert(connection, code, "ingest", error.message, error.remedy)
        except Exception as second:  # noqa: BLE001 - the alert may fail for the very reason it tells of
            log.error("ingest.alert_failed", error=type(second).__name__)


_ODD = {
    "link": "It is a symbolic link; links are never followed.",
    "special": "It is a pipe, socket or device and not a file; it was not opened.",
    "too_deep": f"It lies more than {watch.MAX_DEPTH} folders deep; such folders are not looked into.",
}
_ODD_REMEDY = {
    "link": "Put the file itself into the inbox.",
    "special": "Remove it from the inbox.",
    "too_deep": "Move the folder further up.",
}
_CANNOT_TAKE = "The file cannot be taken: it cannot be read, or the appliance may not remove it from its folder."
_CANNOT_TAKE_REMEDY = "Let the group of the appliance read the file and write in its folder; it is tried again."


def _identity(entry: Entry) -> tuple[str, bytes, int]:
    return entry.inbox.source, entry.raw_name, entry.mtime_ns


def _sighting(entry: Entry) -> Sighting:
    return Sighting(entry.inbox.source, entry.name, entry.raw_name, entry.size_bytes, entry.mtime_ns)


def _renamed(entry: Entry, raw_name: bytes) -> Entry:
    return Entry(entry.inbox, raw_name, entry.size_bytes, entry.mtime_ns, entry.inode, entry.odd)


def _claim(number: int, entry: Entry, seen_at: float) -> Claim:
    return Claim(
        file_id=number,
        source=entry.inbox.source,
        name=entry.name,
        size_bytes=entry.size_bytes,
        seen_at=seen_at,
        modality=entry.inbox.modality,
        body_part=entry.inbox.body_part,
        priority=entry.inbox.priority,
    )


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
