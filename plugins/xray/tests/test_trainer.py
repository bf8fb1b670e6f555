"""The trainer: what it refuses, that it stops and goes on bit for bit, and what it leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    Device,
    Limits,
    PlanTask,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
    TrainRequest,
)
from clinic_ai.errors import ChildRefused, DatasetError
from clinic_ai.ml.calibration import conformal_band
from clinic_ai.processes import Child, ChildSpec
from clinic_ai_xray.candidate import choose_band
from clinic_ai_xray.dataset import labelled
from clinic_ai_xray.model_files import open_model
from clinic_ai_xray.plugin import describe_plugin
from clinic_ai_xray.tail import TailRecipe
from clinic_ai_xray.trainer import XrayTrainer

RECIPE = {"epochs": 8, "batch": 16, "patience": 8, "rate": 5e-3, "error": 0.2}
TRAINER = describe_plugin().trainer


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


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus):
    """A run that nothing interrupted, and its directory."""
    directory = tmp_path_factory.mktemp("run")
    return XrayTrainer().train(task_in(directory, corpus), Recorder()), directory


def test_it_learns_the_phantoms_and_exports_a_model(finished, corpus):
    result, directory = finished
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


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, finished, corpus, stop_after):
    task = task_in(tmp_path / "run", corpus)
    stopped = XrayTrainer().train(task, Recorder(stop_after))
    assert stopped.state == "stopped"
    assert len(stopped.history) == stop_after
    assert not (tmp_path / "run" / "model").exists()
    resumed = XrayTrainer().train(task, Recorder())
    assert resumed.history == finished[0].history
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
    broken = changed(
        corpus, lambda _, e: e.model_copy(update={"path": str(tmp_path / "gone")}) if e.path in gone else e
    ).model_copy(update={"digest": "1" * 64})
    result = XrayTrainer().train(task_in(tmp_path / "run", broken), Recorder())
    assert result.state == "finished"
    assert "3 images could not be read and were left out." in result.notes


def test_examples_of_another_condition_are_not_used(corpus):
    mixed = changed(corpus, lambda i, e: e.model_copy(update={"labels": {"effusion": 1}}) if i >= 60 else e)
    assert len(labelled(mixed, "pneumonia")) == 60
