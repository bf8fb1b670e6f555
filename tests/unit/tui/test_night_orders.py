"""The keys of the night: what each asks, what it sends, and what comes of a refusal."""

from __future__ import annotations

import pytest
import training_scenes as scenes
from night_stage import choose, details, dialog, drive, pick, write
from screens import NOW, screen, shows, until
from textual.pilot import Pilot

from clinic_ai.contract import ConditionInfo, PluginManifest
from clinic_ai.control.promotion_views import PromoteOrder
from clinic_ai.control.training_views import CheckView, RunOrder
from clinic_ai.control.views import DoneView, PluginsView, RunRow
from clinic_ai.errors import Conflict
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.card import Card
from clinic_ai.tui.screens import Choose, Confirm
from clinic_ai.tui.table import KeyedTable
from clinic_ai.tui.views.night import NightView

DONE = DoneView(sentence="It is done.")


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
