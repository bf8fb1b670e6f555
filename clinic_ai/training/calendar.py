"""The windows in force, asked once a second: what was answered holds until the next opening or closing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, tzinfo

from clinic_ai.settings import TrainingSettings
from clinic_ai.training.windows import Windows


class Calendar:
    """The windows of the settings as they are now; after a reload they are others. One thread calls it."""

    def __init__(self, settings: Callable[[], TrainingSettings], zone: tzinfo | None = None) -> None:
        self._settings = settings
        self._zone = zone
        self._made_for = settings()
        self._windows = Windows(self._made_for, zone)
        self._known: tuple[float, float, float | None] | None = None

    @property
    def windows(self) -> Windows:
        """The windows in force."""
        settings = self._settings()
        if settings is not self._made_for:
            self._made_for, self._windows, self._known = settings, Windows(settings, self._zone), None
        return self._windows

    def open_until(self, now: float) -> float | None:
        """Return when the open window closes, None if none is open; ``now`` in UTC seconds may be any, in any order."""
        windows = self.windows
        if not windows.configured:
            return None
        if self._known is None or not self._known[0] <= now < self._known[1]:
            closes = windows.open_until(now)
            # For an hour at most: so much may a change of the machine's time zone, say, go unnoticed.
            until = closes if closes is not None else windows.next_opening(now) or now + 3600.0
            self._known = (now, min(until, now + 3600.0), closes)
        return self._known[2]

    def words(self, at: float) -> str:
        """Return a time of the near future as people say it, such as ``Monday 22:00``."""
        return datetime.fromtimestamp(at, self._zone).strftime("%A %H:%M")


def clock_words(at: float) -> str:
    """Return the time of day of this machine's clock."""
    return time.strftime("%H:%M", time.localtime(at))
