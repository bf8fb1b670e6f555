"""The screen driven by keys, over the socket of a served control room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from control_room import NAME, SECRET, Room, control_room
from textual.pilot import Pilot
from textual.widgets import Input, Static

from clinic_ai import waiting
from clinic_ai.domain import GuardAction, StudyState, WaitReason
from clinic_ai.store import alerts
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.queue import StudyTable
from clinic_ai.tui.screens import Confirm, HelpScreen
from clinic_ai.tui.views.queue import QueueView

NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
Script = Callable[[ClinicApp, Pilot[None]], Awaitable[None]]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served


def play(room: Room, script: Script, *, size: tuple[int, int] = (80, 24), monitor: bool = False) -> None:
    """Run the app without a terminal and do what the script says."""

    async def run() -> None:
        app = ClinicApp(room.home, monitor=monitor, clock=lambda: NOON)
        async with app.run_test(size=size) as pilot:
            await script(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: str) -> None:
    """Let the app work until the condition holds; the feed's thread announces nothing to wait for."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what}; the screen:\n{screen(pilot.app)}"
        await pilot.pause(0.02)


def screen(app: object) -> str:
    """Return what is on the screen, as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def facts(app: ClinicApp) -> str:
    return str(app.query_one("#facts", Static).render())


def rows(app: ClinicApp) -> int:
    return app.query_one(StudyTable).row_count


# ---------------------------------------------------------------- what is seen


def test_a_study_that_arrives_is_seen_with_its_reason_and_remedy(room: Room) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Drop a scan" in facts(app), "an empty queue should say what to do")
        study_id = room.add_study(state="UNROUTED", wait=waiting.no_rule())
        await until(pilot, lambda: study_id in facts(app), "the study should appear")
        await until(pilot, lambda: "route explain" in facts(app), "the remedy should appear")
        shown = screen(app)
        assert "? UNROUTED" in shown
        assert "● linked" in shown
        assert NAME not in shown

    play(room, script)


def test_every_reason_to_wait_stands_in_full_in_the_details(room: Room) -> None:
    reasons = [
        waiting.no_rule(),
        waiting.no_plugin("echo"),
        waiting.no_model("echo"),
        waiting.bad_model("echo", "a file is missing."),
        waiting.crashing("echo", 5, 60),
        waiting.backing_off(1, 30, "It died."),
        waiting.no_memory("echo", 900, 100),
        waiting.memory_in_use("echo", 900),
        waiting.held("rule", "Because."),
        waiting.failed("It failed."),
        waiting.undelivered("outbox", "It is full.", 30),
    ]
    reasons = [waiting.addressed(reason, room.add_study(wait=reason)) for reason in reasons]

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: rows(app) == len(reasons), "all studies should be shown")
        for reason in reversed(reasons):  # the newest is on top
            await until(pilot, lambda wanted=reason: _told(app, wanted), f"{reason.code} should be explained")
            await pilot.press("j")

    play(room, script)


def _told(app: ClinicApp, reason: WaitReason) -> bool:
    return reason.sentence in facts(app) and reason.remedy in facts(app)


def test_a_held_result_is_not_called_done_and_is_not_read_here(room: Room) -> None:
    study_id = room.add_study(state="DONE", wait=waiting.held("test.rule", "Because."))
    room.add_result(study_id, GuardAction.HOLD)
    room.add_result(room.add_study(state="DONE"))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: rows(app) == 2, "both should be shown")
        await pilot.press("j")
        await until(pilot, lambda: "the guard said hold" in facts(app), "the verdict should be shown")
        assert "‖ HELD" in screen(app)
        assert SECRET not in screen(app)

    play(room, script)


def test_alerts_stand_on_top_until_acknowledged(room: Room) -> None:
    with room.database.write() as c:
        alerts.raise_alert(c, "test", "appliance", "Something happened.", "Look at it.")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "▲ Something happened. Look at it." in screen(app), "the alert should be shown")
        assert "1 alert" in screen(app)
        with room.client() as client:
            client.acknowledge(1)
        await until(pilot, lambda: "no alerts" in screen(app), "the alert should go")

    play(room, script)


@pytest.mark.parametrize(("size", "beside"), [((80, 24), False), ((140, 40), True)])
def test_both_sizes_show_all_columns_and_the_details(room: Room, size: tuple[int, int], beside: bool) -> None:
    room.add_study(state="ROUTED", wait=waiting.no_model("echo"))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "There is no model" in facts(app), "the reason should be shown")
        await until(pilot, lambda: "What to do" in screen(app), "the remedy should fit")
        head = next(line for line in screen(app).splitlines() if "waits because" in line)
        assert all(word in head for word in ("came", "patient", "mod", "source", "state", "age"))
        table, details = app.query_one(StudyTable).region, app.query_one("#details").region
        assert (table.y == details.y) is beside

    play(room, script, size=size)


# ---------------------------------------------------------------- keys


def test_filter_narrows_and_escape_clears(room: Room) -> None:
    room.add_study(modality="MR", state="UNROUTED", wait=waiting.no_rule())
    room.add_study(modality="CT")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: rows(app) == 2, "both should be shown")
        await pilot.press("slash", *"mr rule", "enter")
        await until(pilot, lambda: rows(app) == 1, "one should be left")
        assert "mr rule (1 of 2)" in screen(app)
        await pilot.press("escape")
        await until(pilot, lambda: rows(app) == 2, "both should be back")
        assert not app.query_one("#filter", Input).display

    play(room, script)


def test_retry_asks_first_and_then_says_what_happens(room: Room) -> None:
    study_id = room.add_study(state="DONE")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: study_id in facts(app), "the study should be shown")
        await pilot.press("r")
        assert isinstance(app.screen, Confirm)
        assert study_id in app.screen.question
        await pilot.press("n")
        with room.client() as client:
            assert len(client.study(study_id).versions) == 1
        await pilot.press("r", "y")
        await until(pilot, lambda: "version 2" in facts(app), "the new version should appear")
        with room.client() as client:
            assert client.study(study_id).versions[1].study.state == StudyState.SUPERSEDED

    play(room, script)


def test_nothing_can_be_changed_over_the_monitor_socket(room: Room) -> None:
    study_id = room.add_study(state="DONE")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: study_id in facts(app), "the study should be shown")
        await pilot.press("r")
        assert not isinstance(app.screen, Confirm)
        assert "read-only" in screen(app)
        assert "Retry" not in screen(app)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert "this is the read-only socket" in " ".join(
            str(app.screen.query_one("#help Static", Static).render()).split()
        )

    play(room, script, monitor=True)


def test_help_explains_every_key_and_state(room: Room) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "linked" in screen(app), "the daemon should answer")
        await pilot.press("question_mark")
        shown = str(app.screen.query_one("#help Static", Static).render())
        assert all(state.value in shown for state in StudyState)
        assert "Show only studies with these words" in shown
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "q should close it")

    play(room, script)


# ---------------------------------------------------------------- the daemon goes


def test_daemon_gone_leaves_the_last_picture_under_a_banner(room: Room) -> None:
    study_id = room.add_study()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: study_id in facts(app), "the study should be shown")
        await asyncio.to_thread(room.server.stop)
        await until(pilot, lambda: "No daemon answers" in screen(app), "the banner should appear")
        assert "12:00:00" in screen(app)
        assert rows(app) == 1
        await pilot.press("r")
        assert not isinstance(app.screen, Confirm)

    play(room, script)


def test_screen_goes_on_when_the_daemon_is_back(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as first:
        study_id = first.add_study()
        home = first

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "No daemon answers" in screen(app), "the banner should appear")
        with control_room(tmp_path / "h"):
            await until(pilot, lambda: study_id in facts(app), "the study should be shown")
            assert not app.query_one("#banner").display

    play(home, script)


def test_nothing_is_drawn_again_while_nothing_changes(room: Room) -> None:
    room.add_study(state="DONE")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "File:" in facts(app), "the study and its details should be shown")
        await pilot.pause()
        table, details = app.query_one(StudyTable), app.query_one("#facts", Static)
        drawn = (table._update_count, details.content)
        answer = app.status
        app.query_one(QueueView).refetch()
        await until(pilot, lambda: app.status is not answer, "the feed should answer again")
        await pilot.pause()
        assert table._update_count == drawn[0]
        assert details.content is drawn[1]

    play(room, script)
