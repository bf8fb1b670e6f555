"""The trainer: what it refuses, that it stops and goes on bit for bit, and what it leaves behind."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    Dataset,
    Device,
    Limits,
    PlanTask,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
    TrainRequest,
)
from clinic_ai.errors import ChildRefused, DatasetError, PluginError
from clinic_ai.gating import JudgeTask
from clinic_ai.ml.calibration import conformal_band
from clinic_ai.ml.metrics import auroc
from clinic_ai.ml.model_files import open_model
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.workers import trainer as workers_trainer
from clinic_ai_xray import run
from clinic_ai_xray.candidate import choose_band
from clinic_ai_xray.dataset import labelled
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.trainer import XrayTrainer

RECIPE = {"epochs": 8, "batch": 16, "patience": 8, "rate": 5e-3, "error": 0.2}
TRAINER = describe_plugin().trainer
EMPTY = Dataset(dataset_id="D-none", plugin="xray", digest="0" * 64, examples=())


class Recorder:
    """Records progress and asks the run to stop after some epochs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[TrainingProgress] = []
        self._stop_after = stop_after

    def report(self, progress: TrainingProgress) -> None:
        self.seen.append(progress)

    def stop_requested(self) -> bool:
        return self._stop_after is not None and any(seen.epoch >= self._stop_after for seen in self.seen)


def task_in(directory: Path, corpus, recipe=RECIPE) -> TrainingTask:
    directory.mkdir(exist_ok=True)
    return TrainingTask(
        run_id="R-1",
        dataset=corpus,
        base=None,
        recipe=recipe,
        run_directory=str(directory),
        limits=Limits(),
        device=Device(),
    )


@pytest.fixture(scope="module", autouse=True)
def _a_second_passes_with_each_look_at_the_clock():
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus):
    """A run that nothing interrupted, its directory and what it reported."""
    directory, recorder = tmp_path_factory.mktemp("run"), Recorder()
    return XrayTrainer().train(task_in(directory, corpus), recorder), directory, recorder.seen


def test_it_learns_the_phantoms_and_exports_a_model(finished, corpus):
    result, directory, _ = finished
    assert result.state == "finished"
    assert result.scores.split == "test"
    assert result.scores.values["auroc"] > 0.8
    model = open_model(Path(result.model_directory))
    figures = model.manifest.validation["pneumonia"]
    assert figures.auroc == pytest.approx(result.scores.values["auroc"])
    assert not model.manifest.clinical_use
    assert model.manifest.parameters["promised_error"] == 0.2
    summary = json.loads((directory / "training_summary.json").read_text())
    assert summary["export_parity"] < 1e-4
    again = XrayTrainer().evaluate(model, corpus)
    assert again.values["auroc"] == pytest.approx(result.scores.values["auroc"])


def test_what_it_makes_of_test_images_is_what_it_was_measured_on(finished, corpus):
    result, _, _ = finished
    model = open_model(Path(result.model_directory))
    task = JudgeTask(model=model, dataset=corpus, limits=Limits(), device=Device())
    found = XrayTrainer().judge(task)
    assert (found.metric, found.figure) == ("auroc", "AUROC for pneumonia")
    test = {example.sha256: example for example in corpus.examples if example.split == "test"}
    assert {row.key for row in found.rows} == set(test)
    assert all(row.label == test[row.key].labels["pneumonia"] for row in found.rows)
    assert all(row.patient_key == test[row.key].patient_key for row in found.rows)
    labels, scores = [row.label for row in found.rows], [row.score for row in found.rows]
    assert auroc(labels, scores) == pytest.approx(result.scores.values["auroc"])
    assert set(found.rows[0].groups) == {"sex", "age", "view", "station", "model"}
    untested = corpus.model_copy(update={"examples": tuple(e for e in corpus.examples if e.split != "test")})
    with pytest.raises(DatasetError, match="No test image of the dataset is labelled for pneumonia"):
        XrayTrainer().judge(task.model_copy(update={"dataset": untested}))


def test_a_child_that_only_judges_does_without_torch(finished, corpus):
    result, _, _ = finished
    task = JudgeTask(model=open_model(Path(result.model_directory)), dataset=corpus, limits=Limits(), device=Device())
    program = (
        "import sys; from clinic_ai.gating import JudgeTask; from clinic_ai_xray.trainer import XrayTrainer; "
        "print(len(XrayTrainer().judge(JudgeTask.model_validate_json(sys.stdin.read())).rows), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=task.model_dump_json(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(sum(example.split == "test" for example in corpus.examples)), "False"]


def left_after(seen: list[TrainingProgress]) -> dict[int, float | None]:
    """Return the seconds that were said to be left after each epoch."""
    return {progress.epoch: progress.eta_s for progress in seen if progress.metric is not None}


def test_it_says_how_long_it_takes_still(finished):
    left = left_after(finished[2])
    assert list(left) == list(range(1, 9))
    assert left[1] - left[8] == pytest.approx(7 * (left[7] - left[8]), rel=0.25)
    ending = [progress for progress in finished[2] if progress.epoch == 8 and progress.metric is None]
    assert [progress.message for progress in ending] == ["measures the model", "exports the model", "draws the figures"]
    assert left[8] > ending[0].eta_s > ending[2].eta_s > 0


def test_it_leaves_figures_a_history_and_figures_by_subgroup(finished):
    result, directory, _ = finished
    summary = json.loads((directory / "training_summary.json").read_text())
    assert summary["figures"] == ["figures/loss.png", "figures/roc.png", "figures/reliability.png"]
    for name in summary["figures"]:
        with Image.open(directory / name) as figure:
            assert figure.width >= 1200
    with (directory / summary["history_table"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [{key: float(value) for key, value in row.items()} for row in rows] == list(result.history)
    assert list(summary["subgroups"]) == ["sex", "age", "view", "station", "model"]
    ages = {age: figures["images"] for age, figures in summary["subgroups"]["age"].items()}
    assert ages == {"40-64": 6, "65+": 6}  # the dataset says so, and no header
    (figures,) = summary["subgroups"]["view"].values()
    assert (figures["images"], figures["patients"], figures["positives"]) == (12, 6, 6)
    assert figures["auroc"] == pytest.approx(result.scores.values["auroc"])
    low, high = figures["auroc_interval"]
    assert low <= figures["auroc"] <= high


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, finished, corpus, stop_after):
    task = task_in(tmp_path / "run", corpus)
    stopped = XrayTrainer().train(task, Recorder(stop_after))
    assert stopped.state == "stopped"
    assert len(stopped.history) == stop_after
    assert not (tmp_path / "run" / "model").exists()
    recorder = Recorder()
    resumed = XrayTrainer().train(task, recorder)
    assert resumed.history == finished[0].history
    unbroken = dict(list(left_after(finished[2]).items())[stop_after:])
    assert left_after(recorder.seen) == pytest.approx(unbroken, rel=0.15)
    one, other = (Path(result.model_directory) / "model.onnx" for result in (resumed, finished[0]))
    assert one.read_bytes() == other.read_bytes()


def test_a_torn_checkpoint_is_passed_over(tmp_path, finished, corpus):
    task = task_in(tmp_path / "run", corpus)
    XrayTrainer().train(task, Recorder(3))
    newest = tmp_path / "run" / "checkpoints" / "epoch-00003"
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    resumed = XrayTrainer().train(task, Recorder())
    assert "Went on after epoch 2." in resumed.notes
    assert resumed.history == finished[0].history


def test_a_stop_while_images_are_read_ends_the_run(tmp_path, corpus):
    class AtOnce(Recorder):
        def stop_requested(self) -> bool:
            return True

    result = XrayTrainer().train(task_in(tmp_path / "run", corpus), AtOnce())
    assert result.state == "stopped"
    assert result.history == ()


def test_in_a_child_it_reports_and_stops(tmp_path, corpus):
    child = Child(ChildSpec(kind="trainer", name="xray trainer", confinement=Confinement()))
    try:
        plan = child.call(
            "plan", PlanTask(trainer=TRAINER, dataset=corpus, limits=Limits()), TrainingPlan, timeout_s=90
        )
        assert plan.steps > 0
        assert plan.pf_days > 0
        reports: list[TrainingProgress] = []

        def on_progress(body: dict[str, object]) -> None:
            reports.append(TrainingProgress.model_validate(body))
            if reports[-1].epoch == 1:
                child.request_stop()

        long_run = task_in(tmp_path / "run", corpus, {"epochs": 5000, "patience": 5000})
        request = TrainRequest(trainer=TRAINER, task=long_run)
        result = child.call("train", request, TrainingResult, timeout_s=120, on_progress=on_progress)
        assert result.state == "stopped"
        assert 1 <= len(result.history) < 5000
        strange = TrainRequest(trainer=TRAINER, task=task_in(tmp_path / "other", corpus, {"nonsense": 1}))
        with pytest.raises(ChildRefused, match="no key nonsense") as caught:
            child.call("train", strange, TrainingResult, timeout_s=60)
        assert caught.value.code == "dataseterror"
    finally:
        child.kill()


def test_a_missing_package_is_named_before_anything_is_trained(monkeypatch):
    for module in ("clinic_ai_xray.trainer", "clinic_ai_xray.run", "clinic_ai_xray.record", "clinic_ai.ml.figures"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PluginError, match="needs the Python package matplotlib, which is not installed"):
        workers_trainer.plan(PlanTask(trainer=TRAINER, dataset=EMPTY, limits=Limits()), None)


# ---------------------------------------------------------------- refused before any work


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": "many"}, "epochs is 'many'; write a whole number, such as epochs=30"),
        ({"epochs": float("inf")}, "epochs is inf"),
        ({"epochs": 2.5}, "epochs is 2.5; write a whole number"),
        ({"rate": "fast"}, "rate is 'fast'; write a number"),
        ({"warm": "no"}, "warm is 'no'; write true or false, such as warm=false"),
        ({"error": 10}, "error is 10; it is a share from 0.01 to 0.4"),
        ({"error": 0.001}, "error is 0.001"),
        ({"weight_decay": -1}, "weight_decay is at least 0"),
        ({"seed": -1}, "seed is from 0 to"),
        ({"seed": 2**64}, "seed is from 0 to"),
    ],
)
def test_a_recipe_of_another_kind_is_named(values, says):
    with pytest.raises(DatasetError, match=re.escape(says)):
        TailRecipe.parse(values)


def test_a_recipe_takes_the_kinds_of_its_defaults():
    recipe = TailRecipe.parse({"epochs": 5.0, "rate": 1, "warm": True, "condition": "pneumonia"})
    assert (recipe.epochs, recipe.rate, recipe.warm) == (5, 1.0, True)


def test_an_error_is_promised_where_there_are_images_enough():
    labels, chance = np.repeat([0, 1, 0, 1], [7, 2, 2, 7]), np.linspace(0.05, 0.95, 18)
    band, promised, notes = choose_band(labels, chance, 0.1)
    assert (band, promised, notes) == (conformal_band(chance, labels, band.threshold, error=0.1), 0.1, ())
    band, promised, notes = choose_band(labels[1:], chance[1:], 0.1)
    assert promised is None
    assert band.low < band.threshold < band.high
    assert notes[0].startswith("With 8 images without the condition in the validation part, an error of at most 10 % ")
    assert "(9 are needed); the model abstains on the 15 %" in notes[0]


def changed(corpus, change):
    return corpus.model_copy(update={"examples": tuple(change(i, e) for i, e in enumerate(corpus.examples))})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda _, e: e.model_copy(update={"labels": {"pneumonia": 0}}) if e.split == "validation" else e,
            "validation part has 0 images with pneumonia",
        ),
        (lambda _, e: e.model_copy(update={"patient_key": f"only-{e.split}"}), "of one patient"),
        (lambda i, e: e.model_copy(update={"patient_key": "torn"}) if i < 6 else e, "more than one part"),
        (lambda i, e: e.model_copy(update={"sha256": "a" * 64}) if i in (4, 5) else e, "both with and without"),
        (lambda i, e: e.model_copy(update={"sha256": "a" * 64}) if i in (0, 4) else e, "different patients"),
        (lambda _, e: e.model_copy(update={"labels": {}}), "holds no label"),
        (lambda i, e: e.model_copy(update={"labels": {**e.labels, "effusion": i % 2}}), "one condition"),
    ],
)
def test_a_dataset_that_leaks_or_means_nothing_is_refused(corpus, change, sentence):
    with pytest.raises(DatasetError, match=sentence):
        XrayTrainer().plan(changed(corpus, change), Limits(), {})


def test_the_plan_follows_the_recipe_and_refuses_one_it_does_not_know(corpus):
    short, long = (XrayTrainer().plan(corpus, Limits(), {"epochs": epochs}) for epochs in (3, 300))
    assert (short.epochs, long.epochs) == (3, 300)
    assert long.steps == 100 * short.steps
    assert long.seconds > short.seconds
    with pytest.raises(DatasetError, match="epoch"):
        XrayTrainer().plan(corpus, Limits(), {"epoch": 5})


def test_unreadable_images_are_counted_and_left_out(tmp_path, corpus):
    missing = {e.path for e in corpus.examples if e.split == "train"}
    gone = sorted(missing)[:3]
    lost = [e.sha256[:12] for e in corpus.examples if e.path in gone]
    broken = changed(
        corpus, lambda _, e: e.model_copy(update={"path": str(tmp_path / "gone")}) if e.path in gone else e
    ).model_copy(update={"digest": "1" * 64})
    result = XrayTrainer().train(task_in(tmp_path / "run", broken), Recorder())
    assert result.state == "finished"
    (note,) = (note for note in result.notes if "cannot be read: 3 of 72 images (3 of train)" in note)
    assert all(sha256 in note for sha256 in lost)


def test_unreadable_images_that_leave_too_few_are_named(tmp_path, corpus):
    gone = [e for e in corpus.examples if e.split == "validation" and e.labels["pneumonia"] == 1][1:]
    broken = changed(corpus, lambda _, e: e.model_copy(update={"path": str(tmp_path / "gone")}) if e in gone else e)
    broken = broken.model_copy(update={"digest": "2" * 64})
    with pytest.raises(DatasetError, match=f"has 1 images with pneumonia.*5 of 72 images.*{gone[0].sha256[:12]}"):
        XrayTrainer().train(task_in(tmp_path / "run", broken), Recorder())


def test_examples_of_another_condition_are_not_used(corpus):
    mixed = changed(corpus, lambda i, e: e.model_copy(update={"labels": {"effusion": 1}}) if i >= 60 else e)
    assert len(labelled(mixed, "pneumonia")) == 60


def test_a_model_of_another_condition_than_its_base_gets_a_slot_of_its_own(tmp_path, corpus):
    other = changed(corpus, lambda _, e: e.model_copy(update={"labels": {"effusion": e.labels["pneumonia"]}}))
    other = other.model_copy(update={"digest": "2" * 64})
    result = XrayTrainer().train(task_in(tmp_path / "run", other, {**RECIPE, "epochs": 1}), Recorder())
    manifest = open_model(Path(result.model_directory)).manifest
    assert (manifest.slot, manifest.parameters["condition"]) == ("effusion_fast", "effusion")
