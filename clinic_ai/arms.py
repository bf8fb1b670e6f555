"""A thread for what may never answer, such as an inbox on a share, so that it holds up nothing else.

A system call on a hard NFS mount whose server is gone does not return, nor does one to the driver of a broken GPU, and
no signal but SIGKILL ends it. So nobody waits for one without an end: whoever gave the errand goes on, and looks again
later whether it was done. Nothing is given to a thread that has not come back, so that threads never pile up.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Beat = Callable[[], None]
"""Called by the work now and then, to say that it gets on."""


class Errand(Generic[T]):
    """One piece of work on its way. ``started_at`` and ``beat_at`` are monotonic seconds."""

    def __init__(self, work: Callable[[Beat], T]) -> None:
        self._work = work
        self._ended = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.started_at = self.beat_at = time.monotonic()
        self.cpu_s = 0.0
        """Processor time it took."""
        self.late = False
        """Whether somebody waited in vain; then the end of the work is to be told."""

    def do(self) -> None:
        """Do the work; what goes wrong is kept for ``result``."""
        began = time.thread_time()
        try:
            self._results.append(self._work(self._beat))
        except BaseException as error:  # noqa: BLE001 - thread boundary: it is raised where the result is asked for
            self._error = error
        self.cpu_s = time.thread_time() - began
        self._ended.set()

    def _beat(self) -> None:
        self.beat_at = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether there is a result."""
        return self._ended.is_set()

    def wait(self, until: float) -> bool:
        """Wait until monotonic time ``until`` at most; return whether it has ended."""
        if not self._ended.wait(max(0.0, until - time.monotonic())):
            self.late = True
        return self.ended

    def result(self) -> T:
        """Return what came of it, or raise what went wrong. Only once it has ended."""
        if self._error is not None:
            raise self._error
        return self._results[0]


class Arm:
    """One thread, one errand at a time. ``on_late`` is called when an errand ends that somebody waited for in vain."""

    def __init__(self, name: str, on_late: Callable[[], None]) -> None:
        self._name = name
        self._on_late = on_late
        self._errands: queue.SimpleQueue[Errand[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.errand: Errand[Any] | None = None
        """The newest one, ended or not."""

    @property
    def busy(self) -> bool:
        """Whether an errand has not ended."""
        return self.errand is not None and not self.errand.ended

    def give(self, work: Callable[[Beat], T]) -> Errand[T]:
        """Begin an errand. Raise RuntimeError if one has not ended."""
        if self.busy:
            raise RuntimeError(f"{self._name} has not come back")
        errand = Errand(work)
        self.errand = errand
        if self._thread is None:
            # A daemon thread: one that never comes back must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._errands.put(errand)
        return errand

    def close(self) -> None:
        """End the thread when it has come back; nobody waits for it."""
        self._errands.put(None)

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand.do()
            if errand.late:
                self._on_late()


def done(work: Callable[[Beat], T]) -> Errand[T]:
    """Return an errand that was done at once, by whoever calls."""
    errand = Errand(work)
    errand.do()
    return errand
