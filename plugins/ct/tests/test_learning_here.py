"""A folder of chests in the home of a clinic: checked, frozen, learned from, and held against the model in use."""

from __future__ import annotations

from pathlib import Path

import served_models
from chests_at_home import COUNT, write_chests
from school import School, open_school

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import RunState
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import find_plugins
from clinic_ai.store import gates
from clinic_ai.store.runs import RunResult

LONGEST_S = 150.0


def manifest() -> PluginManifest:
    return find_plugins().manifests["ct"]


def test_chests_are_frozen_learned_from_and_held_against_the_network_in_use(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    write_chests(home.labels / "ct")
    school = open_school(home, manifest(), examining=True)
    try:
        _learn(school, home, tmp_path)
    finally:
        school.close()


def _learn(school: School, home: Home, tmp_path: Path) -> None:
    served_models.model(tmp_path / "tiny")
    school.registry.import_directory(tmp_path / "tiny", "ada")
    school.registry.promote("ct", "tiny", "1", "ada")
    checked = school.runs.check("ct", None)
    assert not checked.problems
    assert (checked.images, sum(checked.patients.values())) == (COUNT, COUNT)
    assert all(checked.patients.values()), "each part has somebody"

    run_id = school.runs.start("ct", None, {"phase": "localisation", "epochs": 1}, "ada", at_once=True)
    frozen = school.runs.datasets.get(school.runs.get(run_id).dataset_id)
    kept = [path.read_bytes() for path in home.datasets.rglob("*") if path.is_file()]
    assert not any(b"Ada" in content for content in kept), "copies name nobody"
    roles = {one.role for example in frozen.examples for one in example.beside}
    assert roles == {"regions", "mask", "report"}
    assert school.runs.datasets.fresh(manifest(), ("labels",), since=frozen.dataset_id) == 0
    run = school.runs.wait(run_id, LONGEST_S)
    assert run.state is RunState.FINISHED, run.error
    result = RunResult.model_validate(run.result)
    assert result.candidate is not None
    with school.database.read() as connection:
        found = gates.newest_report(connection, "ct", result.candidate.name, result.candidate.version)
    assert found is not None
    assert found.comparison is not None, found.reasons
    tests = sum(example.split == "test" for example in frozen.examples)
    assert (found.comparison.figure, found.comparison.overall.examples) == ("agreement with labels and masks", tests)
    assert not found.comparison.alone
    assert found.comparison.overall.why_not.startswith("2 test images of 2 patients are too few to tell")

    # Whoever replaces the mask of a volume has said something new of it.
    mask = next((home.labels / "ct" / "lesion_masks" / "pleural_effusion").glob("*.nii.gz"))
    mask.unlink()
    assert school.runs.datasets.fresh(manifest(), ("labels",), since=frozen.dataset_id) == 1
