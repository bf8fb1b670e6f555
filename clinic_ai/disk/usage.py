"""What lies where: bytes and files of each class, counted a little at a time.

A clinic's disk holds millions of files, so nothing here walks all of them at once. ``Counting`` is a walk that is taken
up again and again for some milliseconds; what it found is in force when it has come to an end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import thread_time

from clinic_ai.home import Home


class Class(StrEnum):
    """A kind of data that takes room; each has a quota of its own in ``[quota]``."""

    ORIGINALS = "originals"
    """Scans in the object store, and de-identified copies of them."""
    RESULTS = "results"
    """Files that engines and reports made, in the object store."""
    QUARANTINE = "quarantine"
    OUTBOX = "outbox"
    DATASETS = "datasets"
    RUNS = "runs"
    MODELS = "models"
    BACKUPS = "backups"
    LOGS = "logs"
    DATABASE = "database"


@dataclass(frozen=True)
class Tally:
    """How many files there are, how many bytes they have, and when the oldest changed (UTC seconds; None: no file)."""

    files: int = 0
    size_bytes: int = 0
    oldest_at: float | None = None

    def plus(self, size_bytes: int, at: float) -> Tally:
        """Return this with one more file."""
        oldest = at if self.oldest_at is None else min(self.oldest_at, at)
        return Tally(self.files + 1, self.size_bytes + size_bytes, oldest)

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        known = [at for at in (self.oldest_at, other.oldest_at) if at is not None]
        return Tally(self.files + other.files, self.size_bytes + other.size_bytes, min(known, default=None))


def folders_of(home: Home, outbox: Path) -> Mapping[Class, Path]:
    """Return the folders that are walked; the object store is counted by its own slices."""
    return {
        Class.QUARANTINE: home.quarantine,
        Class.OUTBOX: outbox,
        Class.DATASETS: home.datasets,
        Class.RUNS: home.runs,
        Class.MODELS: home.models,
        Class.BACKUPS: home.backups,
        Class.LOGS: home.logs,
    }


def walk(root: Path) -> Iterator[Tally]:
    """Yield, again and again, what was counted so far below a folder; links are not followed.

    A folder that cannot be read, or is gone, counts as empty: whether it should be there is for others to say.
    """
    tally = Tally()
    pending = [str(root)]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
                tally = tally.plus(status.st_size, status.st_mtime)
                yield tally
    yield tally


def tally_of(*paths: Path) -> Tally:
    """Return the tally of single files; one that is not there does not count."""
    tally = Tally()
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        tally = tally.plus(status.st_size, status.st_mtime)
    return tally


class Counting:
    """Walks made in turns of some milliseconds. ``works`` yield nothing; each ends when its class is counted."""

    def __init__(self, works: Callable[[], Iterator[None]]) -> None:
        self._works = works
        self._at: Iterator[None] | None = None

    def advance(self, budget_s: float) -> bool:
        """Go on for about ``budget_s`` seconds of processor time; return whether a round came to its end."""
        if self._at is None:
            self._at = self._works()
        until = thread_time() + budget_s
        for _ in self._at:
            if thread_time() >= until:
                return False
        self._at = None
        return True
