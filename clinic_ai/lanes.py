"""Threads that repeat one step: while it finds work, at once; else when woken or after a while."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

import structlog

log = structlog.get_logger()


def places(error: BaseException) -> list[str]:
    """Return ``file:line function`` of the innermost frames; the message itself may hold personal data."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


class Wake:
    """Wakes every lane that sleeps; cheap to call from anywhere."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def __call__(self) -> None:
        """Wake all lanes."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def count(self) -> int:
        """Return how often lanes were woken; pass it to ``wait`` so that no wake-up in between is missed."""
        return self._count

    def wait(self, seen: int, timeout_s: float) -> None:
        """Wait until somebody woke the lanes since ``seen``, or ``timeout_s`` passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen, timeout=timeout_s)


class Lane:
    """One thread and its step. ``step`` returns whether it found work."""

    def __init__(self, name: str, step: Callable[[], bool], wake: Wake, *, idle_s: float = 1.0) -> None:
        self.name = name
        self.failures = 0
        self._step = step
        self._wake = wake
        self._idle_s = idle_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Let the thread end after its present step."""
        self._stopping.set()
        self._wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; return whether it ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self._wake.count()
            try:
                found = self._step()
            except Exception as error:  # noqa: BLE001 - thread boundary: a lane that ended would strand studies
                self.failures += 1
                # Not log.exception: the text of a foreign error may hold personal data.
                log.error("lane.failed", lane=self.name, error=type(error).__name__, at=places(error))
                self._stopping.wait(min(30.0, 0.5 * 2 ** min(self.failures, 6)))
                continue
            self.failures = 0
            if not found:
                self._wake.wait(seen, self._idle_s)
