"""How tests come to the screen of the night and answer its dialogs."""

from __future__ import annotations

from typing import Any

import training_scenes as scenes
from screens import Exhibit, Script, play, screen, until
from textual.pilot import Pilot
from textual.widgets import Input

from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.card import Card
from clinic_ai.tui.screens import Choose, Confirm, Prompt
from clinic_ai.tui.table import KeyedTable


def empty(**answers: Any) -> Exhibit:
    """Return a night without plans, runs, windows or limits."""
    given = {
        "runs": (),
        "outlook": scenes.outlook(configured=False, opens_at=None, closes_at=None, expected=()),
        "spending": scenes.spending().model_copy(update={"limits": (), "rows": (), "compared": ()}),
    }
    return scenes.night(**{**given, **answers})


def drive(exhibit: Exhibit, script: Script, *, size: tuple[int, int] = (80, 24)) -> None:
    """Play a script on this screen once the first answer is drawn."""

    async def ready(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Asking the daemon" not in screen(app), "the night should be shown")
        await pilot.pause()
        await script(app, pilot)

    play(exhibit, ready, size=size, place="night")


def details(app: ClinicApp) -> str:
    return str(app.query_one("#night-facts").render())


async def choose(pilot: Pilot[None], run_id: str) -> None:
    """Put the cursor on a run."""
    table = pilot.app.query_one("#night-list", KeyedTable)
    table.move_cursor(row=table.get_row_index(run_id))
    await until(pilot, lambda: run_id in details(pilot.app), f"{run_id} should be in hand")


async def dialog(pilot: Pilot[None], kind: type[Confirm] | type[Choose] | type[Prompt] | type[Card]) -> Any:
    """Wait for a dialog of a kind and return it."""
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), f"there should be a {kind.__name__}")
    await pilot.pause()
    return pilot.app.screen


async def write(pilot: Pilot[None], words: str) -> None:
    """Write on the line of a dialog and go on."""
    prompt = await dialog(pilot, Prompt)
    prompt.query_one(Input).value = words
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen is not prompt, "the dialog should close")


async def pick(pilot: Pilot[None], number: int) -> None:
    """Choose the option of a dialog by its number from 0."""
    chooser = await dialog(pilot, Choose)
    await pilot.press(*["j"] * number, "enter")
    await until(pilot, lambda: pilot.app.screen is not chooser, "the dialog should close")
