"""The fourth screen: what it shows of the night, and what its keys ask the daemon for."""

from __future__ import annotations

from typing import Any

import pytest
import training_scenes as scenes
from screens import NOW, SIZES, Exhibit, Script, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from clinic_ai.contract import ConditionInfo, PluginManifest
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.promotion_views import ApproveOrder, PromoteOrder
from clinic_ai.control.training_views import CheckView, RunOrder
from clinic_ai.control.views import DoneView, PluginsView, Role, RunRow, TopicView
from clinic_ai.errors import Conflict
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.card import Card
from clinic_ai.tui.screens import Choose, Confirm, Prompt
from clinic_ai.tui.table import KeyedTable
from clinic_ai.tui.views.night import NightView

sized = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
DONE = DoneView(sentence="It is done.")


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
        exhibit.answers["runs"] = (further,)
        exhibit.tell(TopicView(topic="runs"))
        await until(pilot, lambda: "epoch 8 of 20" in details(app), "the new epoch should be shown")

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


# ---------------------------------------------------------------- what is asked for


def test_stop_asks_and_names_the_run() -> None:
    exhibit = scenes.night(stop_run=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("x")
        asked = await dialog(pilot, Confirm)
        assert scenes.AT_WORK in asked.question
        await pilot.press("n")
        assert exhibit.sent("stop_run") == []
        await pilot.press("x", "y")
        await until(pilot, lambda: bool(exhibit.sent("stop_run")), "it should be sent")

    drive(exhibit, script)
    assert exhibit.sent("stop_run") == [((scenes.AT_WORK,), {})]


def test_space_pauses_and_goes_on() -> None:
    paused = scenes.running(state="PAUSED", pause_code="person", error="A person paused it.")
    exhibit = scenes.night(pause_run=DONE, resume_run=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        await until(pilot, lambda: bool(exhibit.sent("pause_run")), "it should be paused")
        exhibit.answers["runs"] = (paused,)
        app.query_one(NightView).refetch()
        await until(pilot, lambda: "It waits for a person" in details(app), "it should say so")
        await pilot.press("space")
        await pick(pilot, 1)
        await until(pilot, lambda: bool(exhibit.sent("resume_run")), "it should go on")

    drive(exhibit, script)
    assert exhibit.sent("pause_run") == [((scenes.AT_WORK,), {})]
    assert exhibit.sent("resume_run") == [((scenes.AT_WORK,), {"at_once": True})]


@pytest.mark.parametrize("opens_at", [None, NOW + 3600])
def test_without_a_window_to_wait_for_a_run_goes_on_without_a_question(opens_at: float | None) -> None:
    open_now = (
        scenes.outlook(opens_at=None) if opens_at is None else scenes.outlook(configured=False, opens_at=opens_at)
    )
    failed: RunRow = scenes.failed()
    exhibit = scenes.night(failed, outlook=open_now, resume_run=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.LOST)
        await pilot.press("space")
        await until(pilot, lambda: bool(exhibit.sent("resume_run")), "it should go on")

    drive(exhibit, script)
    assert exhibit.sent("resume_run") == [((scenes.LOST,), {"at_once": False})]


def test_a_refusal_is_said_with_its_remedy() -> None:
    exhibit = scenes.night(pause_run=Conflict("The run is finished.", remedy="Look at what it made."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        await until(
            pilot,
            lambda: any("Look at what it made." in each.message for each in app._notifications),
            "it should be said",
        )

    drive(exhibit, script)


LEARNERS = PluginsView(
    plugins=(
        PluginManifest(name="echo", version="1", summary="Says what it got.", engine="a:B"),
        PluginManifest(
            name="xray",
            version="1",
            summary="Chest X-rays",
            engine="a:B",
            trainer="a:C",
            conditions=(ConditionInfo(code="pneumonia", label="Pneumonia"),),
        ),
    ),
    problems=(),
)


def checked(*problems: str) -> CheckView:
    return CheckView(
        directory="/srv/chest",
        images=412,
        pairs=0,
        patients={"train": 300, "validation": 60, "test": 52},
        parts=("train: 120 with pneumonia, 180 without",),
        questions=(),
        notes=(),
        problems=problems,
    )


def test_a_run_is_started_from_a_folder_after_its_labels_were_looked_at() -> None:
    exhibit = scenes.night(plugins=LEARNERS, check_labels=checked(), start_run=scenes.waiting())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        plugins = await dialog(pilot, Choose)
        assert "echo" not in str(plugins._options)
        await pick(pilot, 0)
        await pick(pilot, 1)
        await write(pilot, "/srv/chest")
        await write(pilot, "condition=pneumonia epochs=5 rate=0.1")
        await pick(pilot, 1)
        asked = await dialog(pilot, Confirm)
        assert "412 labelled images; patients: train 300, validation 60, test 52." in asked.question
        assert exhibit.sent("start_run") == []
        await pilot.press("y")
        await until(pilot, lambda: bool(exhibit.sent("start_run")), "it should be sent")

    drive(exhibit, script)
    [((order,), _)] = exhibit.sent("start_run")
    assert order == RunOrder(
        plugin="xray",
        dataset="/srv/chest",
        sources=("labels",),
        recipe={"condition": "pneumonia", "epochs": 5, "rate": 0.1},
        at_once=True,
    )


def test_labels_with_problems_start_nothing_and_the_problems_are_shown() -> None:
    exhibit = scenes.night(plugins=LEARNERS, check_labels=checked("Line 7 of labels.csv names no file."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await pick(pilot, 0)
        await pick(pilot, 2)
        await write(pilot, "")
        await pick(pilot, 0)
        card = await dialog(pilot, Card)
        assert "Line 7 of labels.csv names no file." in card.words.plain
        assert "Nothing is started" in card.words.plain

    drive(exhibit, script)
    [((order,), _)] = exhibit.sent("check_labels")
    assert (order.plugin, order.dataset, order.sources) == ("xray", None, ("reviews",))
    assert exhibit.sent("start_run") == []


@pytest.mark.parametrize(("folder", "recipe"), [("chest", None), ("/srv/chest", "epochs")])
def test_what_is_not_understood_starts_nothing(folder: str, recipe: str | None) -> None:
    exhibit = scenes.night(plugins=LEARNERS)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await pick(pilot, 0)
        await pick(pilot, 1)
        await write(pilot, folder)
        if recipe is not None:
            await write(pilot, recipe)
        await until(pilot, lambda: app.screen is app.screen_stack[0], "the questions should end")
        assert any("such as" in each.message for each in app._notifications)

    drive(exhibit, script)
    assert exhibit.sent("check_labels") == []


def test_estimates_are_asked_for_and_shown() -> None:
    estimate = scenes.outlook().expected[1].estimate
    told = scenes.outlook(
        expected=tuple(
            each.model_copy(update={"estimate": estimate, "untold": ""}) if each.name == "xray effusion" else each
            for each in scenes.outlook().expected
        )
    )
    exhibit = scenes.night(tonight=told)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        table = app.query_one("#night-list", KeyedTable)
        table.move_cursor(row=table.get_row_index("plan:xray effusion"))
        await until(pilot, lambda: "(e asks its trainer)" in details(app), "it should say how to ask")
        await pilot.press("e")
        await until(pilot, lambda: "for 4,200 steps" in details(app), "the estimate should be shown")

    drive(exhibit, script)


def test_roll_back_names_what_is_active_afterwards() -> None:
    exhibit = scenes.night(rollback_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.DONE)
        await pilot.press("b")
        asked = await dialog(pilot, Confirm)
        assert "chest-fast 1.0 is retired, and chest-fast 0.9 is active" in asked.question
        await pilot.press("y")
        await until(pilot, lambda: bool(exhibit.sent("rollback_model")), "it should be sent")

    drive(exhibit, script)
    assert exhibit.sent("rollback_model") == [(("xray", "pneumonia_fast", "chest-fast 1.0"), {})]


def test_promotion_names_what_it_takes_the_place_of() -> None:
    exhibit = scenes.night(promote_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(pilot, scenes.DONE)
        await pilot.press("m")
        asked = await dialog(pilot, Confirm)
        assert "It takes the place of chest-fast 1.0. Nobody has approved it yet." in asked.question
        await pilot.press("y")
        await until(pilot, lambda: bool(exhibit.sent("promote_model")), "it should be sent")

    drive(exhibit, script)
    [((order,), _)] = exhibit.sent("promote_model")
    assert order == PromoteOrder(plugin="xray", name="chest-fast", version=scenes.CANDIDATE)


def test_a_run_that_made_nothing_has_no_keys_to_decide_with() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        assert "Approve" not in screen(app)
        await pilot.press("a", "m", "b")
        assert app.screen is app.screen_stack[0]
        await choose(pilot, scenes.DONE)
        await shows(pilot, "Approve")

    drive(scenes.night(), script)


def test_the_ledger_shows_what_was_spent() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("l")
        card = await dialog(pilot, Card)
        assert "Night of 2026-11-21: 1 h 6 min, 1.24 kWh" in card.words.plain
        assert "may not begin" in card.words.plain
        await pilot.press("escape")
        assert app.screen is app.screen_stack[0]

    drive(scenes.night(), script)


@pytest.mark.parametrize(
    ("identifiable", "verdict"), [(True, "✓ The curve tells its law."), (False, "? The curve does not tell")]
)
def test_a_forecast_begins_with_its_verdict(identifiable: bool, verdict: str) -> None:
    exhibit = scenes.night(forecast_run=scenes.forecast(identifiable=identifiable))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        card = await dialog(pilot, Card)
        assert card.words.plain.startswith(verdict)
        assert ("0.280 (95 %: 0.250 to 0.310)" in card.words.plain) is identifiable
        assert ("The curve has 7 points" in card.words.plain) is not identifiable
        assert "Twice the data: " in card.words.plain
        room = card.query_one("#card-words").size.width
        assert max(map(len, (row for row in card.words.plain.splitlines() if "┤" in row or "└" in row))) <= room

    drive(exhibit, script)
    [((run_id, _), _)] = exhibit.sent("forecast_run")
    assert run_id == scenes.AT_WORK
