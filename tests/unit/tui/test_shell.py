"""What all screens share: header, banner, help, palette, freezing, copying, and what happens without a daemon."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import training_scenes
from control_room import control_room
from screens import NOW, SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Static

from clinic_ai import waiting
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.views import InboxRow, Role, StudyPage, TopicView
from clinic_ai.domain import Alert
from clinic_ai.errors import ClinicError
from clinic_ai.home import Home, init_home
from clinic_ai.store import critical
from clinic_ai.tui import header as header_module
from clinic_ai.tui import pictures as pictures_of_screens
from clinic_ai.tui.app import ClinicApp, shortened
from clinic_ai.tui.header import CRITICAL, alerts_text, header_text
from clinic_ai.tui.help import help_text
from clinic_ai.tui.pictures import offline, take
from clinic_ai.tui.views.queue import QueueView
from clinic_ai.tui.words import WAITS

EMPTY = StudyPage(studies=(), next_before=None)
GONE = NoDaemon("No daemon answers at /run/control.sock.", remedy="Start it with `clinic-ai run`.")
by_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def alert(number: int, code: str = "test") -> Alert:
    return Alert(
        alert_id=number,
        code=code,
        subject="S-1",
        sentence=f"Alert {number}.",
        remedy="Look.",
        count=1,
        first_at=NOW,
        last_at=NOW,
    )


def busy(**changes: Any) -> Exhibit:
    status = made_status(
        studies={"RECEIVING": 2, "ROUTED": 3, "FAILED": 1, "UNROUTED": 4, "DONE": 90},
        artefacts={"HELD": 2, "BLOCKED": 1},
        alerts=(alert(1, CRITICAL), alert(2)),
        **changes,
    )
    return Exhibit({"studies": EMPTY}, status=status)


def lose(exhibit: Exhibit) -> None:
    exhibit.answers["status"] = GONE
    exhibit.tell(TopicView(topic="start"))


# ---------------------------------------------------------------- pictures


@by_size
def test_an_empty_queue(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(Exhibit({"studies": EMPTY}), "queue", "No studies yet", size=size) == pictures


@by_size
def test_a_busy_header(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(busy(), "queue", "critical", size=size) == pictures


@by_size
def test_the_daemon_is_gone(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = busy()

    async def after(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        lose(exhibit)

    assert picture(exhibit, "queue", "No daemon answers", size=size, after=after) == pictures


@by_size
@pytest.mark.parametrize("key", ["question_mark", "ctrl+p"], ids=["help", "palette"])
def test_what_lies_over_the_screens(pictures: SnapshotAssertion, key: str, size: tuple[int, int]) -> None:
    async def after(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        await pilot.press(key)

    words = {"question_mark": "j k scroll", "ctrl+p": "Queue: Try the study again"}[key]
    assert picture(Exhibit({"studies": EMPTY}), "queue", words, size=size, after=after) == pictures


# ---------------------------------------------------------------- the header


def header(width: int, **more: Any) -> str:
    options: dict[str, Any] = {"linked": True, "now": NOW, "width": width} | more
    text = header_text(busy().answers["status"], **options)
    assert text.cell_len == width
    return str(text)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_what_matters_most_is_there_at_80_columns(linked: bool, frozen: bool) -> None:
    line = header(80, linked=linked, frozen=frozen)
    link = "● linked" if linked else "✗ no daemon"
    assert all(words in line for words in (link, "◆ 1 critical", "3 held", "1 failed", "12:00:00"))
    assert ("FROZEN" in line) is frozen


def test_with_room_all_of_it_is_there() -> None:
    line = header(140)
    words = ("clinic-ai", "◆ 1 critical", "5 open", "3 held", "1 failed", "4 unrouted", "▲ 1 alert", "administrator")
    assert all(word in line for word in words)


def test_a_terminal_that_is_far_too_small_still_gets_a_line() -> None:
    assert "critical" in header(30)


def test_before_the_first_answer_nothing_is_called_lost() -> None:
    line = str(header_text(None, linked=False, now=NOW, width=80, asked=False))
    assert "connecting" in line
    assert "no daemon" not in line


def test_a_daemon_that_lets_a_question_wait_is_not_called_linked() -> None:
    assert "● linked" in header(80, silent_s=4.9)
    line = header(80, silent_s=13.2)
    assert "no answer for 10 s" in line
    assert "linked" not in line


def test_the_header_tells_how_long_a_question_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_module, "SILENT_S", 0.05)
    exhibit, answered = Exhibit({"studies": EMPTY}), threading.Event()

    def stopped(*_: Any) -> Any:
        answered.wait(30)
        return made_status()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        exhibit.answers["status"] = stopped
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "no answer for")
        answered.set()
        await shows(pilot, "linked")

    play(exhibit, script)


def test_critical_alerts_are_those_of_the_store() -> None:
    assert critical.CODE == CRITICAL


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    inbox = InboxRow(name="ct", path="/in", online=False)
    lines = str(
        alerts_text(made_status(alerts=(alert(1, CRITICAL), alert(2)), inboxes=(inbox,)), "A note.")
    ).splitlines()
    assert lines == ["◆ Alert 1. Look.", "▲ Alert 2. Look.", "▲ The inbox ct (/in) is offline.", "A note."]


@pytest.mark.parametrize("role", list(Role))
def test_the_role_stands_in_the_header(role: Role) -> None:
    status = made_status(role=role, may_change=False)
    assert f"{role.value}, read-only" in str(header_text(status, linked=True, now=NOW, width=140))


# ---------------------------------------------------------------- the daemon goes and comes


def test_the_banner_goes_when_the_daemon_is_back() -> None:
    exhibit = busy()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        lose(exhibit)
        await shows(pilot, "What you see is from 12:00:00")
        assert app.query_one("#body").has_class("stale")
        exhibit.answers["status"] = made_status()
        await until(pilot, lambda: "No daemon answers" not in screen(app), "the banner should go")
        await shows(pilot, "● linked")
        assert not app.query_one("#body").has_class("stale")

    play(exhibit, script)


# ---------------------------------------------------------------- keys that work everywhere


def test_a_frozen_screen_stands_still_and_its_header_does_not() -> None:
    exhibit = Exhibit({"studies": EMPTY})

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "No studies yet")
        await pilot.press("p")
        await shows(pilot, "FROZEN")
        exhibit.answers["status"] = made_status(alerts=(alert(1, CRITICAL),))
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "◆ 1 critical")
        assert "Alert 1." not in screen(app)
        lose(exhibit)
        await shows(pilot, "✗ no daemon")
        assert "What you see" not in screen(app)
        exhibit.answers["status"] = made_status(alerts=(alert(1, CRITICAL),))
        await pilot.press("p")
        await shows(pilot, "Alert 1.")
        assert "FROZEN" not in screen(app)

    play(exhibit, script)


def test_copying_says_what_was_copied() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        await pilot.press("y")
        await until(pilot, lambda: "nothing to copy" in _said(app), "it should say so")
        view = app.view
        assert view is not None
        view.copied = lambda: "the words\n" * 20  # type: ignore[method-assign]
        await pilot.press("y")
        assert app.clipboard == "the words\n" * 20
        assert "the words the words" in _said(app)
        assert "…" in _said(app)

    play(Exhibit({"studies": EMPTY}), script)


def _said(app: ClinicApp) -> str:
    return " ".join(notice.message for notice in app._notifications)


def test_words_are_shortened_to_a_line() -> None:
    assert shortened("a\nb") == "a b"
    assert len(shortened("x" * 100)) == 60


def test_the_palette_goes_to_a_screen_and_does_what_the_screen_offers() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        await pilot.press("ctrl+p", *"go to night")
        await shows(pilot, "Go to Night")
        await pilot.press("enter")
        await until(pilot, lambda: app.place.name == "night", "the palette should go there")
        await pilot.press("1", "ctrl+p", *"choose the colours")
        await shows(pilot, "Choose the colours")
        await pilot.press("enter")
        await shows(pilot, "Which colours?")
        await pilot.press("j", "enter")
        await until(pilot, lambda: app.theme == "safe-light", "the theme should change")

    play(training_scenes.night(), script)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"may_change": False}, "this is the read-only socket"),
        ({"role": Role.TECHNICIAN}, "needs the role clinician; yours is technician"),
        ({}, ""),
    ],
)
def test_the_help_says_which_keys_are_missing_and_why(
    changes: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        words = " ".join(str(help_text(app, 90)).split())
        assert ("Keys that are not there now, and why" in words) is bool(why)
        assert why in words
        lose(exhibit)
        await shows(pilot, "no daemon")
        assert "the daemon does not answer" in " ".join(str(help_text(app, 90)).split())

    exhibit = Exhibit({"studies": EMPTY}, status=made_status(**changes))
    monkeypatch.setattr(QueueView, "ORDERS", {"retry": Role.CLINICIAN})
    play(exhibit, script)


def test_the_help_scrolls_to_its_end_and_back() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        await pilot.press("question_mark")
        box = app.screen.query_one("#help")
        await pilot.press("j", "j", "k")
        assert box.scroll_y == 1
        await pilot.press("G")
        await shows(pilot, "the screen stands still")
        await pilot.press("g")
        assert box.scroll_y == 0
        assert str(app.screen.query_one("#help Static", Static).render())
        await pilot.press("escape")
        assert not box.is_attached

    play(Exhibit({"studies": EMPTY}), script)


def test_the_help_knows_every_reason_to_wait() -> None:
    codes = set(re.findall(r'code="(\w+)"', Path(waiting.__file__).read_text()))
    assert codes == set(WAITS)


# ---------------------------------------------------------------- pictures by command


def test_every_screen_is_drawn_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_of_screens, "STILL_S", 0.05)
    monkeypatch.setattr(pictures_of_screens, "_LOOK_S", 0.02)
    folder = tmp_path / "new"
    with control_room(tmp_path / "h") as room:
        room.add_study(state="DONE")
        files = take(room.home, folder, (80, 24), clock=lambda: NOW)
    assert len(files) == 18
    assert all(file.stat().st_size > 1000 for file in files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files if file.suffix == ".png")
    drawn = (tmp_path / "new" / "queue.svg").read_text()
    assert "clinic-ai" in drawn
    assert "url(http" not in drawn
    assert "@font-face" not in drawn


def test_fonts_of_the_network_are_taken_out() -> None:
    svg = '<style>@font-face { src: url("https://x/y"); }\n.a { font-family: Fira Code, monospace; }</style>'
    assert "https" not in offline(svg)
    assert "DejaVu Sans Mono" in offline(svg)


def test_without_a_daemon_no_picture_is_taken(tmp_path: Path) -> None:
    exhibit = Exhibit()
    exhibit.answers["status"] = GONE
    try:
        with pytest.raises(ClinicError, match="No daemon answers"):
            take(Home(Path("/nowhere")), tmp_path, (80, 24), connect=exhibit.connect)
    finally:
        exhibit.close()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- in a terminal


@pytest.mark.parametrize(
    ("environment", "pattern"),
    [({"NO_COLOR": "1"}, None), ({"TERM": "dumb"}, None), ({"COLORTERM": ""}, rb"[34]8;5;\d")],
    ids=["NO_COLOR", "dumb", "256"],
)
def test_a_terminal_gets_only_the_colours_it_has(
    tmp_path: Path, environment: dict[str, str], pattern: bytes | None
) -> None:
    drawn = _drawn(tmp_path, environment)
    styles = re.findall(rb"\x1b\[([0-9;]*)m", drawn)
    assert styles
    assert not any(b"8;2;" in style for style in styles), "no terminal here has true colour"
    if pattern is None:
        numbers = {int(number) for style in styles for number in style.split(b";") if number}
        assert numbers <= {0, 1, 2, 3, 4, 7, 9}, "bold, dim, italic, underlined, reverse and struck through are left"
        assert 7 in numbers, "what stands out is shown in reverse"
    else:
        assert any(re.search(pattern, style) for style in styles)


def _drawn(tmp_path: Path, environment: dict[str, str]) -> bytes:
    """Return what the screens write to a terminal until they have found out that there is no daemon."""
    home = init_home(tmp_path / "h")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLORTERM"}}
    shown = subprocess.Popen(
        [sys.executable, "-m", "clinic_ai", "tui", "--home", str(home.path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**inherited, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    drawn, deadline = b"", time.monotonic() + 60
    try:
        while b"no daemon" not in drawn:
            assert time.monotonic() < deadline, "the screen was not drawn"
            if select.select([ours], [], [], 1.0)[0]:
                drawn += os.read(ours, 65536)
    finally:
        shown.kill()
        shown.wait()
        os.close(ours)
    return drawn
