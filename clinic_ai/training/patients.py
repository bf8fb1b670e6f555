"""Whether patients need this machine: training makes way as soon as the first file of a study is seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from clinic_ai.clock import Clock
from clinic_ai.store import jobs
from clinic_ai.store.database import Database

HOPELESS = frozenset({"no_plugin", "no_model", "bad_model", "no_memory", "no_policy", "undelivered"})
"""Reasons for which a job waits until a person has done something: training need not wait for that."""


class Patients:
    """Watches whether a study is on its way or a question is open. One thread calls it.

    ``signs`` tell of what is not in the database: files in an inbox, questions that are being answered.
    """

    def __init__(self, database: Database, clock: Clock, signs: Sequence[Callable[[], bool]] = ()) -> None:
        self._database = database
        self._clock = clock
        self._signs = signs
        self._needed_at = -math.inf

    def waiting(self) -> bool:
        """Return whether one waits now."""
        if any(sign() for sign in self._signs) or self._in_store():
            self._needed_at = self._clock.monotonic()
            return True
        return False

    def quiet_s(self) -> float:
        """Return for how many seconds none has waited, as far as ``waiting`` was asked; infinity if none ever did."""
        return self._clock.monotonic() - self._needed_at

    def _in_store(self) -> bool:
        with self._database.read() as connection:
            return jobs.needed(connection, HOPELESS)
