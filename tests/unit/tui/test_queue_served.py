"""The queue over a served control room: what arrives is seen, and what is ordered happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import NAME, SECRET, Room, control_room
from queue_stage import facts, question, ready, table
from screens import Script, screen, until
from textual.pilot import Pilot

from clinic_ai import waiting
from clinic_ai.domain import GuardAction, StudyState
from clinic_ai.store import alerts
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.screens import Confirm

NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served


def play_in(room: Room, script: Script, *, monitor: bool = False) -> None:
    """Run the app over the sockets of a room and do what the script says."""

    async def run() -> None:
        app = ClinicApp(room.home, monitor=monitor, clock=lambda: NOON)
        async with app.run_test(size=(80, 24)) as pilot:
            await script(app, pilot)

    asyncio.run(run())


def test_a_study_that_arrives_is_seen_with_its_reason_and_remedy(room: Room) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "No studies yet" in facts(app), "an empty queue should say so")
        study_id = room.add_study(state="UNROUTED", wait=waiting.no_rule())
        await until(pilot, lambda: study_id in facts(app), "the study should appear")
        await until(pilot, lambda: "route explain" in facts(app), "the remedy should appear")
        shown = screen(app)
        assert "? UNROUTED" in shown
        assert "● linked" in shown
        assert NAME not in shown

    play_in(room, script)


def test_a_held_result_is_not_called_done_and_is_not_read_here(room: Room) -> None:
    study_id = room.add_study(state="DONE", wait=waiting.held("test.rule", "Because."))
    room.add_result(study_id, GuardAction.HOLD)
    room.add_result(room.add_study(state="DONE"))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 2)
        await pilot.press("j")
        await until(pilot, lambda: "the guard said hold" in facts(app), "the verdict should be shown")
        assert "‖ HELD      hold" in screen(app)
        assert "✓ DONE      allow" in screen(app)
        assert SECRET not in screen(app)

    play_in(room, script)


def test_alerts_stand_on_top_until_acknowledged(room: Room) -> None:
    with room.database.write() as c:
        alerts.raise_alert(c, "test", "appliance", "Something happened.", "Look at it.")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "▲ Something happened. Look at it." in screen(app), "the alert should be shown")
        assert "1 alert" in screen(app)
        with room.client() as client:
            client.acknowledge(1)
        await until(pilot, lambda: "no alerts" in screen(app), "the alert should go")

    play_in(room, script)


def test_the_cursor_goes_with_a_study_to_its_next_version(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    other = room.add_study(state="DONE")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 2)
        assert other in facts(app)
        await pilot.press("j", "r")
        assert study_id in question(app)
        await pilot.press("y")
        await until(pilot, lambda: "version 2" in facts(app), "the new version should appear")
        assert study_id in facts(app)
        assert queue.cursor == 0
        with room.client() as client:
            assert client.study(study_id).versions[1].study.state == StudyState.SUPERSEDED

    play_in(room, script)


def test_a_study_still_arriving_is_closed_and_one_is_made_urgent(room: Room) -> None:
    study_id = room.add_study(state="RECEIVING", wait=waiting.receiving(30))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 1)
        await pilot.press("u", "y")
        await until(pilot, lambda: "Priority: 50" in facts(app), "the priority should be told")
        assert "› !" not in screen(app)
        assert "›!" in screen(app)
        await pilot.press("c", "y")
        await until(pilot, lambda: "CLOSED" in facts(app), "it should be closed")
        with room.client() as client:
            assert client.study(study_id).versions[0].study.priority == 50

    play_in(room, script)


def test_nothing_can_be_changed_over_the_monitor_socket(room: Room) -> None:
    room.add_study(state="DONE")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 1)
        await pilot.press("r")
        assert not isinstance(app.screen, Confirm)
        assert "read-only" in screen(app)

    play_in(room, script, monitor=True)


def test_daemon_gone_leaves_the_last_picture_under_a_banner(room: Room) -> None:
    study_id = room.add_study()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: study_id in facts(app), "the study should be shown")
        await asyncio.to_thread(room.server.stop)
        await until(pilot, lambda: "No daemon answers" in screen(app), "the banner should appear")
        assert "12:00:00" in screen(app)
        assert table(app).total == 1
        await pilot.press("r")
        assert not isinstance(app.screen, Confirm)

    play_in(room, script)


def test_screen_goes_on_when_the_daemon_is_back(tmp_path: Path) -> None:
    with control_room(tmp_path / "h") as first:
        study_id = first.add_study()
        home = first

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "No daemon answers" in screen(app), "the banner should appear")
        with control_room(tmp_path / "h"):
            await until(pilot, lambda: study_id in facts(app), "the study should be shown")
            assert not app.query_one("#banner").display

    play_in(home, script)
