"""``clinic-ai train forecast``: from a file and from a run of the home, for people, for machines and as a figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import known_curves
import pytest

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.home import Home, init_home
from clinic_ai.store.database import Database

Run = Callable[..., tuple[int, str]]
COSTS = ("--seconds-per-step", "1.8", "--watts", "100", "--pflops", "0.1256", "--utilisation", "0.5")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = init_home(tmp_path / "h")
    monkeypatch.setenv("CLINIC_AI_HOME", str(made.path))
    monkeypatch.setenv("COLUMNS", "80")
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", "train", "forecast", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out + err

    return call


def test_a_file_is_told_in_words_a_plot_and_costs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_AI_HOME", str(tmp_path / "there is none"))
    file, figure = tmp_path / "loss.csv", tmp_path / "loss.png"
    points = enumerate(known_curves.losses(120, middle=0), start=1)
    file.write_text("step,loss\n" + "".join(f"{50 * number},{loss}\n" for number, loss in points))
    code, out = run("--csv", str(file), "--target", "0.34", "--output", str(figure), *COSTS)
    assert code == Exit.DONE, out
    lines = out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert "\x1b" not in out
    assert lines[0] == "loss.csv: 120 points, up to step 6 000."
    assert "Verdict: identifiable." in lines
    assert any(line.startswith("all") for line in lines)
    assert any("law" in line and "foretold" in line for line in lines)
    costs = {line.split("  ")[0]: line.split()[-2:] for line in lines if line.startswith(("hours", "kWh", "PF", "EUR"))}
    # twice the data: 6,000 steps of 1.8 s are 3 h, at 100 W 0.3 kWh; a base twice as large costs double
    assert costs == {
        "hours": ["3", "6"],
        "kWh": ["0.3", "0.6"],
        "PF-days": ["0.00785", "0.0157"],
        "EUR": ["0.09", "0.18"],
    }
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_run_of_the_home_is_told_for_machines(home: Home, run: Run) -> None:
    database = Database(home.database)
    database.open()
    run_id = known_curves.add_run(database, known_curves.losses(30, noise=0.2))
    database.close()
    code, out = run(run_id, "--json")
    found = json.loads(out)
    assert code == Exit.DONE
    assert found["forecast"]["identifiable"] is False
    assert found["forecast"]["reasons"]
    assert found["forecast"]["twice"]["loss"]["value"] is None
    assert found["purchases"][-1]["what"] == "a base 2 times as large"
    assert run("R-20261121-7F3K9QXB")[0] == Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["1,1", "2,1"], "The loss curve has 2 points; a forecast needs 20 at least."),
        ([f"{i},2" for i in range(1, 31)], "The loss is the same at every step, so there is nothing to fit."),
        ([f"{i},{i}" for i in range(1, 31)], "The loss does not fall along the curve"),
        (["1,nan"], "Line 2 of bad.csv has a loss of nan, which is no finite number."),
    ],
)
def test_a_curve_that_tells_nothing_is_one_sentence(
    home: Home, run: Run, tmp_path: Path, rows: list[str], sentence: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("\n".join(["step,loss", *rows]))
    code, out = run("--csv", str(file))
    assert (code, sentence in " ".join(out.split())) == (Exit.FAILED, True), out


def test_one_of_run_and_file_is_needed_and_numbers_have_to_be_such(home: Home, run: Run, tmp_path: Path) -> None:
    assert run()[0] == Exit.USAGE
    assert run("R-1", "--csv", str(tmp_path / "x.csv"))[0] == Exit.USAGE
    assert run("R-1", "--target", "nan")[0] == Exit.USAGE
    assert run("R-1", "--larger", "0")[0] == Exit.USAGE
