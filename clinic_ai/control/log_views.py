"""What the control API answers about the log of the daemon and about the changes that the audit records."""

from __future__ import annotations

from enum import StrEnum

from clinic_ai.control.views import EventView, View


class Level(StrEnum):
    """How much an event of the log weighs, each more than the one before."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def weight(self) -> int:
        """Its place among the levels."""
        return list(Level).index(self)


_WEIGHTS = {level.value: level.weight for level in Level}
_WORKERS = frozenset({"plugin", "worker", "lane", "channel", "source", "library", "target"})
"""Fields whose value names who did it."""


class LogLineView(View):
    """One event of the log; ``seq`` counts from 1 since the daemon started, ``at`` is UTC seconds.

    ``fields`` are what was logged with it, as words. There is nothing personal in them and no content.
    """

    seq: int
    at: float
    level: str
    event: str
    fields: dict[str, str]

    @property
    def line(self) -> str:
        """All of it but the time, on one line."""
        return " ".join((self.event, *(f"{key}={value}" for key, value in self.fields.items())))

    def has(self, words: str) -> bool:
        """Return whether each of the words stands somewhere in the line, in whatever case."""
        text = f"{self.level} {self.line}".casefold()
        return all(word in text for word in words.casefold().split())

    @property
    def workers(self) -> frozenset[str]:
        """Who did it: the plugin, lane, channel or source it names, and the part that the event begins with."""
        named = {value for key, value in self.fields.items() if key in _WORKERS and value}
        return frozenset(named | {self.event.partition(".")[0]})

    def is_of(self, worker: str) -> bool:
        """Return whether a worker of this name did it, in whatever case."""
        return worker.casefold() in {name.casefold() for name in self.workers}

    def weighs(self, level: Level) -> bool:
        """Return whether it is of this level or one above; a level nobody knows is above all."""
        return _WEIGHTS.get(self.level, len(_WEIGHTS)) >= level.weight


class LogPage(View):
    """Lines of the log, oldest first.

    ``began`` (UTC seconds) tells one run of the daemon from the next, which counts its lines anew. ``last`` is the
    number of the newest line there is, asked for or not; ``missed`` how many after the one asked for are kept no more.
    """

    began: float
    last: int
    missed: int
    lines: tuple[LogLineView, ...]


class ChangesView(View):
    """Changes that the audit records, oldest first."""

    changes: tuple[EventView, ...]
