"""Structured logs to standard error: one line per event, never personal data.

systemd adds time and unit; ``json`` is for machines, ``console`` for people at a terminal. The newest lines are kept in
memory too, for whoever looks at them through the control room. What libraries have to say
(warnings, their own logs, a thread of theirs that died) becomes a line too, with kind and place and without the text:
it may quote a file name or a value.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = structlog.get_logger(__name__)

KEPT_LINES = 2000
KEPT_BYTES = 1 << 20
MAX_VALUE = 2000
"""Characters of one value that are kept; standard error has all of it."""


@dataclass(frozen=True)
class LogLine:
    """One event as it was logged. ``seq`` counts from 1, ``at`` is UTC seconds, ``fields`` are the rest as words."""

    seq: int
    at: float
    level: str
    event: str
    fields: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return 200 + len(self.event) + sum(50 + len(key) + len(value) for key, value in self.fields.items())


class Recent:
    """The newest lines of this process, at most so many and so many bytes; any thread may ask.

    ``began`` tells one life of it from the next: the numbers of its lines begin anew with each.
    """

    def __init__(self, *, lines: int = KEPT_LINES, size_bytes: int = KEPT_BYTES) -> None:
        self.began = time.time()
        self._most = lines
        self._most_bytes = size_bytes
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self._last = 0
        self._lock = threading.Lock()
        self._on_line: Callable[[], None] = lambda: None

    def watch(self, on_line: Callable[[], None]) -> None:
        """Call this after each line from now on, in the thread that logs it; it must not log."""
        self._on_line = on_line

    def add(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Keep a line; the oldest go if there are too many."""
        said = {key: _words(value) for key, value in fields.items()}
        with self._lock:
            self._last += 1
            line = LogLine(self._last, time.time(), level, event[:MAX_VALUE], said)
            self._lines.append(line)
            self._bytes += line.size_bytes
            while len(self._lines) > self._most or (self._bytes > self._most_bytes and len(self._lines) > 1):
                self._bytes -= self._lines.popleft().size_bytes
        self._on_line()

    def lines(self) -> tuple[LogLine, ...]:
        """Return what is kept, oldest first."""
        with self._lock:
            return tuple(self._lines)

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep an event on its way to standard error: a processor of structlog."""
        rest = {key: value for key, value in event.items() if key not in {"event", "level", "timestamp"}}
        self.add(str(event.get("level", method)), str(event.get("event", "")), rest)
        return event


RECENT = Recent()
"""The lines of this process: structlog is one for the process as well."""


def _words(value: object) -> str:
    words = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return words if len(words) <= MAX_VALUE else words[: MAX_VALUE - 1] + "…"


def configure(level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"]) -> None:
    """Set up logging for this process; may be called again after settings were reloaded."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            RECENT,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # Standard error as it is when something is logged: tests, and whoever redirects it, put another in its place.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    warnings.showwarning = _library_warned
    threading.excepthook = _thread_died
    root = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))


@contextmanager
def only_errors() -> Iterator[None]:
    """Log errors alone, to standard error, while somebody looks at what a command prints."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _library_warned(
    message: Warning | str,  # noqa: ARG001 - it may quote what it warns about
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    log.info("library.warned", kind=category.__name__, at=_place(filename, lineno))


def _thread_died(what: threading.ExceptHookArgs) -> None:
    log.error("thread.died", kind=what.exc_type.__name__, at=_places(what.exc_traceback))


class _Libraries(logging.Handler):
    """Tells which library logged something of weight, and where, and not what."""

    def emit(self, record: logging.LogRecord) -> None:
        kind, _, trace = record.exc_info or (None, None, None)
        log.warning(
            "library.logged",
            library=record.name,
            kind=kind.__name__ if kind else record.levelname.lower(),
            at=_places(trace) or _place(record.pathname, record.lineno),
        )


def _places(trace: TracebackType | None) -> list[str]:
    return [_place(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(trace)[-3:]]


def _place(filename: str, line: int) -> str:
    return f"{Path(filename).name}:{line}"
