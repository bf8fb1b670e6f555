"""A child that is kept warm between calls: started when it is needed, again when it died, ended when nobody uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clinic_ai.processes import Child, ChildSpec, Crew


class WarmChild:
    """Holds at most one child for those who use it, one at a time. Safe to call from several threads.

    ``proving`` calls a fresh child once, so that what fails later is not the machine's fault; it raises ChildError if
    the child does not work.
    """

    def __init__(self, crew: Crew, spec: ChildSpec, *, proving: Callable[[Child], object] | None = None) -> None:
        self.spec = spec
        self._crew = crew
        self._proving = proving
        self._child: Child | None = None
        self._lock = threading.RLock()  # who works with the child may find it to be distrusted

    @property
    def pid(self) -> int | None:
        """Process id of the child; None if there is none."""
        child = self._child
        return None if child is None else child.pid

    @contextmanager
    def at_work(self) -> Iterator[Child]:
        """Give the living child to nobody else meanwhile, and do not end it. Raise what starting and proving raise."""
        with self._lock:
            yield self._living()

    def _living(self) -> Child:
        if self._child is not None and self._child.alive:
            return self._child
        self._end()
        child = self._crew.start(self.spec)
        if self._proving is not None:
            try:
                self._proving(child)
            except BaseException:
                child.kill()
                raise
        self._child = child
        return child

    def distrust(self) -> None:
        """Kill the child because of what it answered; the next who needs one gets a fresh one."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child = None

    def end_if_idle(self, idle_s: float) -> None:
        """End the child if nobody used it for ``idle_s`` seconds; one at work is left alone."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._child is not None and time.monotonic() - self._child.last_used > idle_s:
                self._end()
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child, when who works with it has finished."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.close(grace_s=1.0)
            self._child = None
