"""The screen of one study: what it looks like, what its keys ask of the daemon, and what technicians do not see."""

from __future__ import annotations

from typing import Any

import pytest
from made_study import (
    MARK,
    ODD_FILE,
    SAID,
    STUDY,
    made_file,
    made_findings,
    made_row,
    made_study,
    study_exhibit,
)
from screens import NOW, SIZES, made_status, play, screen, shows, still, until
from study_stage import newest_version, taken, tells, visit
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import OptionList

from clinic_ai.control.category_views import CategoryRow, StudyCategories
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.file_views import ChoiceView, DecidedView, FileView
from clinic_ai.control.views import DoneView, Role, TopicView
from clinic_ai.domain import FileDecision, StudyState, WaitReason
from clinic_ai.errors import NotFound
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.choosing import AskWords, Choose
from clinic_ai.tui.screens import Confirm, HelpScreen

TECHNICIAN = made_status(role=Role.TECHNICIAN)
DONE = DoneView(sentence="It is done.")


@pytest.fixture(autouse=True)
def _without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are characters then, which can be read and compared."""
    monkeypatch.setenv("NO_COLOR", "1")


# ---------------------------------------------------------------- pictures of the screen

PAGES = {
    "picture": "image 1 of 28",
    "overview": "mobilenet",
    "series": "Chest 5.0 B31f",
    "findings": "Pleural effusion",
    "report": MARK,
    "guard": "patient.new_finding",
    "history": "a result was released",
    "files": "526,000 bytes",
    "routing": "It goes to xray.",
}
"""The pages in the order in which tab turns them, and words of each."""


def test_pages_on_a_small_terminal(pictures: SnapshotAssertion) -> None:
    seen: dict[str, str] = {}

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        for page, words in PAGES.items():
            await shows(pilot, words)
            seen[page] = await still(pilot)
            await pilot.press("tab")
        await shows(pilot, "[Picture]")

    visit(study_exhibit(), script)
    for page, taken_of in seen.items():
        assert taken_of == pictures(name=page)


def test_a_large_terminal_shows_picture_and_words(pictures: SnapshotAssertion) -> None:
    exhibit = study_exhibit()
    seen = taken(exhibit, "hides it", size=(140, 40), keys=("o", "tab", "tab"), wait="image 1 of 28")
    assert "Pleural effusion" in seen
    assert seen == pictures


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_without_a_study_it_says_how_to_choose_one(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    seen = ""

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        nonlocal seen
        await app.action_go("study")
        await shows(pilot, "● linked")
        await shows(pilot, "No study is chosen")
        seen = await still(pilot)

    play(study_exhibit(), script, size=size)
    assert seen == pictures


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_lost_daemon_leaves_the_last_picture(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    exhibit = study_exhibit()
    seen = ""

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        nonlocal seen
        exhibit.answers["status"] = NoDaemon("No daemon answers at the socket.", remedy="Start it.")
        exhibit.answers["preview"] = exhibit.answers["status"]
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "No daemon answers")
        await until(pilot, lambda: "Retry" not in screen(app) and "q Quit" in screen(app), "keys that do nothing go")
        seen = screen(app)
        await pilot.press("r")
        assert not isinstance(app.screen, Confirm)

    visit(exhibit, script, size=size, wait="image 1 of 28")
    assert "@@@" in seen or "+++" in seen
    assert seen == pictures


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_technician_sees_all_but_content(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    exhibit = study_exhibit(status=TECHNICIAN, study=made_study(content=False))
    seen = taken(exhibit, "mobilenet", size=size)
    assert seen == pictures
    assert not exhibit.sent("preview")


def test_a_technician_reads_why_there_is_no_more() -> None:
    exhibit = study_exhibit(status=TECHNICIAN, study=made_study(content=False))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        for keys, page in (("shift+tab", "Picture"), ("tab tab tab", "Findings"), ("tab", "Report")):
            await pilot.press(*keys.split())
            await shows(pilot, f"[{page}]")
            await shows(pilot, "tess is technician. An administrator gives roles")
            assert SAID not in screen(app)

    visit(exhibit, script, wait="mobilenet")
    assert not exhibit.sent("findings")
    assert not exhibit.sent("preview")


def test_the_monitor_socket_says_that_it_never_shows_content() -> None:
    exhibit = study_exhibit(status=made_status(may_change=False), study=made_study(content=False))
    seen = taken(exhibit, "Leave out --monitor", keys=("shift+tab",), wait="mobilenet")
    assert "Retry" not in seen


# ---------------------------------------------------------------- what stands on the pages


def test_words_from_outside_are_no_markup() -> None:
    odd = made_file(3, name="[bold red]x[/].dcm", reason="[link=x]click[/link]")
    seen = taken(study_exhibit(study=made_study(files=(odd,))), "[bold red]x[/].dcm", keys=("shift+tab",) * 2)
    assert "[link=x]click[/link]" in seen


def test_why_it_waits_stands_on_top_of_every_page() -> None:
    wait = WaitReason(code="x", sentence="It waits for a model.", remedy="Import one.")
    waiting = made_study(versions=(newest_version(study=made_row(state=StudyState.ROUTED, wait=wait)),))
    seen = taken(study_exhibit(study=waiting), "It waits for a model. Import one.", keys=("tab",) * 6)
    assert "[History]" in seen


def test_held_findings_say_where_they_are_read() -> None:
    held = made_findings(findings=(), note="The guard held the report, so its findings are seen in the review alone.")
    assert "review alone" in taken(study_exhibit(findings=held), "The guard held", keys=("tab",) * 3)


def test_a_study_that_is_gone_is_said() -> None:
    gone = NotFound("There is no study of this id.", remedy="Look in the queue.")
    seen = taken(study_exhibit(study=gone), "There is no study of this id.", wait="There is no study")
    assert "[Picture]" not in seen


def test_y_copies_the_words_of_the_page() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, MARK)
        await pilot.press("y")
        await until(pilot, lambda: SAID in app.clipboard, "the words of the report")

    visit(study_exhibit(), script, keys=("tab",) * 4, wait="image 1 of 28")


def test_help_tells_the_keys_of_this_screen() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "the help")
        await shows(pilot, "Window narrower: more contrast")

    visit(study_exhibit(), script, size=(140, 40), wait="image 1 of 28")


# ---------------------------------------------------------------- orders


def test_retry_and_reroute_ask_first_and_the_priority_is_chosen_from_a_list() -> None:
    exhibit = study_exhibit(retry=DONE, reroute=DONE, prioritise=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        await shows(pilot, f"Try study {STUDY} (P-7K2M9QX4) again?")
        await pilot.press("n")
        await pilot.press("R")
        await shows(pilot, f"Route study {STUDY} again")
        await pilot.press("y")
        await tells(pilot, "It is done.")
        await pilot.press("u")
        await until(pilot, lambda: isinstance(app.screen, Choose), "the list")
        await pilot.press("escape", "u")
        await until(pilot, lambda: isinstance(app.screen, Choose), "the list again")
        await pilot.press("j", "enter")
        await until(pilot, lambda: bool(exhibit.sent("prioritise")), "the order")

    visit(exhibit, script, wait="image 1 of 28")
    assert exhibit.sent("retry") == []
    assert exhibit.sent("reroute") == [((STUDY,), {})]
    assert exhibit.sent("prioritise") == [((STUDY, 50), {})]


def test_a_category_is_chosen_among_those_of_the_plugin() -> None:
    row = CategoryRow(
        plugin="ultrasound",
        category="femur",
        label="Femur",
        aliases=(),
        codes=(),
        questions=(),
        answered_by="femur 1",
        note="",
    )
    rows = [row, row.model_copy(update={"category": "x", "label": "Of another", "plugin": "other"})]
    mine = StudyCategories(
        study_id=STUDY, version=1, plugin="ultrasound", chosen="femur", chosen_by="tess", chosen_at=NOW, images=()
    )
    exhibit = study_exhibit(categories=mine, plugin_categories=rows, choose_category=DONE)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Choose), "the list")
        assert app.screen.query_one(OptionList).option_count == 2
        await shows(pilot, "Femur (chosen by tess)")
        await pilot.press("down", "enter")
        await tells(pilot, "It is done.")

    visit(exhibit, script, wait="image 1 of 28")
    [((study, order), _)] = exhibit.sent("choose_category")
    assert (study, order.category, order.plugin) == (STUDY, None, "ultrasound")


def test_a_file_in_quarantine_is_accepted_or_discarded_as_the_person_says() -> None:
    ways = tuple(
        ChoiceView(decision=decision, option=f"--{decision.value}", meaning=f"what {decision.value} does")
        for decision in (FileDecision.REPLACE, FileDecision.BOTH)
    )
    exhibit = study_exhibit(
        file=FileView(file=ODD_FILE, place="/q/9", choices=ways, conflict=True),
        accept_files=DecidedView(sentence="File 9 is accepted.", files=(9,)),
        discard_files=DecidedView(sentence="File 9 is discarded.", files=(9,)),
    )

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "quarantined, from ct room")
        await pilot.press("a")
        await shows(pilot, "both: what both does")
        await pilot.press("down", "enter")
        await tells(pilot, "File 9 is accepted.")
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, AskWords), "the question why")
        await pilot.press(*"test", "enter")
        await shows(pilot, "Remove the bytes of file 9 (CHEST/0009.dcm) for good?")
        assert not exhibit.sent("discard_files")
        await pilot.press("y")
        await tells(pilot, "File 9 is discarded.")

    visit(exhibit, script, keys=("shift+tab",) * 2, wait="image 1 of 28")
    [((accepted,), _)] = exhibit.sent("accept_files")
    assert (accepted.files, accepted.decision) == ((9,), FileDecision.BOTH)
    [((discarded,), _)] = exhibit.sent("discard_files")
    assert (discarded.files, discarded.reason) == ((9,), "test")


def test_files_that_are_not_in_quarantine_are_not_decided() -> None:
    exhibit = study_exhibit(study=made_study(files=(made_file(1),)))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "stored, from ct room")
        await pilot.press("a")
        await tells(pilot, "Select a file in quarantine")

    visit(exhibit, script, keys=("shift+tab",) * 2, wait="image 1 of 28")
    assert not exhibit.sent("file")


@pytest.mark.parametrize(
    ("status", "gone"),
    [
        (TECHNICIAN, {"x"}),
        (made_status(may_change=False), {"r", "R", "u", "c", "a", "x"}),
    ],
    ids=["technician", "monitor"],
)
def test_keys_that_change_something_are_gone_without_the_role(status: Any, gone: set[str]) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        view = app.view
        assert view is not None
        keys = {"r": "retry", "R": "reroute", "u": "prioritise", "c": "category", "a": "accept", "x": "discard"}
        assert {key for key, action in keys.items() if not view.may(action)} == gone
        await pilot.press(*sorted(gone))
        assert not isinstance(app.screen, Confirm | Choose | AskWords)

    visit(study_exhibit(status=status, study=made_study(content=False)), script, wait="mobilenet")
