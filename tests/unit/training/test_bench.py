"""A model is measured in a real child; its int8 version is kept if the trainer takes it, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_learner
from school import School, open_school, tiny_png
from tiny_learner import read_weight, write_model

from clinic_ai.domain import ModelState
from clinic_ai.errors import ChildMisbehaved, ChildRefused, Conflict, DatasetError, NotFound
from clinic_ai.home import Home


@pytest.fixture
def school(home: Home) -> Iterator[School]:
    manifest = tiny_learner.manifest().model_copy(update={"trainer": "tiny_learner:TinyBencher"})
    school = open_school(home, manifest)
    yield school
    school.close()
    assert not school.crew.living()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "labelled"
    directory.mkdir()
    rows = ["file,patient_id,pneumonia"]
    for number in range(4):
        (directory / f"{number}.png").write_bytes(tiny_png(str(number)))
        rows.append(f"{number}.png,P{number},{number % 2}")
    (directory / "labels.csv").write_text("\n".join(rows) + "\n")
    return directory


def imported(school: School, place: Path, weight: float) -> str:
    """Import a model of this weight; return its version."""
    version = f"{weight:g}"
    write_model(place / version, weight, version=version)
    school.registry.import_directory(place / version, "ada")
    return version


def test_an_int8_version_that_is_taken_becomes_a_candidate_once(school: School, folder: Path, tmp_path: Path) -> None:
    version = imported(school, tmp_path, 2.0)
    found = school.runs.bench("tiny", "scalar", version, folder, "ada")
    assert found.candidate is not None
    model = next(m for m in school.registry.list_models() if m.version == f"{version}-int8")
    assert (model.ref, model.state, model.imported_by) == (found.candidate, ModelState.CANDIDATE, "ada")
    assert read_weight(Path(school.registry.loaded(found.candidate).directory)) == 1.0
    assert school.registry.active("tiny") == ()
    assert found.dataset_id.startswith("D-")
    # What libraries write aside goes where it is removed with the rest.
    assert Path(found.result.notes[0]).parent == school.home.runs
    assert list(school.home.runs.iterdir()) == []
    with pytest.raises(Conflict, match="has an int8 version already"):
        school.runs.bench("tiny", "scalar", version, folder, "ada")


def test_one_that_is_not_taken_leaves_nothing(school: School, folder: Path, tmp_path: Path) -> None:
    version = imported(school, tmp_path, 1.0)
    (school.home.runs / ".bench-interrupted").mkdir()
    found = school.runs.bench("tiny", "scalar", version, folder, "ada")
    assert (found.candidate, found.result.reason) == (None, "It is too light.")
    assert [model.version for model in school.registry.list_models()] == [version]
    assert list(school.home.runs.iterdir()) == []


def test_without_images_there_is_its_speed_alone(school: School, tmp_path: Path) -> None:
    found = school.runs.bench("tiny", "scalar", imported(school, tmp_path, 2.0), None, "ada")
    assert (found.result.original.milliseconds, found.result.int8, found.dataset_id) == (1.0, None, "")


def test_a_trainer_that_writes_elsewhere_is_not_believed(school: School, folder: Path, tmp_path: Path) -> None:
    version = imported(school, tmp_path, 3.0)
    with pytest.raises(ChildMisbehaved, match="not where it was told"):
        school.runs.bench("tiny", "scalar", version, folder, "ada")
    assert [model.version for model in school.registry.list_models()] == [version]


def test_what_cannot_be_measured_is_refused_in_words(school: School, folder: Path, tmp_path: Path) -> None:
    version = imported(school, tmp_path, 1.0)
    with pytest.raises(NotFound, match="tiny/scalar/0"):
        school.runs.bench("tiny", "scalar", "0", None, "ada")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        school.runs.bench("tiny", "scalar", version, tmp_path / "empty", "ada")
    run_id = school.runs.start("tiny", folder, {"hold_at": 1}, "ada")
    deadline = time.monotonic() + 30
    while school.runs.get(run_id).progress is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(Conflict, match=f"{run_id} is at work"):
        school.runs.bench("tiny", "scalar", version, None, "ada")


def test_a_trainer_that_measures_nothing_says_so(home: Home, tmp_path: Path) -> None:
    school = open_school(home)
    try:
        version = imported(school, tmp_path, 1.0)
        with pytest.raises(ChildRefused, match="plugin tiny cannot measure"):
            school.runs.bench("tiny", "scalar", version, None, "ada")
    finally:
        school.close()
