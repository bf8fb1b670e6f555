"""What commands print: plain tables of at most 80 columns for people, JSON for machines; and the exit codes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from clinic_ai.errors import ClinicError, Conflict, HomeError, NotAllowed, NotFound, SettingsError

if TYPE_CHECKING:
    from clinic_ai.control.views import DoneView

WIDTH = 80
_GAP = "  "
_WIDTHS = {"W": 2, "F": 2}
_STYLES = {"bad": "31", "good": "32", "wait": "33", "strong": "1", "faint": "2"}


class Exit(IntEnum):
    """Exit codes; 2 is typer's own for a wrong use of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    UNUSABLE = 7
    HELD = 8
    """The guard keeps back what was asked for."""


def exit_code(error: ClinicError) -> Exit:
    """Return the exit code of an error."""
    from clinic_ai.control.client import NoDaemon

    codes: tuple[tuple[type[ClinicError], Exit], ...] = (
        (NoDaemon, Exit.NO_DAEMON),
        (NotAllowed, Exit.NOT_ALLOWED),
        (NotFound, Exit.NOT_FOUND),
        (Conflict, Exit.CONFLICT),
        (HomeError, Exit.UNUSABLE),
        (SettingsError, Exit.UNUSABLE),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), Exit.FAILED)


def report(error: ClinicError, *, as_json: bool) -> int:
    """Tell an error to whoever called; return the exit code."""
    code = exit_code(error)
    problems = error.problems if isinstance(error, SettingsError) else ()
    if as_json:
        body = {"error": type(error).__name__, "sentence": error.message, "remedy": error.remedy, "exit": int(code)}
        print_json(body | ({"problems": list(problems)} if problems else {}))
        return code
    lines = problems or error.message.splitlines()
    for line in lines:
        sys.stderr.write(_fill(line) + "\n")
    if error.remedy:
        sys.stderr.write(_fill(error.remedy, indent="  ") + "\n")
    return code


# ---------------------------------------------------------------- printing


def say(text: str = "") -> None:
    """Print one paragraph, wrapped."""
    sys.stdout.write(_fill(text) + "\n")


def say_raw(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text + "\n")


def print_json(value: object) -> None:
    """Print views, words or plain values as JSON."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def print_done(done: DoneView, *, as_json: bool) -> None:
    """Print the sentence about a change."""
    if as_json:
        print_json(done)
    else:
        say(done.sentence)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def styled(text: str, style: str) -> str:
    """Colour a text if this is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str,
    wide: int = -1,
    style: Callable[[Sequence[str]], str] | None = None,
) -> None:
    """Print a table; the column ``wide`` takes what is left of the width and wraps. ``style`` colours a row."""
    body = [list(map(clean, row)) for row in rows]
    if not body:
        say(empty)
        return
    wide %= len(headers)
    widths = [max(columns(line[i]) for line in [list(headers), *body]) for i in range(len(headers))]
    others = sum(width for i, width in enumerate(widths) if i != wide) + len(_GAP) * (len(headers) - 1)
    widths[wide] = max(min(widths[wide], terminal_width() - others), 16)
    say_raw(styled(_line(headers, widths), "strong"))
    for row in body:
        pieces = textwrap.wrap(row[wide], widths[wide]) or [""]
        for number, piece in enumerate(pieces):
            cells = [piece if i == wide else (cell if number == 0 else "") for i, cell in enumerate(row)]
            line = _line(cells, widths)
            say_raw(styled(line, style(row)) if style else line)


def fields(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, the values aligned and wrapped."""
    body = [(name, clean(value)) for name, value in rows if value]
    width = max((len(name) for name, _ in body), default=0)
    for name, value in body:
        pieces = textwrap.wrap(value, max(terminal_width() - width - len(_GAP), 20)) or [""]
        say_raw(f"{styled(name.ljust(width), 'faint')}{_GAP}{pieces[0]}")
        for piece in pieces[1:]:
            say_raw(f"{' ' * width}{_GAP}{piece}")


def terminal_width() -> int:
    """Return the columns to use: those of the terminal, 80 where there is none."""
    return min(shutil.get_terminal_size((WIDTH, 24)).columns, 120)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell + " " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()


def columns(text: str) -> int:
    """Return how many columns of a terminal a clean text takes: letters of Chinese and Japanese two, marks none."""
    if text.isascii():
        return len(text)
    return sum(_WIDTHS.get(unicodedata.east_asian_width(c), 1) for c in text if not unicodedata.combining(c))


def clean(text: str) -> str:
    """Return a text as one line that steers no terminal."""
    # File names come from outside: a control character could move the cursor of whoever looks.
    return "".join(character if character.isprintable() else "�" for character in text.replace("\n", " "))


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        clean(text),
        terminal_width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,  # a path broken in two can be neither read nor copied
    )


# ---------------------------------------------------------------- words


def age(seconds: float) -> str:
    """Return a length of time in one unit, such as ``3 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def moment(at: float | None) -> str:
    """Return a time of this machine's clock, such as ``2026-11-21 14:03:07``."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: float) -> str:
    """Return a number of bytes in one unit, such as ``12 MB``."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count:.0f} B"
