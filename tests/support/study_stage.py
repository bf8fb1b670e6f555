"""How tests come to the screen of one study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from made_study import STUDY, made_study
from screens import Exhibit, play, shows, still, until
from textual.pilot import Pilot

from clinic_ai.control.views import VersionView
from clinic_ai.tui.app import ClinicApp


def visit(
    exhibit: Exhibit,
    script: Any,
    *,
    size: tuple[int, int] = (80, 24),
    keys: Sequence[str] = (),
    wait: str = "NOT FOR DIAGNOSIS",
) -> None:
    """Open the study, press keys once ``wait`` is shown, and do what the script says."""

    async def run(app: ClinicApp, pilot: Pilot[None]) -> None:
        await app.open_study(STUDY)
        await shows(pilot, wait)
        for key in keys:
            await pilot.press(key)
        await script(app, pilot)

    play(exhibit, run, size=size)


def taken(exhibit: Exhibit, words: str, **how: Any) -> str:
    """Return the screen as text once the words stand on it."""
    seen = ""

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        nonlocal seen
        await shows(pilot, words)
        seen = await still(pilot)

    visit(exhibit, script, **how)
    return seen


async def tells(pilot: Pilot[None], words: str) -> None:
    """Wait until a notice with these words was given; they are not drawn in tests."""
    notices = pilot.app._notifications
    await until(pilot, lambda: any(words in notice.message for notice in notices), f"the notice {words!r}")


def newest_version(**changes: Any) -> VersionView:
    """Return the newest version of the study with these changes."""
    return made_study().versions[0].model_copy(update=changes)
