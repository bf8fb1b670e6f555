"""Whose turn it is: one at a time, and of each reader only the newest request waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clinic_ai.errors import Conflict

MAX_WAITING = 8
"""Readers that wait at once."""


class Turns:
    """Lets one request after another through; a newer one of a reader takes the place of the one that waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._waiting: dict[str, int] = {}
        self._count = 0

    @contextmanager
    def turn(self, reader: str) -> Iterator[None]:
        """Wait until it is this request's turn. Raise Conflict if a newer one came, or too many readers wait."""
        self._enter(reader)
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _enter(self, reader: str) -> None:
        with self._changed:
            if reader not in self._waiting and len(self._waiting) >= MAX_WAITING:
                raise Conflict("Too many people look at pictures just now.", remedy="Try again soon.")
            self._count += 1
            mine = self._waiting[reader] = self._count
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy or self._waiting.get(reader) != mine)
            if self._waiting.get(reader) != mine:
                raise Conflict("A newer picture was asked for instead of this one.", remedy="Nothing is needed.")
            del self._waiting[reader]
            self._busy = True
