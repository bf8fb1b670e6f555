"""Keys and colours of one's own: what terminal.toml may say, and what is said about what it may not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from screens import NOW, Exhibit, screen, shows
from textual.color import Color

from clinic_ai.control.views import StudyPage
from clinic_ai.home import Home
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.help import help_text
from clinic_ai.tui.keys import all_orders, listing, settled
from clinic_ai.tui.looks import DEFAULT, LOOKS, contrast
from clinic_ai.tui.preferences import MAX_PROBLEMS, Preferences, first_few, preferences_path, read_preferences


def written(tmp_path: Path, text: str) -> Preferences:
    path = tmp_path / "terminal.toml"
    path.write_text(text)
    return read_preferences(path)


def test_without_a_file_everything_is_as_it_comes(tmp_path: Path) -> None:
    assert read_preferences(tmp_path / "none.toml") == Preferences(DEFAULT)


def test_a_file_may_choose_a_theme_and_keys_with_and_without_quotation_marks(tmp_path: Path) -> None:
    found = written(tmp_path, 'theme = "light"\n[keys]\n"queue.retry" = "ctrl+r"\nqueue.filter = "f"\nquit = "x"\n')
    assert found == Preferences("light", {"queue.retry": "ctrl+r", "queue.filter": "f", "quit": "x"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("theme = pink", "no TOML"),
        ('theme = "pink"', "there is no theme 'pink'; choose one of safe-dark"),
        ("theme = 3", "there is no theme 3"),
        ('colour = "red"', "colour is not known"),
        ("keys = 3", "keys has to be a table"),
        ("[keys]\nquit = 3", "quit has to be the name of a key in quotation marks"),
        ("#" * 20_000, "larger than"),
        ("theme = " + "[" * 5_000, "too deep in one another"),
        ("theme = " + "9" * 5_000, "no TOML"),
        ("[keys]\nqueue" + ".retry" * 1_500 + ' = "f5"', "has to be the name of a key"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_the_rest_holds(tmp_path: Path, text: str, words: str) -> None:
    found = written(tmp_path, text)
    assert found.theme == DEFAULT
    assert not found.keys
    [problem] = found.problems
    assert words in problem
    assert "terminal.toml" in problem


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    [problem] = read_preferences(tmp_path / ("x" * 300)).problems
    assert "cannot be read" in problem


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "terminal.toml")
    [problem] = read_preferences(tmp_path / "terminal.toml").problems
    assert "it is no file" in problem


def test_of_many_mistakes_a_few_are_told_and_none_at_length() -> None:
    assert first_few(["one", "two"]) == ["one", "two"]
    told = first_few(["x" * 10_000, *(f"mistake {n}" for n in range(2, 1001))])
    assert len(told) == MAX_PROBLEMS + 1
    assert told[-1] == "There are 995 more mistakes like these."
    assert max(map(len, told)) <= 400


@pytest.mark.parametrize("key", ["foo", "ctrl+f99", "strg+r", "<any>", "ctrl+"])
def test_a_key_that_no_keyboard_has_is_not_given_away(key: str) -> None:
    keys, [problem] = settled({"quit": key, "queue.retry": "ctrl+r"})
    assert keys == {"queue.retry": "ctrl+r"}
    assert f"no key is called {key}, as quit wants" in problem


@pytest.mark.parametrize("key", ["x", "ö", "?", "f12", "ctrl+shift+left", "question_mark", "alt+x", "space, X"])
def test_keys_that_there_are_can_be_had(key: str) -> None:
    assert settled({"queue.retry": key, "queue.explain": "f9", "help": "f10"})[0]["queue.retry"] == key


def test_a_file_full_of_unknown_names_keeps_nobody_waiting() -> None:
    wished = {f"no.such.{number}": "f5" for number in range(2_000)}
    began = time.monotonic()
    keys, problems = settled(wished | {"queue.retry": "f5"})
    assert time.monotonic() - began < 5  # a second look at every key for each of them takes half a minute
    assert (keys, len(problems)) == ({"queue.retry": "f5"}, 2_000)


def test_the_file_lies_where_the_desktop_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert preferences_path() == tmp_path / "clinic-ai" / "terminal.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert preferences_path() == tmp_path / ".config" / "clinic-ai" / "terminal.toml"


# ---------------------------------------------------------------- keys


def test_every_key_has_an_id_of_its_own_and_says_what_it_does() -> None:
    orders = all_orders()
    assert len({order.id for order in orders}) == len(orders)
    assert all(order.what and order.keys for order in orders)
    assert {"go.queue", "freeze", "copy", "find", "help", "quit", "queue.retry", "confirm.yes"} <= {
        o.id for o in orders
    }


def test_no_key_does_two_things_on_one_screen() -> None:
    for place in {order.place for order in all_orders()}:
        if place in {"everywhere", "dialogs"}:
            continue
        taken: dict[str, str] = {}
        for order in all_orders():
            if order.place in {place, "everywhere"}:
                for key in order.keys:
                    assert key not in taken, f"{key} is both {taken[key]} and {order.id}"
                    taken[key] = order.id


@pytest.mark.parametrize(
    ("wished", "name", "words"),
    [
        ({"queue.fly": "f"}, "queue.fly", "no id of a key"),
        ({"queue.retry": " , "}, "queue.retry", "has no key"),
        ({"queue.retry": "p"}, "queue.retry", "the key p of queue.retry is taken by freeze"),
        ({"queue.retry": "/"}, "queue.retry", "the key / of queue.retry is taken by queue.filter"),
        ({"freeze": "/"}, "freeze", "the key / of freeze is taken by queue.filter"),
    ],
)
def test_a_key_that_cannot_be_is_told_and_left_as_it_was(wished: dict[str, str], name: str, words: str) -> None:
    keys, problems = settled(wished)
    assert name not in keys
    assert any(words in problem for problem in problems)


def test_two_keys_may_change_places() -> None:
    wished = {"queue.retry": "/", "queue.filter": "r"}
    assert settled(wished) == (wished, [])


def test_a_key_left_as_it_was_takes_it_from_who_wished_for_it() -> None:
    keys, problems = settled({"queue.filter": "r", "queue.retry": "p"})
    assert keys == {}
    assert len(problems) == 2


def play(preferences: Preferences, *keys: str) -> tuple[ClinicApp, str]:
    exhibit = Exhibit({"studies": StudyPage(studies=(), next_before=None)})
    app = ClinicApp(Home(Path("/nowhere")), clock=lambda: NOW, connect=exhibit.connect, preferences=preferences)
    shown = ""

    async def run() -> None:
        nonlocal shown
        async with app.run_test(size=(100, 30)) as pilot:
            await shows(pilot, "linked")
            await pilot.press(*keys)
            await pilot.pause()
            shown = screen(app)

    try:
        asyncio.run(run())
    finally:
        exhibit.close()
    return app, shown


def test_a_chosen_key_works_in_place_of_the_old_one_and_the_help_says_so() -> None:
    chosen = Preferences(keys={"freeze": "f5"})
    assert play(chosen, "f5")[0].frozen
    assert not play(chosen, "p")[0].frozen
    app, _ = play(chosen)
    assert "F5" in str(help_text(app, 80)) or "f5" in str(help_text(app, 80))


def test_what_cannot_be_is_said_on_the_screen() -> None:
    app, _ = play(Preferences(keys={"queue.fly": "f"}, problems=("There is no theme pink.",)))
    said = [notice.message for notice in app._notifications]
    assert any("queue.fly is no id of a key" in words for words in said)
    assert "There is no theme pink." in said


@pytest.mark.parametrize("name", LOOKS)
def test_each_theme_can_be_chosen_and_read(name: str) -> None:
    app, _ = play(Preferences(theme=name))
    assert app.theme == name
    names = LOOKS[name].names
    behind = names.background_color
    assert contrast(names.foreground_color, behind) >= 7
    for number in (1, 2, 3, 4, 5, 6, 8):
        assert contrast(names.ansi_colors[number], behind) >= 4.5, f"colour {number}"


@pytest.mark.parametrize("name", LOOKS)
def test_words_can_be_read_in_a_terminal_of_sixteen_colours(name: str) -> None:
    theme, names = LOOKS[name].theme, LOOKS[name].names
    shown = [names.foreground_color, *(names.ansi_colors[number] for number in (1, 2, 3, 4, 5, 6, 8))]
    shown.append(Color.parse(theme.accent or "").rgb)
    for place in (theme.background, theme.surface, theme.panel):
        behind = _of_sixteen(Color.parse(place or "").rgb)
        assert min(contrast(_of_sixteen(words), behind) for words in shown) >= 2.5, place


def _of_sixteen(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return what is left of a colour where there are sixteen."""
    number = RichColor.from_rgb(*colour).downgrade(ColorSystem.STANDARD).number
    assert number is not None
    return DEFAULT_TERMINAL_THEME.ansi_colors[number]


@pytest.mark.parametrize("name", [name for name in LOOKS if name.startswith("safe")])
def test_safe_themes_keep_good_from_bad_by_blue(name: str) -> None:
    red, green = LOOKS[name].names.ansi_colors[1], LOOKS[name].names.ansi_colors[2]
    assert green[2] > red[2] + 80, "blue is what people who do not tell red from green see"


def test_the_command_line_lists_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = preferences_path()
    path.parent.mkdir()
    path.write_text('[keys]\nfreeze = "f5"\nfly = "f"\n')
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", "tui", "--keys"], capture_output=True, text=True, timeout=60, check=True
    )
    for name, _, _ in listing({}):
        assert f"{name} " in done.stdout
    assert "f5" in done.stdout
    assert "fly is no id of a key" in " ".join(done.stdout.split())
