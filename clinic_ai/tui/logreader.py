"""Reads the log on: keeps what it has and asks only for what came since. Used in the feed's thread alone."""

from __future__ import annotations

from collections import deque
from heapq import merge

from clinic_ai.control.log_views import LogLineView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import EventView
from clinic_ai.tui.logpane import AUDIT

MOST_LINES = 4000
MOST_CHANGES = 1000
_ONCE = 2000
"""Lines that are asked for at once; a daemon keeps no more."""


class LogReader:
    """The lines of the log and the changes of the audit, as far as they were read and are not too old."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._last: int | None = None
        self._lines: deque[LogLineView] = deque(maxlen=MOST_LINES)
        self._change: int | None = None
        self._changes: deque[LogLineView] = deque(maxlen=MOST_CHANGES)
        self._all: tuple[LogLineView, ...] = ()

    def read(self, client: TerminalClient) -> tuple[LogLineView, ...]:
        """Return everything, oldest first; the very same object if nothing came."""
        if not self._read_log(client) | self._read_changes(client):
            return self._all
        self._all = tuple(merge(self._lines, self._changes, key=lambda line: line.at))
        return self._all

    def _read_log(self, client: TerminalClient) -> bool:
        page = client.log(after=self._last, limit=_ONCE)
        if self._began is not None and page.began != self._began:
            page = client.log(limit=_ONCE)  # another run of the daemon counts anew
            self._change = None
            self._changes.clear()
        elif page.missed:
            self._lines.append(_gap(page.missed, page.lines[0].at if page.lines else 0.0))
        self._began, self._last = page.began, page.last
        self._lines.extend(page.lines)
        return bool(page.lines)

    def _read_changes(self, client: TerminalClient) -> bool:
        found = client.changes(after=self._change, limit=MOST_CHANGES).changes
        if found:
            self._change = found[-1].seq
        self._changes.extend(map(_line_of, found))
        return bool(found)


def _line_of(change: EventView) -> LogLineView:
    return LogLineView(
        seq=change.seq, at=change.at, level=AUDIT, event=change.action, fields={"subject": change.subject}
    )


def _gap(missed: int, at: float) -> LogLineView:
    return LogLineView(
        seq=0, at=at, level="warning", event="log.missed", fields={"lines": str(missed), "why": "kept no more"}
    )
