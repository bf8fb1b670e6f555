"""``clinic-ai dataset`` and ``train … --from`` in a home without a daemon; its children are real."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_learner
from fixed_splits import fix_splits
from harness import ROOMY
from reviewed import reviewed, settle
from school import open_school, tiny_png

from clinic_ai.cli import main, offline
from clinic_ai.cli.output import Exit
from clinic_ai.domain import Presence
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.store.datasets import list_datasets
from clinic_ai.store.runs import add_run

Run = Callable[..., tuple[int, str]]
TINY = tiny_learner.manifest()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = init_home(tmp_path / "h")
    made.clinic_toml.write_text(ROOMY)
    monkeypatch.setenv("CLINIC_AI_HOME", str(made.path))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(tiny_learner.__file__))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(offline, "find_plugins", lambda: PluginCatalogue({"tiny": TINY}, []))
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((out + err).split())

    return call


@pytest.fixture
def frozen(home: Home) -> str:
    """Freeze eight reviewed images and four of a folder; return the id of the dataset, which has a run."""
    school = open_school(home)
    try:
        fix_splits(school.database)
        for number in range(8):
            reviewed(school, number, (Presence.PRESENT, Presence.ABSENT)[number % 2])
        settle(school)
        for number in range(4):
            side = ("positive", "negative")[number % 2]
            path = home.labels / "tiny" / "pneumonia" / side / f"anna {number}" / "a.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(tiny_png(f"dropped {number}"))
        dataset = school.runs.datasets.gather(TINY, ("reviews", "labels"), "ada")
        with school.database.write() as c:
            add_run(c, "tiny", dataset.dataset_id, {}, "ada")
        return dataset.dataset_id
    finally:
        school.close()


def test_list_show_and_check(home: Home, run: Run, frozen: str) -> None:
    code, out = run("dataset", "list")
    assert (code, frozen in out, "8 from reviews, 4 from folders" in out) == (Exit.DONE, True, True)
    [row] = json.loads(run("dataset", "list", "--json")[1])
    assert (sum(row["images"].values()), sum(row["patients"].values()), len(row["runs"])) == (12, 12, 1)
    assert (row["sources"], row["reviews"]) == ({"reviews": 8, "labels": 4}, 8)
    assert str(home.path) not in json.dumps(row)

    code, out = run("dataset", "show", frozen)
    assert code == Exit.DONE
    for expected in (f"{home.labels / 'tiny'}, given by ada", "train: ", "; pneumonia in ", "W-2", row["runs"][0]):
        assert expected in out

    code, out = run("dataset", "check", frozen)
    assert (code, f"{frozen} is whole: 12 images, no leak." in out) == (Exit.DONE, True)
    victim = next(path for path in (home.datasets / "objects").rglob("*") if path.is_file())
    victim.chmod(0o600)
    victim.write_bytes(b"x")
    code, out = run("dataset", "check", frozen)
    assert (code, "1 image is missing or not what was frozen" in out, "1 problem in" in out) == (
        Exit.FAILED,
        True,
        True,
    )
    assert run("dataset", "check", "D-none")[0] == Exit.NOT_FOUND
    assert run("dataset", "show", "D-none")[0] == Exit.NOT_FOUND


def test_a_run_learns_from_reviews_and_folders(home: Home, run: Run, frozen: str) -> None:
    code, out = run("train", "run", "tiny", "--from", "reviews", "--set", "steps=2", "--json")
    assert (code, json.loads(out)["state"]) == (Exit.DONE, "FINISHED")
    made = json.loads(out)["dataset_id"]
    rows = {row["dataset_id"]: row for row in json.loads(run("dataset", "list", "--json")[1])}
    assert rows[made]["sources"] == {"reviews": 8, "labels": 0}
    assert rows[made]["parents"] == [frozen]
    code, out = run("train", "check", "tiny", "--from", "reviews,labels")
    assert (code, f"signed reviews and {home.labels / 'tiny'}: 12 labelled images." in out) == (Exit.DONE, True)


def test_sources_that_cannot_be_meant_are_refused(home: Home, run: Run) -> None:
    assert run("train", "check", "tiny", "--from", "mail")[0] == Exit.USAGE
    assert run("train", "run", "tiny", str(home.labels), "--from", "reviews")[0] == Exit.USAGE
    code, out = run("train", "check", "tiny", "--from", "reviews")
    assert (code, "There is no labelled image in it" in out) == (Exit.FAILED, True)
    assert run("dataset", "list")[1] == "No datasets."


def test_every_home_with_a_dataset_lists_it_though_it_says_not_where_it_is_from(
    home: Home, run: Run, frozen: str
) -> None:
    school = open_school(home)
    try:
        with school.database.write() as c:
            c.exec_driver_sql("UPDATE datasets SET lineage = '{}'")
            assert len(list_datasets(c)) == 1
    finally:
        school.close()
    assert "a folder" in run("dataset", "list")[1]
    assert "by an earlier version" in run("dataset", "show", frozen)[1]
