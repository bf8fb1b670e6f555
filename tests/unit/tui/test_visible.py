"""What comes from outside is shown, and never steers the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from made_queue import S, busy_status, made_row, queue_exhibit
from rich.cells import cell_len
from screens import NOW, play, screen, shows, until
from textual.app import App
from textual.pilot import Pilot

from clinic_ai.domain import Alert, StudyFacts
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.visible import copyable, visible

HOSTILE = "a\x1b[31mb\x1b]52;c;ZWNobw==\x07c\x9b2Jd\u202ee\u200bf\x00g\rh\x08i\u2066j\ufeffk\U000e0041l"
SEEN = "a[31mb]52;c;ZWNobw==c2Jdefghijkl"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (HOSTILE, SEEN),
        ("CT chest, Übersicht 漢字 🙂", "CT chest, Übersicht 漢字 🙂"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian with its joiner
        ("10\u00a0mm\u3000wide", "10 mm  wide"),
        ("Herz\u00adspitze", "Herz-spitze"),
        ("private \ue000 use", "private � use"),
        ("lone \ud800 half", "lone � half"),
    ],
)
def test_only_what_is_seen_is_left_and_the_width_stays(text: str, seen: str) -> None:
    assert visible(text) == seen
    assert cell_len(seen) == cell_len(text)


def test_what_is_copied_has_its_lines_and_nothing_hidden() -> None:
    assert copyable(f"one\ttab\r\n{HOSTILE}\nlast") == f"one tab\n{SEEN}\nlast"


def test_no_screen_lets_a_control_sequence_through() -> None:
    facts = StudyFacts(source="x-ray", modalities=("DX",), slices=1, study_description=HOSTILE)
    row = made_row(1, S.DONE, facts=facts)
    alert = Alert(
        alert_id=1, code="x", subject="x", sentence=HOSTILE, remedy="[b]Look.[/b]", count=1, first_at=NOW, last_at=NOW
    )
    exhibit = queue_exhibit([row], status=busy_status([row], alerts=(alert,)))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "DONE")
        await until(pilot, lambda: screen(app).count(SEEN[:20]) == 2, "alert and study should be shown")
        assert "[b]Look.[/b]" in screen(app)
        assert all(line.isprintable() for line in screen(app).splitlines())

    play(exhibit, script, size=(140, 40))


def test_a_copy_brings_no_control_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    monkeypatch.setattr(App, "copy_to_clipboard", lambda _, text: copies.append(text))
    exhibit = queue_exhibit([made_row(1, S.DONE, pseudonym=HOSTILE)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "DONE")
        monkeypatch.setattr(type(app.view), "copied", lambda _: HOSTILE)
        await pilot.press("y")
        await until(pilot, lambda: bool(copies), "something should be copied")

    play(exhibit, script)
    assert copies == [SEEN]
