"""The picture of a study in the terminal: what its keys ask for, and what stands there if there is none."""

from __future__ import annotations

from typing import Any

import pytest
from made_study import (
    made_artefact,
    made_series,
    made_study,
    preview,
    study_exhibit,
)
from screens import Exhibit, screen, shows, until
from study_stage import newest_version, taken, visit
from textual.pilot import Pilot

from clinic_ai.control.views import TopicView
from clinic_ai.errors import ChildDied, Conflict
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.pixels import Pixels, inked


@pytest.fixture(autouse=True)
def _without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are characters then, which can be read and compared."""
    monkeypatch.setenv("NO_COLOR", "1")


def test_keys_ask_for_other_slices_windows_and_the_heat_map() -> None:
    exhibit = study_exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        for key, words in (
            ("right_square_bracket", "image 2 of 28"),
            ("j", "image 3 of 28"),
            ("up", "image 2 of 28"),
            ("G", "image 28 of 28"),
            ("right_square_bracket", "image 28 of 28"),
            ("g", "image 1 of 28"),
            ("left_square_bracket", "image 1 of 28"),
            ("w", "window 0 ± 1500 HU (full)"),
            ("w", "window -600 ± 750 HU (lung)"),
            ("w", "window 40 ± 200 HU (default)"),
            ("l", "window 80 ± 200 HU (moved)"),
            ("plus", "window 80 ± 220 HU (moved)"),
            ("o", "(o hides it)"),
            ("o", "o shows: heat map: Pneumonia"),
            ("left_curly_bracket", "CT, scout, 1 image"),
        ):
            await pilot.press(key)
            await shows(pilot, words)

    visit(exhibit, script, wait="image 1 of 28")
    asked = [wish for _, wish in exhibit.sent("preview")]
    assert {(wish["columns"], wish["rows"]) for wish in asked} <= {(80, 30), (80, 32)}
    assert asked[-1]["stack"] == 1
    assert asked[-1]["window"] is None  # another stack begins with its own window
    assert len({wish["reader"] for wish in asked}) == 1


def test_a_picture_that_did_not_change_is_not_fetched_again() -> None:
    exhibit = study_exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        before = len(exhibit.sent("preview"))
        told = len(exhibit.sent("study"))
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: len(exhibit.sent("study")) > told, "the study should be fetched again")
        await pilot.pause()
        assert len(exhibit.sent("preview")) == before
        assert len(exhibit.sent("series")) == 1
        exhibit.answers["study"] = made_study(versions=(newest_version(artefacts=(made_artefact(state="FINAL"),)),))
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: len(exhibit.sent("preview")) > before, "a heat map may be released now")

    visit(exhibit, script, wait="image 1 of 28")


def test_cine_runs_through_the_stack_and_stands_still_again() -> None:
    exhibit = study_exhibit(series=made_series(3), preview=lambda study, **wish: _short(study, wish))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        await shows(pilot, "▶ playing")
        await until(pilot, lambda: _images(exhibit)[-4:] == [2, 3, 1, 2], "it should begin anew after the last")
        await pilot.press("space")
        await until(pilot, lambda: "playing" not in screen(app), "it should stand still")
        await pilot.press("space")
        await pilot.press("1")
        await until(pilot, lambda: app.view is not None and app.view.NAME == "queue", "the queue")
        count = len(_images(exhibit))
        await pilot.pause(0.4)
        assert len(_images(exhibit)) <= count + 1  # nobody looks

    visit(exhibit, script, wait="image 1 of 3")


def _short(study: str, wish: dict[str, Any]) -> Any:
    return preview(study, **wish).model_copy(update={"images": 3})


def _images(exhibit: Exhibit) -> list[int]:
    return [wish["image"] for _, wish in exhibit.sent("preview")]


def test_why_there_is_no_picture_stands_in_its_place() -> None:
    exhibit = study_exhibit(preview=ChildDied("Reading the pixels ended the process.", remedy="Look elsewhere."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        asked, told = len(exhibit.sent("preview")), len(exhibit.sent("study"))
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: len(exhibit.sent("study")) > told, "the study should be fetched again")
        await pilot.pause()
        assert len(exhibit.sent("preview")) == asked  # it would end a process each time
        exhibit.answers["preview"] = Conflict("The daemon is too busy.", remedy="Try again soon.")
        await pilot.press("right_square_bracket")
        await shows(pilot, "The daemon is too busy.")
        exhibit.answers["preview"] = preview
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "image 2 of 28")

    visit(exhibit, script, wait="Reading the pixels ended the process. Look elsewhere.")


def test_a_study_without_images_says_so() -> None:
    exhibit = study_exhibit(series=made_series().model_copy(update={"series": ()}))
    assert "no image" in taken(exhibit, "This study holds no image")
    assert not exhibit.sent("preview")


def test_enter_on_an_image_of_the_tree_shows_it() -> None:
    exhibit = study_exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "Chest 5.0 B31f")
        for key in ("down", "down", "down", "right"):
            await pilot.press(key)
        await shows(pilot, "The gantry was tilted")
        for key in ("down", "down", "j", "enter"):
            await pilot.press(key)
        await shows(pilot, "image 2 of 28")

    visit(exhibit, script, keys=("tab", "tab"), wait="image 1 of 28")


def test_inks_are_even_from_black_to_white() -> None:
    steps = bytes(round(255 * step / 9) for step in range(10) for _ in range(3))
    assert inked(steps + steps, 10, 0) == " .:-=+*#%@"
    assert inked(b"\xff" * 6, 1, 0) == "@"


def test_with_colours_each_cell_has_two_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    exhibit = study_exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        widget = app.query_one(Pixels)
        widget.show(bytes((255, 0, 0, 0, 0, 255)), 1, 2, ("", "", "", ""))
        strip = next(s for s in map(widget.render_line, range(widget.size.height)) if "▀" in s.text)
        [cell] = [segment for segment in strip if "▀" in segment.text]
        assert cell.style is not None
        assert cell.style.color is not None
        assert cell.style.bgcolor is not None
        assert cell.style.color.get_truecolor() == (255, 0, 0)
        assert cell.style.bgcolor.get_truecolor() == (0, 0, 255)

    visit(exhibit, script, wait="image 1 of 28")
