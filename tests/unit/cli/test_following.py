"""How a training run is shown: lines where nobody looks on, a bar in a terminal."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest
from rich.console import Console

from clinic_ai.cli.following import Bar, Lines, Reasons, follower, words_of
from clinic_ai.control.views import RunRow

TRAINS = {
    "epoch": 12,
    "epochs": 30,
    "step": 36,
    "steps": 90,
    "loss": 0.45123,
    "metric": 0.9123,
    "metric_name": "validation AUROC",
    "eta_s": 100.0,
    "message": "",
}
READS = {"epoch": 0, "epochs": 30, "step": 0, "steps": 0, "message": "128 of 735 images read"}


def row(progress: dict[str, Any] | None, state: str = "RUNNING") -> RunRow:
    return RunRow(run_id="R-1", plugin="xray", state=state, dataset_id="D-1", progress=progress, created_at=0.0)


def test_lines_are_printed_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        for progress in (None, READS, READS, TRAINS, TRAINS):
            lines.show(row(progress))
        lines.note("A note.")
    assert capsys.readouterr().out.splitlines() == [
        "R-1  RUNNING",
        "R-1  RUNNING  128 of 735 images read",
        "R-1  RUNNING  epoch 12/30, step 36/90, loss 0.4512, validation AUROC 0.912, 2 min to go",
        "A note.",
    ]


def test_beside_a_document_only_the_reasons_of_waiting_are_said_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    waits = row(None, "PLANNED").model_copy(update={"pause_code": "disk", "error": "9 MiB are free. Make room."})
    later = waits.model_copy(update={"error": "8 MiB are free. Make room."})
    with follower(document=True) as reasons:
        assert isinstance(reasons, Reasons)
        reasons.note("A plan.")
        for shown in (row(None, "PLANNED"), waits, later, row(TRAINS), later):
            reasons.show(shown)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["R-1 waits. 9 MiB are free. Make room.", "R-1 waits. 8 MiB are free. Make room."]


def test_what_is_done_after_the_last_epoch_is_said() -> None:
    assert words_of({**TRAINS, "loss": None, "metric": None, "message": "exports", "eta_s": 9.0}) == (
        "epoch 12/30, step 36/90, exports, 9 s to go"
    )


def test_a_bar_shows_epoch_figures_and_time_left_in_80_columns() -> None:
    out, now = io.StringIO(), [0.0]
    console = Console(file=out, force_terminal=True, width=80, color_system=None)

    def shown(progress: dict[str, Any] | None, state: str = "RUNNING") -> str:
        out.seek(0)
        out.truncate()
        bar.show(row(progress, state))
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).strip()

    with Bar(console, lambda: now[0]) as bar:
        assert shown(None, "PLANNED").startswith("waits for its turn ━")
        assert shown(READS).startswith("128 of 735 images read ━")
        line = shown(TRAINS)
        assert re.fullmatch(r"epoch 12/30 ━+╸? +loss 0.4512, validation AUROC 0.912, 2 min left", line)
        assert len(line) <= 80
        now[0] = 60.0
        assert "40 s left" in shown(TRAINS)
        now[0] = 1000.0
        assert "0 s left" in shown(TRAINS)
        assert "2 min left" in shown({**TRAINS, "epoch": 13})
        out.truncate(0)
        bar.note("A note with [brackets].")
    assert "A note with [brackets]." in out.getvalue()


@pytest.mark.parametrize(
    ("terminal", "term", "kind"), [(True, "xterm", Bar), (True, "dumb", Lines), (False, "xterm", Lines)]
)
def test_a_bar_is_for_terminals_that_can_draw_one(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, kind: type
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert isinstance(follower(), kind)
