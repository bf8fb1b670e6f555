"""The eighth screen: what it shows of the models, and what its keys ask the daemon for."""

from __future__ import annotations

from typing import Any

import pytest
import training_scenes as scenes
from screens import SIZES, Exhibit, Script, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder
from clinic_ai.control.shelf_views import ShelfView
from clinic_ai.control.views import DoneView, Role, TopicView, VerifyView
from clinic_ai.errors import Conflict
from clinic_ai.promoting import CanaryResult
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.card import Card
from clinic_ai.tui.screens import Choose, Confirm, Prompt
from clinic_ai.tui.table import KeyedTable

sized = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
DONE = DoneView(sentence="It is done.")
IN_USE, CANDIDATE, RETIRED = "xray/chest-fast/1.0", f"xray/chest-fast/{scenes.CANDIDATE}", "xray/chest-fast/0.9"
REFERENCE = "xray/effusion-reference/1.0"
NAMES = ("xray", "chest-fast", scenes.CANDIDATE)


def drive(exhibit: Exhibit, key: str, script: Script, *, size: tuple[int, int] = (80, 24)) -> None:
    """Play a script on this screen once a model is in hand."""

    async def ready(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(app, pilot, key)
        await script(app, pilot)

    play(exhibit, ready, size=size, place="models")


async def choose(app: ClinicApp, pilot: Pilot[None], key: str) -> None:
    """Put the cursor on a model."""
    table = app.query_one("#models-list", KeyedTable)
    await until(pilot, lambda: table.row_count > 0, "the models should be shown")
    table.move_cursor(row=table.get_row_index(key))
    name = key.partition("/")[2].replace("/", " ")
    await until(pilot, lambda: name in details(app).partition("\n")[0], f"{key} should be in hand")
    await pilot.pause()


def details(app: ClinicApp) -> str:
    return str(app.query_one("#models-facts").render())


async def dialog(pilot: Pilot[None], kind: type[Confirm] | type[Choose] | type[Prompt] | type[Card]) -> Any:
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), f"there should be a {kind.__name__}")
    await pilot.pause()
    return pilot.app.screen


# ---------------------------------------------------------------- pictures


@sized
def test_no_models(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = scenes.night(shelf=ShelfView(models=(), slots=()))
    assert picture(exhibit, "models", "There are no models yet", size=size) == pictures


@sized
def test_a_full_shelf(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    async def chosen(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(app, pilot, CANDIDATE)
        await until(pilot, lambda: "Who decided" in details(app), "the record should be there")

    assert picture(scenes.night(), "models", "It did not pass", size=size, after=chosen) == pictures


@sized
def test_the_daemon_is_lost(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = scenes.night()

    async def lost(app: ClinicApp, pilot: Pilot[None]) -> None:
        await choose(app, pilot, IN_USE)
        await until(pilot, lambda: "Who decided" in details(app), "the record should be there")
        exhibit.answers["status"] = NoDaemon("No daemon answers at /nowhere.", remedy="Start it with `clinic-ai run`.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "models", "No daemon answers", size=size, after=lost) == pictures


# ---------------------------------------------------------------- what is seen


def test_a_model_says_what_it_may_be_used_for_and_how_it_did() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        shown = details(app)
        for words in (
            "● ACTIVE",
            "passed its examination, approved by Dr. Ada Stern",
            "in use for pneumonia: both, fast and intensive",
            "clinical yes, commercial yes; Apache-2.0",
            "AUROC 0.881 (0.846…0.909)",
            "A rollback leads to: chest-fast 0.9",
        ):
            assert words in shown

    drive(scenes.night(), IN_USE, script)


def test_a_reference_model_says_so_in_the_first_lines() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        assert details(app).splitlines()[1].startswith("! Reference model, not for clinical use")

    drive(scenes.night(), REFERENCE, script)


def test_a_candidate_stands_beside_the_model_in_use() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        beside = [line for line in details(app).splitlines() if line.startswith("≠")]
        assert [line.split()[1] for line in beside] == ["model", "AUROC"]
        assert "0.894 (0.859…0.922)" in beside[1]
        assert "0.881 (0.846…0.909)" in beside[1]
        await until(pilot, lambda: "▼ sex female, 196 images: -0.061 (-0.104…-0.018)" in details(app), "the groups")
        assert "it loses 0.061" in details(app)
        assert "1 of them new" in details(app)

    drive(scenes.night(), CANDIDATE, script)


def test_a_technician_reads_what_stands_on_a_model_but_not_its_record() -> None:
    exhibit = scenes.night(role=Role.TECHNICIAN)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        assert "AUROC 0.894" in details(app)
        assert "clinicians and administrators can read here" in details(app)
        await pilot.press("c", "w", "v", "a", "m", "b")
        assert app.screen is app.screen_stack[0]

    drive(exhibit, CANDIDATE, script)
    assert {name for name, _, _ in exhibit.calls} <= {"shelf", "queue"}


def test_on_the_monitor_socket_every_changing_key_is_gone() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("c", "w", "v", "a", "m", "b")
        assert app.screen is app.screen_stack[0]
        assert "Approve" not in screen(app)

    drive(scenes.night(may_change=False), CANDIDATE, script)


def test_only_what_means_something_for_a_model_can_be_pressed() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("c", "w", "a", "m")
        assert app.screen is app.screen_stack[0]
        await choose(app, pilot, CANDIDATE)
        await shows(pilot, "Approve")

    drive(scenes.night(), IN_USE, script)


def test_the_filter_narrows_and_escape_clears() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        table = app.query_one("#models-list", KeyedTable)
        await pilot.press("slash")
        app.query_one("#models-filter", Input).value = "pneumonia retired"
        await pilot.press("enter")
        await until(pilot, lambda: table.row_count == 1, "one should be left")
        assert "(1 of 6)" in screen(app)
        await pilot.press("escape")
        await until(pilot, lambda: table.row_count == 6, "all should be back")

    drive(scenes.night(), IN_USE, script)


# ---------------------------------------------------------------- what is asked for


def test_an_examination_is_asked_for_and_shown() -> None:
    exhibit = scenes.night(check_model=scenes.refused_report())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        asked = await dialog(pilot, Confirm)
        assert scenes.CANDIDATE in asked.question
        await pilot.press("y")
        card = await dialog(pilot, Card)
        assert card.words.plain.startswith("✗ It did not pass")
        assert any("being examined" in each.message for each in app._notifications)
        await pilot.press("escape")

    drive(exhibit, CANDIDATE, script)
    assert exhibit.sent("check_model") == [((), dict(zip(("plugin", "name", "version"), NAMES, strict=True)))]


def test_a_shadow_run_asks_how_far_back() -> None:
    found = CanaryResult(
        plugin="xray", name="chest-fast", version=scenes.CANDIDATE, why_not={"S-1": "It has no images."}
    )
    exhibit = scenes.night(run_canary=found)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await dialog(pilot, Choose)
        await pilot.press("j", "enter")
        card = await dialog(pilot, Card)
        assert "0 of 0 studies would read otherwise" in card.words.plain
        assert "Not run on S-1: It has no images." in card.words.plain

    drive(exhibit, CANDIDATE, script)
    [((order,), _)] = exhibit.sent("run_canary")
    assert order == CanaryOrder(plugin="xray", name="chest-fast", version=scenes.CANDIDATE, hours=72)


@pytest.mark.parametrize(("problems", "said"), [((), "✓ Every file"), (("model.onnx is damaged.",), "✗ model.onnx")])
def test_verifying_says_what_is_wrong(problems: tuple[str, ...], said: str) -> None:
    told = VerifyView(plugin="xray", name="chest-fast", version="1.0", problems=problems)
    exhibit = scenes.night(verify_model=told)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("v")
        card = await dialog(pilot, Card)
        assert card.words.plain.startswith(said)

    drive(exhibit, IN_USE, script)


def test_an_approval_without_a_name_is_in_ones_own() -> None:
    exhibit = scenes.night(approve_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("a")
        first = await dialog(pilot, Prompt)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is not first, "the reason should be asked for")
        (await dialog(pilot, Prompt)).query_one(Input).value = "Figures seen."
        await pilot.press("enter")
        await until(pilot, lambda: bool(exhibit.sent("approve_model")), "it should be sent")

    drive(exhibit, CANDIDATE, script)
    [((order,), _)] = exhibit.sent("approve_model")
    assert order == ApproveOrder(plugin="xray", name="chest-fast", version=scenes.CANDIDATE, reason="Figures seen.")


def test_giving_up_approves_nothing() -> None:
    exhibit = scenes.night(approve_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("a")
        await dialog(pilot, Prompt)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.screen_stack[0], "the dialog should close")
        await pilot.pause()

    drive(exhibit, CANDIDATE, script)
    assert exhibit.sent("approve_model") == []


def test_a_refused_promotion_is_said_with_its_remedy() -> None:
    refusal = Conflict("Nobody has approved the candidate.", remedy="Approve it first.")
    exhibit = scenes.night(promote_model=refusal)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("m")
        asked = await dialog(pilot, Confirm)
        assert "takes the place of chest-fast 1.0" in asked.question
        await pilot.press("y")
        await until(
            pilot, lambda: any("Approve it first." in each.message for each in app._notifications), "it should be said"
        )

    drive(exhibit, CANDIDATE, script)


def test_a_slot_without_a_predecessor_cannot_be_rolled_back() -> None:
    exhibit = scenes.night(rollback_model=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("b")
        await until(
            pilot, lambda: any("Nothing was active" in each.message for each in app._notifications), "it should say so"
        )

    drive(exhibit, REFERENCE, script)
    assert exhibit.sent("rollback_model") == []
