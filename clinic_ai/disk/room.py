"""Whether there is room for what comes in: one answer for inboxes, imports and the network.

Incoming data never take the reserve. It is there so that results, the database and the audit of what was taken can
still be written; on a full disk nothing could even say that it is full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.errors import HomeError

SLACK = 10
"""A door that was shut opens when free space is this much more than the reserve, in percent: it must not flap."""
MIB = 1 << 20


@dataclass(frozen=True)
class Shortage:
    """Why nothing may come in now, and what a person can do. Bytes are 0 where a quota and no disk is the reason."""

    sentence: str
    remedy: str
    free_bytes: int = 0
    needed_bytes: int = 0


def free_bytes(place: Path) -> int:
    """Return what this user may still write on the file system of ``place``. Raise OSError if it is not there."""
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


class Room:
    """The room on the disk where what comes in is stored. Any thread may ask; it costs one system call."""

    def __init__(self, place: Path, reserve_bytes: Callable[[], int]) -> None:
        self.place = place
        self._reserve = reserve_bytes
        self._lock = threading.Lock()
        self._short = False
        self._shut: Shortage | None = None
        self._sources: Mapping[str, Shortage] = {}

    def shortage(self, size_bytes: int = 0, *, source: str = "") -> Shortage | None:
        """Return why nothing may come in, None if it may.

        ``size_bytes`` is what is about to be written on that disk: the size of a file that is copied, 0 for one that
        is renamed. ``source`` is the inbox or peer it comes from; one of them may have to wait by itself.
        """
        reserve = self._reserve()
        free = free_bytes(self.place)
        with self._lock:
            limit = with_slack(reserve) if self._short else reserve
            self._short = free < limit
            if self._short or free - size_bytes < reserve:
                return _short_of(self.place, free, reserve, max(limit, reserve + size_bytes))
            return self._shut or self._sources.get(source)

    def require(self, size_bytes: int = 0, *, source: str = "") -> None:
        """Raise HomeError if nothing may come in; see ``shortage``."""
        short = self.shortage(size_bytes, source=source)
        if short is not None:
            raise HomeError(short.sentence, remedy=short.remedy)

    def shut(self, everything: Shortage | None, sources: Mapping[str, Shortage]) -> None:
        """Keep all that comes in waiting, or what comes from some sources, until this is called again."""
        with self._lock:
            self._shut, self._sources = everything, dict(sources)


def with_slack(reserve: int) -> int:
    """Return the free bytes at which what a reserve kept waiting goes on."""
    return reserve + reserve * SLACK // 100


def _short_of(place: Path, free: int, reserve: int, needed: int) -> Shortage:
    return Shortage(
        f"The disk of {place} has {free // MIB} MiB free; to take in what waits it needs {-(-needed // MIB)} MiB, of "
        f"which {reserve // MIB} MiB are the reserve. Nothing is lost.",
        "Free space on that disk; `clinic-ai disk` shows what fills it, and docs/disk.md what may go. What waits goes "
        "on by itself.",
        free,
        needed,
    )
