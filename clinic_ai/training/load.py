"""How busy one process is."""

from __future__ import annotations

import psutil


class ProcessLoad:
    """Tells what a process took of one core since it was asked about last. One thread calls it."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def __call__(self, pid: int) -> float | None:
        """Return percent of one core; None at the first question about a process, and if it is gone."""
        try:
            if self._process is None or self._process.pid != pid:
                self._process = psutil.Process(pid)
                self._process.cpu_percent()  # the first answer is of no time at all
                return None
            return float(self._process.cpu_percent())
        except psutil.Error:
            return None
