"""The way in: looks at the inboxes, takes what has come to rest, files it, and closes studies that are complete.

One pass is ``cycle``; ``run`` repeats it. What a crash interrupted, ``recover`` picks up from the ledger.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import structlog

from clinic_ai.disk.room import Room
from clinic_ai.domain import Fate
from clinic_ai.errors import ChildError, ClinicError, HomeError, NotFound
from clinic_ai.home import Home
from clinic_ai.ingest import watch
from clinic_ai.ingest.closing import Closing
from clinic_ai.ingest.decisions import Decisions
from clinic_ai.ingest.filing import Claim, Filing
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.ingest.imports import imported
from clinic_ai.ingest.lookout import Lookout, sighting
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.ingest.receiving import received
from clinic_ai.ingest.recovery import claim_of, look_again, recover
from clinic_ai.ingest.spool import Spool, Taken, outcome_of
from clinic_ai.ingest.taking import Batch, Taking, cannot_take, claim_of_entry, too_large
from clinic_ai.ingest.troubles import ODD, ODD_REMEDY
from clinic_ai.ingest.watch import Entry, Inbox
from clinic_ai.lanes import places
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store import alerts, ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Outcome
from clinic_ai.store.objects import ObjectStore

log = structlog.get_logger()

MAX_BATCH = 200
"""Files taken at once whatever the settings say: each of their folders is held open meanwhile."""
FULL_REST_S = 5.0
"""Longest pause after a pass in which the disk had no room for some file."""
_NAP_S = 0.5
PARSER_UNAVAILABLE, STOPPED = "parser_unavailable", "ingest_stopped"
SUBJECT = "ingest"
"""Codes and subject of the alerts about passes that failed."""

T = TypeVar("T")


class Intake:
    """Everything that comes in passes here.

    ``on_closed`` is called after studies were closed, ``on_arrival`` as soon as a file is seen where none was on its
    way before, with the seconds that it lies there.
    """

    def __init__(
        self,
        *,
        home: Home,
        settings: Callable[[], Settings],
        database: Database,
        objects: ObjectStore,
        crew: Crew,
        on_closed: Callable[[], None],
        on_arrival: Callable[[float], None] = lambda _: None,
        room: Room | None = None,
        on_inboxes: Callable[[], None] = lambda: None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._database = database
        self._on_closed = on_closed
        self._on_arrival = on_arrival
        self._objects = objects
        self.room = room or Room(home.state, lambda: settings().disk.reserve_mb << 20)
        self._spool = Spool(home.spool, self.room)
        self._quarantine = Quarantine(home.quarantine)
        self.closing = Closing(database=database, settings=lambda: settings().ingest, on_closed=on_closed)
        self._filing = Filing(
            spool=self._spool,
            quarantine=self._quarantine,
            database=database,
            objects=objects,
            reader=HeaderReader(crew),
            settings=lambda: settings().ingest,
            quiet_s=self.closing.quiet_s,
        )
        self.decisions = Decisions(database=database, quarantine=self._quarantine, wake=self.wake)
        self._wake = threading.Event()
        self.lookout = Lookout(
            home=home.path,
            database=database,
            inboxes=self._inboxes,
            ignore=lambda: watch.ignore_pattern(settings().ingest.ignore),
            wake=self.wake,
            on_change=on_inboxes,
        )
        self._taking = Taking(
            database=database, spool=self._spool, lookout=self.lookout, max_file_bytes=self._max_file_bytes
        )
        self._hints = watch.Hints(self._wake)
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._backlog: list[Claim] = []
        self._doubtful = False
        """Whether nobody knows how far the filing of the backlog came."""
        self._full = False
        """Whether the disk had no room for a file in this pass."""
        self._arriving = False

    # ------------------------------------------------------------ what the daemon calls

    def recover(self) -> None:
        """Pick up what a crash interrupted. Call it before anything else."""
        with self._busy:
            there = self.lookout.reachable()
            self._backlog = recover(
                spool=self._spool,
                quarantine=self._quarantine,
                database=self._database,
                objects=self._objects,
                inboxes=there,
                offline={inbox.source for inbox in self._inboxes() if inbox not in there},
            )
            self.closing.recover()

    def cycle(self) -> bool:
        """Make one pass over all inboxes; return whether anything moved.

        Raise HomeError or OSError if the disk does not take it, and ChildError if no parser can be started;
        nothing is lost, and the next pass goes on where this one stopped.
        """
        with self._busy:
            try:
                return self._pass()
            finally:
                self._arriving = bool(self._backlog) or self._taking.waits or self.lookout.newest_at() is not None

    @property
    def arriving(self) -> bool:
        """Whether files are on their way that belong to no study yet."""
        return self._arriving

    def _pass(self) -> bool:
        looked_at = time.monotonic()
        self._full = False
        self._take_accepted()
        moved = self._work_off(looked_at)
        for back in self._taking.collect():
            moved = self._file(back, looked_at) or moved
        for rested in self.lookout.rounds():
            self._tell_of_arrivals()
            for batch in _batches(iter(rested), self._batch_size()):
                inbox = batch[0].inbox
                if self._stop.is_set():
                    return moved
                # What the receiver acknowledged is on our disk already, and taking it needs no more of it.
                waits = not inbox.whole and self.room.shortage(source=inbox.source) is not None
                if waits or self.lookout.busy(inbox):
                    break  # the rest lies well until there is room, and until the batch before has come back
                moved = self._file(self._taking.take(batch), looked_at) or moved
        moved = self.closing.close_due(looked_at, self.lookout.seen_until) or moved
        if self._full:
            raise self._no_space()  # only now: one file that is too large for the disk must not hold up the others
        return moved

    def _tell_of_arrivals(self) -> None:
        """Let others make way, before the files have even come to rest."""
        if not self._arriving and (newest_at := self.lookout.newest_at()) is not None:
            self._arriving = True
            self._on_arrival(max(0.0, time.time() - newest_at))

    def run(self, stop: threading.Event) -> None:
        """Repeat ``cycle`` until ``stop``: when the kernel hints at a new file, and every ``rescan_s`` anyway."""
        failures, watched = 0, list[Path]()
        alerted = True  # perhaps: an earlier start may have left an alert
        self._stop = stop
        while not stop.is_set():
            self._wake.clear()
            roots = self.lookout.hinted_roots()
            if roots != watched:
                watched = roots
                if not self._hints.watch(roots):
                    log.info("ingest.no_hints", sentence="The kernel gives no hints for some inbox; rescans find all.")
            try:
                self.cycle()
            except Exception as error:  # noqa: BLE001 - thread boundary: without this thread nothing comes in any more
                failures, alerted = failures + 1, True
                self.closing.disturb()
                self._report(error)
                # A pass that only had no room for some file did all the rest; nobody else is to wait for that file.
                self._rest(stop, min(FULL_REST_S if self._full else 60.0, 2.0**failures))
                continue
            failures = 0
            if alerted:
                alerted = not self._withdraw_alerts()
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
            self._full = False
            for batch in _batches(iter(entries), self._batch_size()):
                numbers += self._copy_in(batch)
                self._work_off(time.monotonic())
            if self._full:
                raise self._no_space()
        return numbers

    def flush(self) -> None:
        """Close every study that is still open: all that was given has been read. Raise what ``cycle`` raises."""
        with self._busy:
            self._full = False
            self._work_off(time.monotonic())
            if self._full:
                raise self._no_space()  # a study that waits for one of its files is not complete
            self.closing.close_all()

    def close(self) -> None:
        """End the parser child and let go of everything. What is on its way is picked up by ``recover``."""
        self._wake.set()
        self._hints.close()
        self.lookout.close()
        with self._busy:
            self._filing.close()

    # ------------------------------------------------------------ looking

    def _inboxes(self) -> list[Inbox]:
        settings = self._settings()
        inboxes = [watch.inbox_of(inbox, settings.ingest, self._home.path) for inbox in settings.inbox]
        senders = received(self._home.incoming, settings.network.peer)
        media = imported(self._home.imports, inboxes)
        return sorted([*senders, *media, *inboxes], key=lambda inbox: -inbox.priority)

    def _max_file_bytes(self) -> int:
        return self._settings().ingest.max_file_mb << 20

    def _batch_size(self) -> int:
        return min(MAX_BATCH, self._settings().ingest.batch)

    # ------------------------------------------------------------ taking

    def _file(self, batch: Batch, looked_at: float) -> bool:
        """File what was taken, and note whether the disk had no room for more; return whether there was anything."""
        self._full = self._full or batch.full
        self._backlog += batch.claims
        self._work_off(looked_at)
        return bool(batch.claims)

    def _no_space(self) -> HomeError:
        return HomeError(
            f"The disk of {self._home.spool} is full, or has too little beside its reserve for a file that has to be "
            "copied; what waits stays where it lies.",
            remedy="Free space on that disk; the appliance goes on by itself.",
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
                yield Entry(inbox, prefix, status.st_size, status.st_mtime_ns, status.st_ino, odd=odd), path

    def _copy_in(self, batch: Sequence[tuple[Entry, Path]]) -> list[int]:
        now = time.time()
        with self._database.write() as connection:
            numbers = ledger.begin_claims(connection, [sighting(entry) for entry, _ in batch], seen_at=now)
        outcomes = []
        for number, (entry, path) in zip(numbers, batch, strict=True):
            if entry.odd:
                outcomes.append(Outcome(number, Fate.IGNORED, entry.odd, ODD[entry.odd], ODD_REMEDY[entry.odd]))
                continue
            try:
                self._spool.copy_in(number, path)
            except OSError as error:
                limit = self._max_file_bytes()
                if outcome_of(error) is not Taken.NO_SPACE:
                    outcomes.append(cannot_take(number))
                elif entry.size_bytes > limit:
                    outcomes.append(too_large(number, entry.size_bytes, limit))
                else:
                    raise self._no_space() from error
            else:
                self._backlog.append(claim_of_entry(number, entry, now))
        with self._database.write() as connection:
            ledger.decide(connection, outcomes)
        return numbers

    def _take_accepted(self) -> None:
        """Take what people accepted out of the quarantine, to be filed like what came from an inbox.

        With it comes what a start or a failed pass could not take back for want of room.
        """
        on_the_way = {claim.file_id for claim in self._backlog}
        with self._database.read() as connection:
            rows = [row for row in ledger.claimed(connection) if row.file_id not in on_the_way]
        if not rows:
            return
        inboxes = {inbox.source: inbox for inbox in self._inboxes()}
        self._backlog += self._still_to_file([claim_of(row, inboxes.get(row.source)) for row in rows])

    # ------------------------------------------------------------ filing

    def _work_off(self, looked_at: float) -> bool:
        """File everything that lies in the spool; return whether there was anything."""
        moved = False
        if self._doubtful:
            self._look_again()
        while self._backlog and not self._stop.is_set():
            batch = self._backlog[: self._batch_size()]
            self._doubtful = True  # should it fail, it may have got half-way
            filed = self._filing.file(batch)
            self._doubtful = False
            del self._backlog[: len(batch)]
            self.closing.note(filed.added, looked_at)
            if filed.closed:
                self._on_closed()
            moved = True
        return moved

    def _look_again(self) -> None:
        """Find out how far the pass came that failed, as a start does after a crash."""
        before = len(self._backlog)
        self._backlog = self._still_to_file(self._backlog)
        self._doubtful = False
        if len(self._backlog) < before:
            self.closing.recover()  # what was written of these may have opened a study

    def _still_to_file(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return those that lie in the spool now; note whether the disk has no room for others."""
        there, full = look_again(
            claims,
            spool=self._spool,
            quarantine=self._quarantine,
            database=self._database,
            objects=self._objects,
        )
        self._full = self._full or full
        return there

    # ------------------------------------------------------------ waiting

    def _sleep(self, stop: threading.Event) -> None:
        """Sleep until the next pass is due; a hint or ``wake`` ends it early."""
        settings = self._settings().ingest
        until = time.monotonic() + settings.rescan_s
        until = min(until, time.monotonic() + self.lookout.next_look_in())
        until = min(until, max(time.monotonic() + 0.05, self.closing.next_look()))
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, _NAP_S)):
                stop.wait(0.05)  # the next hints of a burst need no pass of their own
                return

    def _rest(self, stop: threading.Event, rest_s: float) -> None:
        """Wait before the next pass after one that failed; no longer once a disk that was short has room again."""
        until, was_short = time.monotonic() + rest_s, False
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, _NAP_S)):
            try:
                short = self.room.shortage() is not None
            except OSError:  # the home is not there now
                continue
            if was_short and not short:
                return
            was_short = short

    def _withdraw_alerts(self) -> bool:
        """Withdraw the alerts about failed passes after one that did not fail; return whether that could be written."""
        try:
            with self._database.write() as connection:
                for code in (PARSER_UNAVAILABLE, STOPPED):
                    alerts.withdraw(connection, code, SUBJECT)
        except Exception as error:  # noqa: BLE001 - thread boundary; it is tried again after the next pass
            log.error("ingest.alert_failed", error=type(error).__name__)
            return False
        return True

    def _report(self, error: Exception) -> None:
        """Say what stopped a pass; never the text of a foreign error, it may hold personal data."""
        log.error("ingest.failed", error=type(error).__name__, at=places(error))
        code = PARSER_UNAVAILABLE if isinstance(error, ChildError) else STOPPED
        told = error if isinstance(error, ClinicError) else _unforeseen(error)
        try:
            with self._database.write() as connection:
                alerts.raise_alert(connection, code, SUBJECT, told.message, told.remedy)
        except Exception as second:  # noqa: BLE001 - the alert may fail for the very reason it tells of
            log.error("ingest.alert_failed", error=type(second).__name__)


def _unforeseen(error: Exception) -> HomeError:
    """Return what people are told of an error that is not ours, without its text."""
    said = error.strerror if isinstance(error, OSError) else None
    return HomeError(
        f"What comes in is not filed: {said or f'an error nobody foresaw ({type(error).__name__})'}. Nothing is lost.",
        remedy="It is tried again by itself. If this stays, `clinic-ai doctor` looks for the cause; the log names the "
        "place as ingest.failed.",
    )


def _renamed(entry: Entry, raw_name: bytes) -> Entry:
    return replace(entry, raw_name=raw_name)


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
