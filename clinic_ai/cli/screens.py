"""What ``clinic-ai tui`` does: opens the screens, prints their keys, or takes their pictures."""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from clinic_ai.home import Home

_SIZE = re.compile(r"(\d{2,3})x(\d{2,3})")
SMALLEST = (80, 24)


def show(home: Home, *, monitor: bool) -> None:
    """Open the screens on this terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("The terminal screen needs a terminal; `clinic-ai status` is for scripts.")
    if not _takes_signs(sys.stderr):
        raise typer.BadParameter(
            f"The terminal screen needs UTF-8, and this terminal is said to take {sys.stderr.encoding}."
            " Set LANG=C.UTF-8; `clinic-ai status --watch` needs no such thing."
        )
    from clinic_ai.tui.app import ClinicApp
    from clinic_ai.tui.preferences import preferences_path, read_preferences

    app = ClinicApp(home, monitor=monitor, preferences=read_preferences(preferences_path()))
    app.run()
    if app.return_code:
        raise typer.Exit(app.return_code)


def _takes_signs(stream: TextIO) -> bool:
    """Return whether frames, signs and foreign letters can be written to a stream as they are."""
    return codecs.lookup(stream.encoding).name == "utf-8"


def print_keys() -> None:
    """Print every key with its id, as this person has them, and what of their file cannot be."""
    from clinic_ai.cli.output import say, table
    from clinic_ai.tui.keys import listing, settled
    from clinic_ai.tui.preferences import first_few, preferences_path, read_preferences

    path = preferences_path()
    preferences = read_preferences(path)
    keys, problems = settled(preferences.keys)
    table(("id", "keys", "what it does"), listing(keys), empty="")
    say()
    say(f'Other keys: write lines such as "queue.retry" = "ctrl+r" below [keys] in {path}.')
    for problem in first_few([*preferences.problems, *(f"{path}: {problem}" for problem in problems)]):
        say(problem)


def take_pictures(home: Home, folder: Path, size: str, *, monitor: bool) -> None:
    """Write every screen of the daemon of a home into a folder. Raise NoDaemon if none answers."""
    from clinic_ai.cli.output import say
    from clinic_ai.tui.pictures import take
    from clinic_ai.tui.preferences import preferences_path, read_preferences

    found = _SIZE.fullmatch(size)
    columns, rows = (int(found[1]), int(found[2])) if found else (0, 0)
    if columns < SMALLEST[0] or rows < SMALLEST[1]:
        raise typer.BadParameter("The size is columns x rows, at least 80x24; for example 140x40.")
    preferences = read_preferences(preferences_path())
    for path in take(home, folder, (columns, rows), monitor=monitor, preferences=preferences):
        say(str(path))
