"""What tests of the queue look at and wait for."""

from __future__ import annotations

from screens import until
from textual.pilot import Pilot
from textual.widgets import Static

from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.queue import StudyTable
from clinic_ai.tui.screens import Confirm


def facts(app: ClinicApp) -> str:
    """Return the details, on one line."""
    return " ".join(str(app.query_one("#facts", Static).render()).split())


def table(app: ClinicApp) -> StudyTable:
    return app.query_one(StudyTable)


async def ready(pilot: Pilot[None], total: int) -> StudyTable:
    """Wait until the queue is there with the details of its first study."""
    app = pilot.app
    assert isinstance(app, ClinicApp)
    await until(pilot, lambda: table(app).total == total and bool(facts(app)), f"{total} studies should be shown")
    return table(app)


async def notified(pilot: Pilot[None], words: str) -> None:
    """Wait until the words are said at the edge of the screen."""
    app = pilot.app
    await until(pilot, lambda: any(words in said.message for said in app._notifications), f"{words!r} should be said")


def question(app: ClinicApp) -> str:
    assert isinstance(app.screen, Confirm)
    return app.screen.question
