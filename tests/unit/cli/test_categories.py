"""``study category``, ``plugin categories`` and what process makes of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.cli import main
from clinic_ai.cli.output import Exit
from clinic_ai.control.category_rows import category_rows
from clinic_ai.control.views import ModelRow
from clinic_ai.domain import JobKind, StudyState
from clinic_ai.errors import InputError
from clinic_ai.home import Home, init_home
from clinic_ai.process import category_folder, run_files
from clinic_ai.store import jobs, studies
from clinic_ai.store.audit import first_break, rows
from clinic_ai_ultrasound.plugin import describe_plugin

Run = Callable[..., tuple[int, str, str]]
CATEGORIES = describe_plugin().categories


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, standard output with single blanks, and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clinic-ai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), re.sub(r"\s+", " ", out), re.sub(r"\s+", " ", err)

    monkeypatch.setenv("COLUMNS", "80")
    return call


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        monkeypatch.setenv("CLINIC_AI_HOME", str(served.home.path))
        served.catalogue.manifests["ultrasound"] = describe_plugin()
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = init_home(tmp_path / "h")
    monkeypatch.setenv("CLINIC_AI_HOME", str(made.path))
    return made


def analysed(room: Room) -> str:
    """Return a study that the ultrasound plugin has analysed."""
    study_id = room.add_study(source="us room", modality="US", state="DONE")
    with room.database.write() as c:
        job_id = jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="ultrasound")
        jobs.lease(c, jobs.get_job(c, job_id), "test", (), "")
        jobs.succeed(c, job_id)
    return study_id


# ---------------------------------------------------------------- a study


def test_what_a_person_says_is_shown_recorded_and_analysed_anew(room: Room, run: Run) -> None:
    study_id = analysed(room)
    code, out, _ = run("study", "category", study_id)
    assert code == Exit.FAILED
    assert "Nothing says which category it is of" in out
    code, out, _ = run("study", "category", study_id, "Abodomen")
    assert code == Exit.DONE
    assert "are of the category abdomen" in out
    assert f"Study {study_id} is analysed again as version 2" in out
    code, out, _ = run("study", "category", study_id)
    assert code == Exit.DONE
    assert " chose abdomen on " in out
    assert "Abdomen, by a person's choice for the study." in out
    with room.database.read() as c:
        said = [row for row in rows(c, after=0, limit=1000) if row.action == "study.category"]
        assert [json.loads(row.details) for row in said] == [{"plugin": "ultrasound", "category": "abdomen"}]
        assert first_break(c) is None


def test_what_changes_nothing_makes_no_new_version_and_a_choice_can_be_taken_back(room: Room, run: Run) -> None:
    study_id = analysed(room)
    run("study", "category", study_id, "femur")
    for words in (("femur",), ("--clear",), ("--clear",)):  # version 2 is not analysed yet, and will heed it
        assert run("study", "category", study_id, *words)[0] == Exit.DONE
    with room.database.read() as c:
        newest = studies.get_study(c, study_id)
        assert (newest.version, newest.state) == (2, StudyState.CLOSED)
    found = json.loads(run("study", "category", study_id, "--json")[1])
    assert (found["chosen"], [image["category"] for image in found["images"]]) == ("", [""])


def test_study_show_says_the_category_of_each_image(room: Room, run: Run) -> None:
    study_id = analysed(room)
    assert "Nothing says which category it is of" in run("study", "show", study_id)[1]


def test_what_cannot_be_meant_is_said_with_what_can(room: Room, run: Run) -> None:
    study_id = analysed(room)
    code, _, err = run("study", "category", study_id, "femr")
    assert code == Exit.NOT_FOUND
    assert "Write femur" in err
    assert run("study", "category", study_id, "femur", "--plugin", "echo")[0] == Exit.NOT_FOUND
    assert run("study", "category", "S-1")[0] == Exit.NOT_FOUND
    assert run("study", "category", study_id, "femur", "--clear")[0] == Exit.USAGE


def test_a_technician_may_say_it(room: Room, run: Run) -> None:
    study_id = analysed(room)
    with room.client() as client:
        room.allow(technicians=(client.status().person,))
    assert run("study", "category", study_id, "femur")[0] == Exit.DONE


# ---------------------------------------------------------------- the plugins


def model(slot: str, state: str) -> ModelRow:
    return ModelRow(
        plugin="ultrasound", slot=slot, name=f"{slot}-x", version="1", digest="", state=state, reference=False
    )


def test_each_category_says_what_answers_or_exactly_why_nothing_does(tmp_path: Path) -> None:
    folder = tmp_path / "ultrasound" / "Abodomen"
    folder.mkdir(parents=True)
    (folder / "answers.xlsx").touch()
    models = [model("femur", "ACTIVE"), model("thorax", "CANDIDATE"), model("base", "ACTIVE")]
    manifests = {"ultrasound": describe_plugin()}
    found = {row.category: row for row in category_rows(manifests, models, tmp_path, base_answers=False)}
    assert (found["femur"].answered_by, found["femur"].note) == ("femur-x 1", "")
    assert "`clinic-ai model promote ultrasound thorax-x 1`" in found["thorax"].note
    assert f"`clinic-ai train run ultrasound {folder}`" in found["abdomen"].note
    lacks = f"it needs a labelled sheet (.xlsx) in {tmp_path / 'ultrasound' / 'cervix'}"
    assert (found["cervix"].answered_by, found["cervix"].note) == (
        "",
        f"category Cervix has no trained model: {lacks}",
    )
    found = {row.category: row for row in category_rows(manifests, models, tmp_path, base_answers=True)}
    assert found["cervix"].answered_by == "base-x 1, the base alone"


def test_categories_are_listed_with_and_without_a_daemon(room: Room, run: Run) -> None:
    code, out, _ = run("plugin", "categories")
    assert code == Exit.DONE
    assert "SCT 71341001" in out
    assert "Category Femur has no trained model" in out


def test_without_a_daemon_those_that_the_clinic_added_are_listed_too(home: Home, run: Run) -> None:
    folder = home.path / "categories" / "ultrasound"
    folder.mkdir(parents=True)
    (folder / "placenta.toml").write_text('key = "placenta"\nlabel = "Placenta"')
    keys = [row["category"] for row in json.loads(run("plugin", "categories", "--json")[1])]
    assert keys[-1] == "placenta"
    (folder / "placenta.toml").write_text('key = "placenta"')
    code, out, _ = run("plugin", "list")
    assert code == Exit.FAILED
    assert "is not used: label" in out


# ---------------------------------------------------------------- process


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("femur/img.png", "femur"),
        ("US/Trans-cerebellum/1/img.png", "Trans-cerebellum"),
        ("scans/img.png", ""),
        ("img.png", ""),
    ],
)
def test_process_takes_the_category_from_the_nearest_folder_that_was_named(path: str, folder: str) -> None:
    assert category_folder(Path(path), CATEGORIES) == folder


def test_process_refuses_what_is_no_category(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="“femr” is no category"):
        run_files([], tmp_path, modality="US", body_part="", settings=None, models=(), category="femr")
