"""``clinic-ai tui --screenshot``: every screen as a picture, for the handbook. Needs a daemon, and no terminal.

SVG is what Textual draws, with the fonts of the reader instead of one from the network; the PNG beside it is set by
typst in a child process, for nothing of the screens may load it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from clinic_ai.errors import ClinicError
from clinic_ai.home import Home
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.feed import Connect
from clinic_ai.tui.preferences import Preferences
from clinic_ai.tui.views import PLACES

ANSWER_S = 30.0
"""So long a screen may take to get its answer."""
STILL_S = 0.8
"""A screen that has not changed for this time is drawn."""
RESTLESS_S = 10.0
"""One that goes on changing is drawn after this time all the same."""
_LOOK_S = 0.2
_PNG_S = 120.0
_FONT = "'DejaVu Sans Mono', Menlo, Consolas, monospace"


def take(
    home: Home,
    folder: Path,
    size: tuple[int, int],
    *,
    monitor: bool = False,
    preferences: Preferences | None = None,
    connect: Connect | None = None,
    clock: Callable[[], float] = time.time,
) -> list[Path]:
    """Write each screen, and the help, into a folder as SVG and PNG; return the files.

    Raise ClinicError if no daemon answers, if the folder cannot be written, or if the PNGs cannot be made.
    """
    now = clock()  # it stands: a clock that goes on would make every picture another one
    app = ClinicApp(home, monitor=monitor, clock=lambda: now, connect=connect, preferences=preferences)
    drawn: dict[str, str] = {}

    async def visit(pilot: Pilot[Any]) -> None:
        for place in PLACES:
            await app.action_go(place.name)
            await _answered(app, pilot, place.name)
            drawn[place.name] = await _still(app, pilot)
        await app.action_go(PLACES[0].name)
        app.action_help()
        drawn["help"] = await _still(app, pilot)
        app.exit()

    failures: list[ClinicError] = []

    async def pilot_of(pilot: Pilot[Any]) -> None:
        try:
            await visit(pilot)
        except ClinicError as error:
            failures.append(error)
            app.exit()

    asyncio.run(app.run_async(headless=True, size=size, auto_pilot=pilot_of))
    if failures:
        raise failures[0]
    return _written(folder, drawn)


async def _answered(app: ClinicApp, pilot: Pilot[Any], name: str) -> None:
    deadline = time.monotonic() + ANSWER_S
    while app.answered != name:
        if app.lost is not None:
            raise app.lost
        if time.monotonic() > deadline:
            raise ClinicError(
                f"The screen {name} got no answer within {ANSWER_S:.0f} s.",
                remedy="Try again; see the log of the daemon.",
            )
        await pilot.pause(0.02)


async def _still(app: ClinicApp, pilot: Pilot[Any]) -> str:
    """Return the screen once it does not change any more: pictures of studies come a little later."""
    began = since = time.monotonic()
    shown = ""
    while True:
        await pilot.pause(_LOOK_S)
        seen, now = app.export_screenshot(title="clinic-ai"), time.monotonic()
        if seen != shown:
            shown, since = seen, now
        if now - since >= STILL_S or now - began >= RESTLESS_S:
            return offline(shown)


def offline(svg: str) -> str:
    """Return a picture that needs nothing from the network."""
    without = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family:[^;]*;", f"font-family: {_FONT};", without)


def _written(folder: Path, drawn: dict[str, str]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for name, svg in drawn.items():
            path = folder / f"{name}.svg"
            path.write_text(svg, encoding="utf-8")
            pictures.append(path)
    except OSError as error:
        raise ClinicError(f"{folder} cannot be written: {error.strerror}.", remedy="Choose another folder.") from error
    command = [sys.executable, "-m", "clinic_ai.workers.picture_setter", *map(str, pictures)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PNG_S)
        words = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        words = [f"it took longer than {_PNG_S:.0f} s"]
    if words:
        raise ClinicError(f"The SVG files are in {folder}; the PNG files could not be made: {words[0]}.")
    return [file for path in pictures for file in (path, path.with_suffix(".png"))]
