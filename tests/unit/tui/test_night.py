"""The fourth screen: what it shows of the night, and what its keys ask the daemon for."""

from __future__ import annotations

import pytest
import training_scenes as scenes
from night_stage import choose, details, drive, empty, write
from screens import NOW, SIZES, picture, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.promotion_views import ApproveOrder
from clinic_ai.control.views import DoneView, Role, TopicView
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.table import KeyedTable
from clinic_ai.tui.views.night import NightView

sized = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
DONE = DoneView(sentence="It is done.")


# ---------------------------------------------------------------- pictures


@sized
def test_an_empty_night(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(empty(), "night", "Nothing is planned", size=size) == pictures


@sized
def test_a_busy_night(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    async def settled(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step loss" in details(app), "the curves should be drawn")
        app.query_one(NightView).tick(NOW)
        await pilot.pause()

    assert picture(scenes.night(), "night", "20 epochs", size=size, after=settled) == pictures


@sized
def test_a_candidate_that_was_refused(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    async def chosen(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step loss" in details(app), "the run should be shown")
        await choose(pilot, scenes.DONE)
        await until(pilot, lambda: "Who decided" in details(app), "its record should be there")

    assert picture(scenes.night(), "night", "did not pass", size=size, after=chosen) == pictures


@sized
def test_the_daemon_is_lost(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = scenes.night()

    async def lost(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step loss" in details(app), "the run should be shown")
        exhibit.answers["status"] = NoDaemon("No daemon answers at /nowhere.", remedy="Start it with `clinic-ai run`.")
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "No daemon answers")
        app.query_one(NightView).tick(NOW)
        await pilot.pause()

    assert picture(exhibit, "night", "No daemon answers", size=size, after=lost) == pictures


# ---------------------------------------------------------------- what is seen


def test_a_run_at_work_tells_all_of_itself() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        shown = details(app)
        for words in ("▶ RUNNING", "epoch 7 of 20", "1 h 58 min left", "71 °C", "142 W", "3,412 MiB", "0.3127"):
            assert words in shown
        await until(pilot, lambda: "validation AUROC" in details(app), "the curves should be drawn")
        assert "⣿" in details(app)
        assert "So far: 1 h 6 min of 3 h 10 min planned" in details(app)
        assert "may not begin: The processor has 88 °C" in details(app)

    drive(scenes.night(), script, size=(140, 40))


def test_time_goes_on_without_asking_again() -> None:
    exhibit = scenes.night()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step loss" in details(app), "the curves should be drawn")
        assert "in 10 h;" in screen(app)
        asked = len(exhibit.calls)
        app.clock = lambda: NOW + 3600
        app.query_one(NightView).tick(NOW + 3600)
        await pilot.pause()
        assert "in 9 h;" in screen(app)
        assert "58 min left" in details(app)
        assert "1 h 58 min left" not in details(app)
        assert len(exhibit.calls) == asked

    drive(exhibit, script)


def test_nothing_is_drawn_again_while_nothing_changes() -> None:
    exhibit = scenes.night()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step loss" in details(app), "the curves should be drawn")
        view, table = app.query_one(NightView), app.query_one("#night-list", KeyedTable)
        view.tick(NOW)
        await pilot.pause()
        drawn = (table._update_count, app.query_one("#night-facts").content, app.query_one("#night-top").content)
        asked = len(exhibit.sent("runs"))
        view.refetch()
        await until(pilot, lambda: len(exhibit.sent("runs")) > asked, "the feed should ask again")
        view.refetch()  # it asks a second time only after it told the first answer
        await until(pilot, lambda: len(exhibit.sent("runs")) > asked + 1, "the feed should have asked twice again")
        await pilot.pause()
        assert table._update_count == drawn[0]
        assert app.query_one("#night-facts").content is drawn[1]
        assert app.query_one("#night-top").content is drawn[2]

    drive(exhibit, script)


def test_a_step_of_the_training_is_seen_without_polling() -> None:
    exhibit = scenes.night()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        further = scenes.running().model_copy(update={"progress": {**scenes.running().progress, "epoch": 8}})
        status = exhibit.answers["status"]
        living = tuple(further if run.run_id == further.run_id else run for run in status.runs)
        exhibit.answers["status"] = status.model_copy(update={"runs": living})
        exhibit.tell(TopicView(topic="runs"))
        await until(pilot, lambda: "epoch 8 of 20" in details(app), "the new epoch should be shown")
        # Only its curves were asked for: the night may have hundreds of runs, and a step is told twice a second.
        assert len(exhibit.sent("run_history")) == len(exhibit.sent("runs")) + 1

    drive(exhibit, script)


def test_a_run_that_ended_between_two_steps_is_fetched_with_all() -> None:
    exhibit = scenes.night()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        exhibit.answers["runs"] = (scenes.running().model_copy(update={"state": "STOPPED"}),)
        exhibit.answers["status"] = exhibit.answers["status"].model_copy(update={"runs": ()})
        exhibit.tell(TopicView(topic="runs"))
        await until(pilot, lambda: len(exhibit.sent("runs")) > 1, "all of the night should be asked for again")
        await until(pilot, lambda: "stopped" in details(app).lower(), "the end should be shown")

    drive(exhibit, script)


@pytest.mark.parametrize("name", ["xray effusion", "xray pneumonia"])
def test_each_plan_says_why_or_why_not_and_what_to_do(name: str) -> None:
    expected = next(each for each in scenes.outlook().expected if each.name == name)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        table = app.query_one("#night-list", KeyedTable)
        table.move_cursor(row=table.get_row_index(f"plan:{name}"))
        await until(pilot, lambda: expected.sentence in details(app), "the reason should be shown")
        assert expected.remedy in details(app)
        assert ("It is trained" if expected.due else "It is not trained") in details(app)

    drive(scenes.night(), script)


def test_a_run_that_waits_says_why_and_what_it_will_take() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.LATER)
        shown = details(app)
        assert "No training window is open" in shown
        assert "It goes on by itself" in shown
        assert "about 2 h 38 min for 4,200 steps, 0.42 kWh, 0.061 PF-days, 0.13 EUR" in shown
        assert "learned from 3 earlier runs" in shown

    drive(scenes.night(), script)


def test_budgets_say_in_numbers_what_the_bars_show() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        top = str(app.query_one("#night-top").render())
        assert "62 %  1.24 of 2" in top
        assert "91 %! 4.55 of 5" in top
        assert "11.84, no limit" in top
        assert "█" in top

    drive(scenes.night(), script)


def test_a_technician_sees_the_night_but_not_what_stands_behind_a_candidate() -> None:
    exhibit = scenes.night(role=Role.TECHNICIAN)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.DONE)
        await until(pilot, lambda: "a clinician or an administrator can see" in details(app), "it should say so")
        assert exhibit.sent("model_record") == []
        for key in ("n", "space", "x", "a", "m", "b", "e"):
            await pilot.press(key)
        assert app.screen is app.screen_stack[0]

    drive(exhibit, script)
    assert {name for name, _, _ in exhibit.calls} <= {"runs", "outlook", "spending", "run_history", "queue"}


def test_a_clinician_approves_and_changes_nothing_else() -> None:
    exhibit = scenes.night(role=Role.CLINICIAN, approve_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.DONE)
        await pilot.press("m", "b", "x", "n")
        assert app.screen is app.screen_stack[0]
        await pilot.press("a")
        await write(pilot, "Dr. Ada Stern")
        await write(pilot, "Women were looked at one by one.")
        await until(pilot, lambda: bool(exhibit.sent("approve_model")), "it should be sent")

    drive(exhibit, script)
    [((order,), _)] = exhibit.sent("approve_model")
    assert order == ApproveOrder(
        plugin="xray",
        name="chest-fast",
        version=scenes.CANDIDATE,
        reviewer="Dr. Ada Stern",
        reason="Women were looked at one by one.",
    )


def test_on_the_monitor_socket_every_changing_key_is_gone() -> None:
    exhibit = scenes.night(may_change=False)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        for key in ("n", "space", "x", "e"):
            await pilot.press(key)
        await choose(pilot, scenes.DONE)
        await pilot.press("a", "m", "b")
        assert app.screen is app.screen_stack[0]
        assert "New run" not in screen(app)

    drive(exhibit, script)
