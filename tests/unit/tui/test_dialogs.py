"""The questions that views ask: yes or no, a line of words, one of several."""

from __future__ import annotations

from typing import Any

import pytest
from screens import SIZES, Exhibit, play, screen
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.screen import ModalScreen

from clinic_ai.control.views import StudyPage
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.screens import Choose, Confirm, Prompt

NOTHING_GIVEN = object()
QUESTION = "Stop the training run R-7?\nWhat it has learned since the last checkpoint, 12 minutes ago, is lost."
CASES = (("echo", "echo: says what it got"), ("xray", "xray [chest]"), ("ct", "ct"))


def ask(dialog: ModalScreen[Any], *keys: str, size: tuple[int, int] = (80, 24)) -> tuple[object, str]:
    """Return what a dialog gives after some keys (NOTHING_GIVEN if it still asks), and what was on the screen."""
    given: list[object] = []
    shown = ""

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        nonlocal shown
        app.push_screen(dialog, given.append)
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        shown = screen(app)

    play(Exhibit({"studies": StudyPage(studies=(), next_before=None)}), script, size=size)
    return (given[0] if given else NOTHING_GIVEN), shown


@pytest.mark.parametrize(
    ("key", "answer"), [("y", True), ("n", False), ("enter", False), ("escape", False), ("q", False), ("x", None)]
)
def test_only_y_says_yes(key: str, answer: bool | None) -> None:
    given, _ = ask(Confirm(QUESTION), key)
    assert given is (NOTHING_GIVEN if answer is None else answer)


def test_a_line_is_given_without_the_spaces_around_it() -> None:
    given, _ = ask(Prompt("Why?"), *" too old ", "enter")
    assert given == "too old"


def test_a_line_that_is_needed_is_asked_for_again() -> None:
    given, shown = ask(Prompt("Why?"), "space", "enter")
    assert given is NOTHING_GIVEN
    assert "Something has to be written here" in shown
    assert ask(Prompt("Why?"), "enter", "a", "enter")[0] == "a"


def test_a_line_may_be_left_empty_where_it_is_not_needed_and_begin_with_words() -> None:
    assert ask(Prompt("Told to?", required=False), "enter")[0] == ""
    assert ask(Prompt("Name?", initial="dr.who"), "x", "enter")[0] == "dr.whox"


def test_escape_gives_nothing() -> None:
    assert ask(Prompt("Why?", initial="a"), "escape")[0] is None
    assert ask(Choose("Which?", CASES), "escape")[0] is None


@pytest.mark.parametrize(
    ("keys", "value"),
    [(("enter",), "echo"), (("j", "enter"), "xray"), (("j", "j", "k", "enter"), "xray"), (("down", "enter"), "xray")],
)
def test_one_is_chosen_with_the_cursor(keys: tuple[str, ...], value: str) -> None:
    assert ask(Choose("Which?", CASES), *keys)[0] == value


def test_there_may_be_nothing_to_choose() -> None:
    assert ask(Choose("Which?", ()), "j", "enter")[0] is NOTHING_GIVEN
    assert ask(Choose("Which?", ()), "j", "q")[0] is None


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("dialog", ["confirm", "prompt", "choose", "long"])
def test_how_they_look(pictures: SnapshotAssertion, dialog: str, size: tuple[int, int]) -> None:
    made: dict[str, ModalScreen[Any]] = {
        "confirm": Confirm(QUESTION),
        "prompt": Prompt("Why is the report of S-20261121-7F3K9QXB rejected?", placeholder="a reason"),
        "choose": Choose("Send the study to which plugin?", CASES),
        "long": Confirm("\n".join(f"Sentence {number} of what will be done." for number in range(40))),
    }
    assert ask(made[dialog], size=size)[1] == pictures
