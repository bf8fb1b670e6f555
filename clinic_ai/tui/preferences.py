"""What one person wants of the screens: ``$XDG_CONFIG_HOME/clinic-ai/terminal.toml``.

    theme = "safe-light"

    [keys]
    "queue.retry" = "ctrl+r"

A mistake in it is told in a sentence and keeps nobody from working.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinic_ai.tui.looks import DEFAULT, LOOKS

MAX_BYTES = 16 * 1024
"""Each of some hundred keys can be named in less; a larger file would keep the screens from opening."""
MAX_PROBLEMS = 5
"""Mistakes that are told one by one; how many more there are is a sentence."""
_LONGEST = 400
_DEEPEST = 4
"""Tables in one another: ids have two or three parts."""


@dataclass(frozen=True)
class Preferences:
    """A theme, keys by the id of what they do, and what of the file is not understood."""

    theme: str = DEFAULT
    keys: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def preferences_path() -> Path:
    """Return where this person's file is, or would be."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(given) if given.startswith("/") else Path("~/.config").expanduser()
    return folder / "clinic-ai" / "terminal.toml"


def read_preferences(path: Path) -> Preferences:
    """Return what a file says; nothing if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Preferences(problems=(f"{path} is left aside, for it is no file.",))  # a pipe would be waited for
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Preferences()
    except OSError as error:
        return Preferences(problems=(f"{path} cannot be read: {error.strerror}.",))
    if len(content) > MAX_BYTES:
        return Preferences(problems=(f"{path} is larger than {MAX_BYTES} bytes and is left aside.",))
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        deep = isinstance(error, RecursionError)
        why = "things lie too deep in one another in it" if deep else f"it is no TOML: {error}"
        return Preferences(problems=(f"{path} is left aside, for {why}.",))
    return _understood(table, path)


def _understood(table: dict[str, object], path: Path) -> Preferences:
    problems = [
        f"{path}: {name} is not known; there are theme and [keys]." for name in table if name not in {"theme", "keys"}
    ]
    theme = table.get("theme", DEFAULT)
    if not isinstance(theme, str) or theme not in LOOKS:
        problems.append(f"{path}: there is no theme {theme!r}; choose one of {', '.join(LOOKS)}.")
        theme = DEFAULT
    given = table.get("keys", {})
    if not isinstance(given, dict):
        problems.append(f'{path}: keys has to be a table: [keys], and below it lines such as "queue.retry" = "ctrl+r".')
        given = {}
    keys: dict[str, str] = {}
    for name, key in _flat(given):
        if isinstance(key, str):
            keys[name] = key
        else:
            problems.append(f'{path}: {name} has to be the name of a key in quotation marks, such as "ctrl+r".')
    return Preferences(theme, keys, tuple(problems))


def first_few(problems: Sequence[str]) -> list[str]:
    """Return so many sentences about mistakes as a person reads, and how many more there are."""
    told = [problem if len(problem) <= _LONGEST else f"{problem[: _LONGEST - 1]}…" for problem in problems]
    more = len(told) - MAX_PROBLEMS
    return told if more <= 1 else [*told[:MAX_PROBLEMS], f"There are {more} more mistakes like these."]


def _flat(table: Mapping[str, object], before: str = "", depth: int = 1) -> list[tuple[str, object]]:
    """Return names and values; ``queue.retry`` without quotation marks is a table in TOML, and means the same."""
    rows: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            rows += _flat(value, f"{before}{name}.", depth + 1)
        else:
            rows.append((f"{before}{name}", value))
    return rows
