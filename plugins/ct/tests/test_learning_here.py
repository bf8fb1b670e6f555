"""A folder of chests in the home of a clinic: checked, frozen, learned from, and held against the model in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import served_models
import training_set
from chests_at_home import COUNT, write_chests
from reviewed import reviewed_series
from school import open_school

from clinic_ai.contract import Dataset, Device, Limits, PluginManifest
from clinic_ai.domain import Presence, RunState
from clinic_ai.gating import JudgeTask
from clinic_ai.home import init_home
from clinic_ai.plugins import find_plugins
from clinic_ai.store import gates
from clinic_ai.store.runs import RunResult
from clinic_ai_ct.admission import admit
from clinic_ai_ct.phantoms import make
from clinic_ai_ct.phantoms.dicom import write_dicom
from clinic_ai_ct.preparing import on_network_grid
from clinic_ai_ct.series import task_of
from clinic_ai_ct.trainer import CTTrainer
from clinic_ai_ct.training.cases import Case, cases_of
from clinic_ai_ct.training.prepared import Preparing

LONGEST_S = 150.0


def manifest() -> PluginManifest:
    return find_plugins().manifests["ct"]


def test_chests_are_frozen_as_copies_and_learned_from(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    write_chests(home.labels / "ct")
    school = open_school(home, manifest())
    try:
        datasets = school.runs.datasets
        dataset = datasets.gather(manifest(), ("labels",), "ada")
        assert datasets.fresh(manifest(), ("labels",), since=dataset.dataset_id) == 0
        frozen = datasets.get(dataset.dataset_id)
        # Whoever replaces the mask of a volume has said something new of it.
        next((home.labels / "ct" / "lesion_masks" / "pleural_effusion").glob("*.nii.gz")).unlink()
        assert datasets.fresh(manifest(), ("labels",), since=dataset.dataset_id) == 1
    finally:
        school.close()
    assert {example.split for example in frozen.examples} == {"train", "validation", "test"}
    assert {one.role for example in frozen.examples for one in example.beside} == {"regions", "mask", "report"}
    kept = [path.read_bytes() for path in home.datasets.rglob("*") if path.is_file()]
    assert not any(b"Ada" in content for content in kept), "copies name nobody"

    base = training_set.write_base(tmp_path / "base")
    task = training_set.task(tmp_path, frozen, base, phase="localisation", epochs=1)
    assert CTTrainer().train(task, training_set.Told()).state == "finished"
    model = served_models.model(tmp_path / "tiny")
    judged = CTTrainer().judge(JudgeTask(model=model, dataset=frozen, limits=Limits(), device=Device()))
    tests = {example.sha256: example for example in frozen.examples if example.split == "test"}
    assert {row.sha256: row.patient_key for row in judged.rows} == {s: e.patient_key for s, e in tests.items()}
    for row in judged.rows:  # it draws consolidation everywhere, finds it, and nothing else
        wrong = {"consolidation"} | {name for name, there in tests[row.sha256].labels.items() if there}
        assert 0.3 < row.score < 1.0 - 0.02 * len(wrong)


@pytest.mark.torture  # six processes that import torch
def test_a_run_of_the_clinic_is_held_against_the_network_in_use(tmp_path: Path) -> None:
    home = init_home(tmp_path / "home")
    write_chests(home.labels / "ct")
    school = open_school(home, manifest(), examining=True)
    try:
        served_models.model(tmp_path / "tiny")
        school.registry.import_directory(tmp_path / "tiny", "ada")
        school.registry.promote("ct", "tiny", "1", "ada")
        checked = school.runs.check("ct", None)
        assert not checked.problems
        assert (checked.images, sum(checked.patients.values())) == (COUNT, COUNT)
        run_id = school.runs.start("ct", None, {"phase": "localisation", "epochs": 1}, "ada", at_once=True)
        run = school.runs.wait(run_id, LONGEST_S)
        assert run.state is RunState.FINISHED, run.error
        result = RunResult.model_validate(run.result)
        assert result.candidate is not None
        with school.database.read() as connection:
            found = gates.newest_report(connection, "ct", result.candidate.name, result.candidate.version)
    finally:
        school.close()
    assert found is not None
    assert found.comparison is not None, found.reasons
    assert (found.comparison.figure, found.comparison.alone) == ("agreement with labels and masks", False)
    assert found.comparison.overall.why_not.startswith("2 test images of 2 patients are too few to tell")


def test_what_was_signed_of_series_is_learned_from(tmp_path: Path) -> None:
    """A volume is the series that was judged: its voxels are those that the engine sees."""
    school = open_school(init_home(tmp_path / "home"), manifest())
    try:
        hashes = {}
        for number in range(3):
            phantom = make(number, shape=(48, 64, 64), spacing=(6.0, 5.6, 5.6), lesions=(), conditions=())
            files = write_dicom(phantom, tmp_path / f"series {number}")
            said = {"pleural_effusion": Presence.ABSENT, "fibrotic_sequela": Presence.PRESENT}
            hashes[f"{number:064x}"] = reviewed_series(school, number, files, said)
        datasets = school.runs.datasets
        assert datasets.fresh(manifest(), ("reviews",)) == 3
        dataset = datasets.gather(manifest(), ("reviews",), "ada")
        assert datasets.fresh(manifest(), ("reviews",), since=dataset.dataset_id) == 0
        assert {example.split for example in dataset.examples} == {"train", "validation", "test"}
        assert {example.patient_key for example in dataset.examples} == set(hashes)
        again = datasets.get(dataset.dataset_id)
    finally:
        school.close()
    prepare = Preparing(served_models.network_config(), None, 0, 3, 1)
    for case in cases_of(again):
        assert len(case.slices) == 47
        assert (case.labels["pleural_effusion"], case.labels["fibrosis"]) == (0, 1)
        assert b"PHANTOM" not in b"".join(path.read_bytes() for path in (case.volume, *case.slices))
        seen = prepare(case)
        number = next(n for n in range(3) if f"{n:064x}" == patient_of(again, case))
        series = sorted((tmp_path / f"series {number}").iterdir())
        admitted = admit(task_of(series, tmp_path)).admitted
        assert admitted is not None
        config = served_models.network_config()
        wanted = on_network_grid(admitted.volume, config, admitted.survey.centre)
        z, y, x = wanted.hu.shape
        assert (seen.hu[:z, :y, :x] == wanted.hu).all()
        assert (seen.image.numpy()[:, z:] == 0).all()


def patient_of(dataset: Dataset, case: Case) -> str:
    return next(example.patient_key for example in dataset.examples if example.sha256 == case.sha256)
