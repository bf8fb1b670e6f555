"""Readings of a daemon, its children and its home, and what a straight line through them says."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from clinic_ai.home import Home
from parts.traffic import children_of


@dataclass(frozen=True)
class Reading:
    """One value at one time. ``at_s`` counts from the start; ``pid`` is 0 for what belongs to no process.

    Units are in the name of the measure: bytes, or counts.
    """

    at_s: float
    what: str
    pid: int
    measure: str
    value: float


@dataclass(frozen=True)
class Line:
    """A straight line through readings of one measure.

    ``growth`` is what the line rises by over the measured time, ``per_hour`` its slope, ``error`` the standard error
    of the growth; ``peak`` is the highest reading.
    """

    first: float
    last: float
    peak: float
    growth: float
    per_hour: float
    error: float
    readings: int


def read_all(at_s: float, daemon: psutil.Process, home: Home) -> list[Reading]:
    """Return a reading of everything: the daemon, each of its children, and its home."""
    found = list(_process(at_s, "daemon", daemon))
    children = children_of(daemon)
    for kind, members in children.items():
        for child in members:
            found += _process(at_s, kind, child)
    found.append(Reading(at_s, "children", 0, "count", sum(map(len, children.values()))))
    found += [Reading(at_s, "home", 0, measure, value) for measure, value in _home(home)]
    return found


def _process(at_s: float, what: str, process: psutil.Process) -> Iterator[Reading]:
    try:
        with process.oneshot():
            memory = process.memory_full_info()
            values = {
                "rss_bytes": memory.rss,
                "pss_bytes": memory.pss,
                "threads": process.num_threads(),
                "fds": process.num_fds(),
                "cpu_seconds": sum(process.cpu_times()[:2]),
            }
    except psutil.Error:
        return  # it ended between being listed and being read
    yield from (Reading(at_s, what, process.pid, measure, value) for measure, value in values.items())


def _home(home: Home) -> Iterator[tuple[str, float]]:
    yield "database_bytes", _size(home.database)
    yield "wal_bytes", _size(home.database.with_name(home.database.name + "-wal"))
    # Not rglob: it raises where a folder goes while it is walked, as job directories do.
    places = (Path(folder, name) for folder, _, names in os.walk(home.path) for name in names)
    files = [size for place in places if (size := _size(place)) >= 0]
    yield "all_bytes", sum(files)
    yield "files", len(files)


def _size(path: Path) -> int:
    """Return the size of a file, -1 if it is none or gone."""
    try:
        return path.lstat().st_size if path.is_file() else -1
    except OSError:
        return -1


def line(readings: Sequence[Reading], settle_s: float) -> Line | None:
    """Return the line through readings of one measure of one kind of process; None if there are too few.

    A kind may have had several processes, one after the other or at once. Each has a height of its own, and the
    slope is one for all: it is what tells of a leak. The first ``settle_s`` of each process are left out.
    """
    pairs: list[tuple[float, float]] = []
    processes = 0
    for members in _by_pid(readings):
        used = [r for r in members if r.at_s - members[0].at_s >= settle_s]
        if len(used) < 3:
            continue
        processes += 1
        at, value = statistics.fmean(r.at_s for r in used), statistics.fmean(r.value for r in used)
        pairs += [(r.at_s - at, r.value - value) for r in used]
    spread = sum(x * x for x, _ in pairs)
    free = len(pairs) - processes - 1
    if spread == 0 or free < 1:
        return None
    slope = sum(x * y for x, y in pairs) / spread
    error = math.sqrt(sum((y - slope * x) ** 2 for x, y in pairs) / free / spread)
    length = readings[-1].at_s - readings[0].at_s
    values = [r.value for r in readings]
    return Line(values[0], values[-1], max(values), slope * length, slope * 3600, error * length, len(pairs))


def _by_pid(readings: Iterable[Reading]) -> list[list[Reading]]:
    groups: dict[int, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(reading.pid, []).append(reading)
    return list(groups.values())
