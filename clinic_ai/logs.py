"""Structured logs to standard error: one line per event, never personal data.

systemd adds time and unit; ``json`` is for machines, ``console`` for people at a terminal. What libraries have to say
(warnings, their own logs, a thread of theirs that died) becomes a line too, with kind and place and without the text:
it may quote a file name or a value.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

log = structlog.get_logger(__name__)


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
