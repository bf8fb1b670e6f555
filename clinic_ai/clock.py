"""The time, as something that can be handed in: simulated nights have a clock of their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now(self) -> float:
        """Return the time of day in UTC seconds; it may jump when somebody sets the clock."""

    def monotonic(self) -> float:
        """Return seconds that only go forward, from some beginning."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the time of day in UTC seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the machine started, its sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
