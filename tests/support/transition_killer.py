"""SIGKILLs its own process at the commit of a transition of a state table, just before it or just after.

Only from outside: the table look-up ``states.step`` and ``Database.write`` are wrapped, and a trigger that lives in
the connection alone tells what became of files, whatever wrote it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, event
from sqlalchemy.pool import Pool

from clinic_ai import states
from clinic_ai.domain import Fate
from clinic_ai.store.database import Database

TABLES = {
    "FILE": states.FILE,
    "STUDY": states.STUDY,
    "JOB": states.JOB,
    "ARTEFACT": states.ARTEFACT,
    "DELIVERY": states.DELIVERY,
}
"""The tables of all that moves because a file came in."""

WHEN = ("before", "after")
"""Of the commit."""


class Row(NamedTuple):
    """One row of a table; words, as they are written to a pipe."""

    table: str
    state: str
    event: str

    def __str__(self) -> str:
        return f"{self.table} {self.state} {self.event}"


ROWS = tuple(Row(name, state.value, event) for name, table in TABLES.items() for state, event in table)

_EVENT_OF = {(old.value, new.value): event for (old, event), new in states.FILE.items()}
assert len(_EVENT_OF) == len(states.FILE), "two events lead a file from one fate to the same other one"

_TRIGGER = """
CREATE TEMP TRIGGER torture AFTER UPDATE OF fate ON main.files
BEGIN INSERT INTO torture_moves VALUES (old.fate, new.fate); END
"""


class Killer:
    """``wanted`` says of a row and a moment whether to die there; ``last_words`` is told of what died."""

    def __init__(self, wanted: Callable[[Row, str], bool], last_words: Callable[[list[tuple[Row, str]]], None]) -> None:
        self.wanted = wanted
        self._last_words = last_words
        self._mine = threading.local()

    def install(self) -> None:
        """Wrap the process. The database has to have its tables already."""
        self._wrap_step()
        event.listen(Pool, "connect", _watch_files)
        write = Database.write

        @contextmanager
        def watched(database: Database) -> Iterator[Connection]:
            self._mine.moves = []
            with write(database) as connection:
                yield connection
                self._mine.moves += _moves_of_files(connection)
                self._die_if_wanted("before")
            self._die_if_wanted("after")

        Database.write = watched  # type: ignore[method-assign, assignment]

    def _wrap_step(self) -> None:
        step = states.step
        names = {id(table): name for name, table in TABLES.items()}

        def noted(table: Any, state: Any, event: str) -> Any:
            new = step(table, state, event)
            if (name := names.get(id(table))) is not None and state.__class__ is not Fate:
                self._mine.moves.append(Row(name, state.value, event))
            return new

        for module in [m for name, m in sys.modules.items() if name.startswith("clinic_ai.")]:
            if vars(module).get("step") is step:
                module.step = noted  # type: ignore[attr-defined]

    def _die_if_wanted(self, when: str) -> None:
        if any(self.wanted(row, when) for row in self._mine.moves):
            self._last_words([(row, when) for row in dict.fromkeys(self._mine.moves)])
            os.kill(os.getpid(), signal.SIGKILL)


def _watch_files(connection: Any, _record: object) -> None:
    connection.execute("CREATE TEMP TABLE torture_moves (old TEXT, new TEXT)")
    connection.execute(_TRIGGER)


def _moves_of_files(connection: Connection) -> list[Row]:
    moves = connection.exec_driver_sql("SELECT DISTINCT old, new FROM temp.torture_moves").all()
    connection.exec_driver_sql("DELETE FROM temp.torture_moves")
    return [Row("FILE", old, _EVENT_OF[old, new]) for old, new in moves]
