"""Closes studies: when one is complete, for which reason, and how long to wait for more of one that is not.

What is open is kept in memory, counted as it arrives and counted anew by the database at start, so that a pass over
hundreds of open studies reads nothing. The headers of a study are read when it comes to be closed, before the
write transaction; the transaction closes it only if it is still what was read.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from clinic_ai import waiting
from clinic_ai.domain import CloseCode, InstanceHeader, Study, StudyFacts, StudyState
from clinic_ai.errors import Conflict
from clinic_ai.ingest.completeness import Assessment, Tally, assess, counted
from clinic_ai.ingest.facts import facts_of
from clinic_ai.ingest.pace import Pace, Seen, announcements_hold, learned, quiet_period
from clinic_ai.settings import IngestSettings
from clinic_ai.store import arrivals, studies
from clinic_ai.store.database import Database
from clinic_ai.store.pace import load_paces, save_pace

log = structlog.get_logger()

ACTOR = "ingest"
MAX_RECENT = 1000
"""Closed studies remembered, to learn from instances that come late."""
_ATTEMPTS = 5
_AT_ONCE = 10
"""Studies closed in one transaction."""


@dataclass(frozen=True)
class Added:
    """New instances of an open study version."""

    study_id: str
    version: int
    source: str
    headers: tuple[InstanceHeader, ...]


@dataclass(frozen=True)
class PaceView:
    """The quiet period of a source in seconds, and of how many studies it was learned; ``late`` of them went on."""

    source: str
    quiet_s: float
    studies: int
    late: int


@dataclass
class _Open:
    """An open study version; times are monotonic seconds."""

    study_id: str
    version: int
    source: str
    opened: float
    judged: float = -math.inf
    """Begin of the look by which it was last judged."""
    arrived: float | None = None
    """When its newest instance was filed; None for one found open at start, until the first look."""
    quiet_s: float = 0.0
    """For how long nothing had come when it was last judged. Only this counts: what we take our time over, or a share
    that does not answer, closes nothing early and so is no pause of the sender."""
    pause_s: float | None = 0.0
    """Its longest pause so far; None if that is not known."""
    late: bool = False
    broken: bool = False
    gaps: bool | None = None
    """Whether something is visibly missing; None until that was looked at."""
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class _Closed:
    version: int
    arrived: float
    code: CloseCode


@dataclass(frozen=True)
class _Read:
    """A study version as it was read, to be closed if it still is so."""

    study: Study
    stamp: arrivals.Stamp
    facts: StudyFacts
    found: Assessment
    late: int


class Closing:
    """Keeps the open studies and closes them. ``close`` may be called from any thread, the rest from one at a time."""

    def __init__(
        self, *, database: Database, settings: Callable[[], IngestSettings], on_closed: Callable[[], None]
    ) -> None:
        self._database = database
        self._settings = settings
        self._on_closed = on_closed
        self._open: dict[str, _Open] = {}
        self._recent: OrderedDict[str, _Closed] = OrderedDict()
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()
        """Of the three above; never held while the database is asked."""

    def recover(self) -> None:
        """Count the studies that are open in the store, and load what was learned of the sources."""
        now, wall = time.monotonic(), time.time()
        with self._database.read() as connection:
            paces = {source: _pace(text) for source, text in load_paces(connection).items()}
            found = {}
            for study in studies.studies_in(connection, StudyState.RECEIVING):
                age = max(0.0, wall - study.opened_at)
                one = _Open(study.study_id, study.version, study.source, now - age, pause_s=None)
                for some in arrivals.counts_of(connection, study.study_id, study.version):
                    one.tally.add_counted(some)
                found[study.study_id] = one
        with self._lock:
            self._paces, self._open = paces, found

    # ------------------------------------------------------------ what arrives

    def note(self, added: Iterable[Added], looked_at: float) -> None:
        """Take note of what was filed; it was found by the look that began at ``looked_at`` (monotonic seconds)."""
        for some in added:
            one = self._open.get(some.study_id)
            if one is None or one.version != some.version:
                tally = self._count(some)  # all of it, as it may not be the first version
                with self._lock:
                    self._open[some.study_id] = self._opened(some, tally, looked_at)
                continue
            with self._lock:
                if one.pause_s is not None:
                    one.pause_s = max(one.pause_s, one.quiet_s)
                one.arrived, one.quiet_s, one.gaps = time.monotonic(), 0.0, None
                for header in some.headers:
                    one.tally.add(header)

    def _count(self, some: Added) -> Tally:
        tally = Tally()
        with self._database.read() as connection:
            for counts in arrivals.counts_of(connection, some.study_id, some.version):
                tally.add_counted(counts)
        return tally

    def _opened(self, some: Added, tally: Tally, looked_at: float) -> _Open:
        now = time.monotonic()
        one = _Open(some.study_id, some.version, some.source, now, arrived=now, tally=tally)
        before = self._recent.pop(some.study_id, None)
        if before is not None and before.version == some.version - 1:
            one.broken = before.code is CloseCode.EXPECTED
            pause_s = max(0.0, looked_at - before.arrived)
            if pause_s <= self._most_s():  # else no quiet period could have waited for it
                one.pause_s, one.late = pause_s, True
        return one

    def disturb(self) -> None:
        """Learn nothing from what comes to studies closed before now: that it is late may be our own doing."""
        with self._lock:
            self._recent.clear()

    # ------------------------------------------------------------ how long to wait

    def quiet_s(self, source: str) -> float:
        """Return the quiet period of a source in seconds."""
        settings = self._settings()
        if not settings.adaptive_quiet:
            return settings.quiet_period_s
        pace = self._paces.get(source, Pace())
        return quiet_period(pace, least_s=settings.quiet_period_s, most_s=self._most_s())

    def _most_s(self) -> float:
        settings = self._settings()
        return max(settings.quiet_period_s, settings.max_quiet_s)

    def _wait_s(self, one: _Open, quiet_s: float) -> float:
        return max(quiet_s, self._settings().gap_wait_s) if one.gaps else quiet_s

    def paces(self, sources: Iterable[str]) -> list[PaceView]:
        """Return the quiet periods of these sources, and of those that something was learned of."""
        with self._lock:
            known = dict(self._paces)
        return [
            PaceView(source, self.quiet_s(source), len(pace.studies), pace.late)
            for source in sorted({*sources, *known})
            for pace in (known.get(source, Pace()),)
        ]

    def next_look(self) -> float:
        """Return when the next study may be complete, in monotonic seconds; infinity if none is open."""
        with self._lock:
            open_now = list(self._open.values())
        quiet = {source: self.quiet_s(source) for source in {one.source for one in open_now}}
        due = ((one, self._complete_by(one, quiet[one.source])) for one in open_now)
        # One that was judged since then waits for something else: for a file to come to rest, say.
        return min((complete_by for one, complete_by in due if one.judged <= complete_by), default=math.inf)

    def _complete_by(self, one: _Open, quiet_s: float) -> float:
        """Return when a study is complete if nothing more comes, in monotonic seconds."""
        if one.arrived is None:
            return -math.inf
        return one.arrived + (0.0 if self._believed(one) else self._wait_s(one, quiet_s))

    def _believed(self, one: _Open) -> bool:
        """Return whether as much is there as is announced, by a source whose announcements hold."""
        return one.tally.complete and announcements_hold(self._paces.get(one.source, Pace()))

    # ------------------------------------------------------------ closing

    def close_due(self, looked_at: float, unsettled_since: Callable[[str], float]) -> bool:
        """Close what is complete, judged by the look that began at ``looked_at``; return whether anything was.

        All times are monotonic seconds, so that setting the clock closes nothing early. What came after the look
        began, or was seen in time but has not come to rest (``unsettled_since`` of its source), may belong to a study
        that is quiet: so that one waits.
        """
        with self._lock:
            open_now = list(self._open.values())
        sources = {one.source for one in open_now}
        quiet = {source: self.quiet_s(source) for source in sources}
        unsettled = {source: unsettled_since(source) for source in sources}
        due: dict[str, tuple[_Open, CloseCode]] = {}
        for one in open_now:
            if one.arrived is None:
                one.arrived = looked_at  # more of a study that was open at start may lie in the inbox
            one.judged, one.quiet_s = looked_at, max(0.0, min(looked_at, unsettled[one.source]) - one.arrived)
            code = self._due(one, looked_at, unsettled[one.source], quiet[one.source])
            if code is not None:
                due[one.study_id] = one, code
        closed = False
        for some in self._most_urgent_first(due):
            ready = []
            for one, code in some:
                if (read := self._ripe(one, code, quiet[one.source])) is not None:
                    wait_s = self._wait_s(one, quiet[one.source])
                    reason = _reason(code, read, wait_s=wait_s, deadline_s=self._settings().deadline_s)
                    ready.append((read, code, reason))
            closed = bool(self._close(ready, actor=ACTOR)) or closed
        return closed

    def _most_urgent_first(self, due: Mapping[str, tuple[_Open, CloseCode]]) -> Iterator[list[tuple[_Open, CloseCode]]]:
        """Yield a few at a time, so that the first need not wait until all have been read."""
        if not due:
            return
        with self._database.read() as connection:
            order = [study.study_id for study in studies.studies_in(connection, StudyState.RECEIVING)]
        ranks = {study_id: rank for rank, study_id in enumerate(order)}
        ordered = [due[study_id] for study_id in sorted(due, key=lambda study_id: ranks.get(study_id, len(order)))]
        for start in range(0, len(ordered), _AT_ONCE):
            yield ordered[start : start + _AT_ONCE]

    def close_all(self) -> None:
        """Close every open study now: all that was given has been read."""
        with self._lock:
            open_now = list(self._open.values())
        code = CloseCode.PROCESS
        read = [found for one in open_now if (found := self._read(one.study_id, one.version)) is not None]
        self._close([(found, code, _reason(code, found)) for found in read], actor=ACTOR)

    def close(self, study_id: str, person: str) -> str:
        """Close a study in the name of a person; return in words what was done.

        Raise NotFound, or Conflict if it is not arriving any more.
        """
        for _ in range(_ATTEMPTS):
            with self._database.read() as connection:
                read = _receiving(connection, study_id)
            reason = _reason(CloseCode.FORCED, read, person=person)
            if self._close([(read, CloseCode.FORCED, reason)], actor=person):
                return f"Study {study_id} version {read.study.version} is closed: {reason}."
        raise Conflict(f"Study {study_id} changes faster than it can be closed.", remedy="Try again soon.")

    def _due(self, one: _Open, looked_at: float, unsettled_since: float, quiet_s: float) -> CloseCode | None:
        """Return why a study is complete by what is in memory."""
        complete_by = self._complete_by(one, quiet_s)
        if complete_by < unsettled_since:
            if self._believed(one):
                return CloseCode.EXPECTED
            if complete_by <= looked_at:
                return CloseCode.QUIET
        late = time.monotonic() - one.opened >= self._settings().deadline_s
        return CloseCode.DEADLINE if late else None

    def _ripe(self, one: _Open, code: CloseCode, quiet_s: float) -> _Read | None:
        """Read a study that seems complete; return None if it is to wait after all, or is closed already."""
        read = self._read(one.study_id, one.version)
        if read is None:
            self._forget(one)
            return None
        one.tally = read.found.tally
        if code is CloseCode.EXPECTED and not one.tally.complete:
            return None  # a person replaced something of it meanwhile
        if code is CloseCode.QUIET and one.gaps is None:
            one.gaps = bool(read.found.missing)
            wait_s = self._wait_s(one, quiet_s)
            if wait_s > quiet_s:
                with self._database.write() as connection:
                    if _unchanged(connection, read):
                        wait = waiting.receiving_more(read.found.missing_words, wait_s)
                        studies.set_wait(connection, one.study_id, one.version, wait)
                return None
        return read

    def _read(self, study_id: str, version: int) -> _Read | None:
        with self._database.read() as connection:
            try:
                read = _receiving(connection, study_id)
            except Conflict:
                return None
        return read if read.study.version == version else None

    def _close(self, ready: Sequence[tuple[_Read, CloseCode, str]], *, actor: str) -> list[_Read]:
        """Close what is still as it was read, the most urgent first; return what was closed."""
        if not ready:
            return []
        ordered = sorted(ready, key=lambda item: (-item[0].study.priority, item[0].study.opened_at))
        closed: list[tuple[_Read, CloseCode]] = []
        with self._database.write() as connection:
            for read, code, reason in ordered:
                if not _unchanged(connection, read):
                    continue
                study = read.study
                studies.close_version(
                    connection, study.study_id, study.version, facts=read.facts, code=code, reason=reason, actor=actor
                )
                closed.append((read, code))
            paces = self._learn(closed)
            for source, pace in paces.items():
                save_pace(connection, source, pace.model_dump_json(exclude_defaults=True))
        with self._lock:
            self._paces |= paces
            for read, code in closed:
                self._remember(read, code)
        if closed:
            log.info("ingest.closed", studies=len(closed))
            self._on_closed()
        return [read for read, _ in closed]

    # ------------------------------------------------------------ learning

    def _learn(self, closed: Iterable[tuple[_Read, CloseCode]]) -> dict[str, Pace]:
        """Return the paces of the sources of which these studies teach something."""
        fresh: dict[str, Pace] = {}
        if not self._settings().adaptive_quiet:
            return fresh
        for read, code in closed:
            one = self._kept(read)
            if one is None or code not in _TEACH:
                continue
            if one.pause_s is None and not one.broken:
                continue
            seen = Seen(
                pause_s=round(min(one.pause_s or 0.0, _DAY_S), 1),
                late=one.late,
                announced=code is CloseCode.EXPECTED,
                broken=one.broken,
            )
            pace = fresh.get(one.source) or self._paces.get(one.source, Pace())
            fresh[one.source] = learned(pace, seen)
        return fresh

    def _kept(self, read: _Read) -> _Open | None:
        """Return what is kept of the version that was read; the next one may be open by the time it is asked for."""
        one = self._open.get(read.study.study_id)
        return one if one is not None and one.version == read.study.version else None

    def _remember(self, read: _Read, code: CloseCode) -> None:
        one = self._kept(read)
        if one is None:
            return
        del self._open[one.study_id]
        if one.arrived is None or one.pause_s is None or code not in _TEACH:
            return
        self._recent[one.study_id] = _Closed(one.version, one.arrived, code)
        while len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    def _forget(self, one: _Open) -> None:
        with self._lock:
            if self._open.get(one.study_id) is one:
                del self._open[one.study_id]


_DAY_S = 86400.0
_TEACH = frozenset({CloseCode.QUIET, CloseCode.EXPECTED})
"""Reasons by which the appliance itself took a study for complete, rightly or not."""


def _receiving(connection: Connection, study_id: str) -> _Read:
    """Read all of a study that is arriving. Raise NotFound, or Conflict if it is not."""
    study = studies.get_study(connection, study_id)
    if study.state is not StudyState.RECEIVING:
        raise Conflict(
            f"Study {study_id} is {study.state.value} and not arriving any more.",
            remedy=f"`clinic-ai study show {study_id}` says when and why it was closed.",
        )
    stamp = arrivals.stamp(connection, study_id, study.version)
    instances = studies.instances_of(connection, study_id, study.version)
    late = sum(instance.first_version == study.version for instance in instances) if study.version > 1 else 0
    facts = facts_of([instance.header for instance in instances], study.source)
    return _Read(study, stamp, facts, assess(instances), late)


def _unchanged(connection: Connection, read: _Read) -> bool:
    study = studies.get_study(connection, read.study.study_id)
    return (study.state, study.version) == (StudyState.RECEIVING, read.study.version) and arrivals.stamp(
        connection, study.study_id, study.version
    ) == read.stamp


def _reason(code: CloseCode, read: _Read, *, wait_s: float = 0.0, deadline_s: float = 0.0, person: str = "") -> str:
    """Return why a study version is closed, in one sentence without its full stop."""
    found = read.found
    match code:
        case CloseCode.EXPECTED:
            why = found.tally.words
        case CloseCode.DEADLINE:
            why = f"it was still arriving after {deadline_s:g} s, {found.words}"
        case CloseCode.FORCED:
            why = f"{person} closed it, {found.words}"
        case CloseCode.PROCESS:
            why = f"all that was given had been read, {found.words}"
        case _:
            why = f"nothing new arrived for {wait_s:g} s, {found.words}"
    if not read.late:
        return why
    before = read.study.version - 1
    return f"{counted(read.late)} came after version {before} was closed, which this version replaces; {why}"


def _pace(text: str) -> Pace:
    """Return a stored pace; one that cannot be understood, of a newer version say, is learned anew."""
    try:
        return Pace.model_validate_json(text)
    except ValidationError:
        return Pace()
