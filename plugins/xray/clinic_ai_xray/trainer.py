"""Trains the head of a fast classifier on labelled images and exports it as a candidate model."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import torch

from clinic_ai.contract import (
    Dataset,
    Device,
    Limits,
    LoadedModel,
    Progress,
    Recipe,
    Scores,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.errors import DatasetError
from clinic_ai.ml.checkpoints import Tensors, write_durably
from clinic_ai.ml.onnx import weights
from clinic_ai_xray.candidate import Candidate, score
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.dataset import Features, Stopped, compute_features, condition_of, labelled
from clinic_ai_xray.head import WEIGHTS, HeadRecipe, HeadState, HeadTraining, Part
from clinic_ai_xray.model_files import open_model
from clinic_ai_xray.served import ServedModel, pinned_bytes

_BASE_FLOPS = 1.4e8
"""Floating-point operations of the frozen base for one image at 128 x 128."""
_HEAD_FLOPS = 6 * 82_049
"""Forward and backward through the head for one example."""
_SECONDS_PER_IMAGE = 0.03
"""Reading an image and two passes of the base, one thread."""
_SECONDS_PER_STEP = 0.004
_PF_DAY = 1e15 * 86_400
_MEMORY_MB = 900


class XrayTrainer:
    """Frozen base, features computed once, the head trained on them; one run in one child."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe) -> TrainingPlan:
        """Say what training would cost at most, should no epoch end it early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable.
        """
        head = HeadRecipe.parse(recipe)
        examples = labelled(dataset, condition_of(dataset, str(recipe.get("condition", ""))))
        train = sum(example.split == "train" for example in examples)
        steps = head.epochs * -(-train // head.batch)
        seconds = len(examples) * _SECONDS_PER_IMAGE + steps * _SECONDS_PER_STEP + 10.0
        flops = len(examples) * 2 * _BASE_FLOPS + head.epochs * train * _HEAD_FLOPS
        notes = [f"{len(examples)} images, {train} of them for training; the base is frozen."]
        if seconds > limits.max_seconds:
            notes.append(f"It will be stopped after {limits.max_seconds:.0f} s and can go on later.")
        return TrainingPlan(
            steps=steps,
            epochs=head.epochs,
            memory_mb=_MEMORY_MB,
            seconds=seconds,
            pf_days=flops / _PF_DAY,
            notes=tuple(notes),
        )

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory.

        Raise DatasetError if training would leak or mean nothing, ModelError if the base cannot be used.
        """
        torch.set_num_threads(max(1, task.limits.threads))
        return _Run(task, progress).go()

    def evaluate(self, model: LoadedModel, dataset: Dataset) -> Scores:
        """Score ``model`` on the test split of ``dataset``. Raise DatasetError unless both classes are in it."""
        served = ServedModel(model, Device())
        examples = [e for e in dataset.examples if e.split == "test" and served.condition in e.labels]
        labels = [example.labels[served.condition] for example in examples]
        if len(set(labels)) < 2:
            raise DatasetError(f"The test part needs images with {served.condition} and images without.")
        logits = [float(served.logits(stack([read_input(e.path, served.side)]))[0]) for e in examples]
        return score("test", labels, logits, [e.patient_key for e in examples], served.temperature)


def reference_base() -> LoadedModel:
    """Return the reference model that ships with the plugin, as the base of a first training."""
    return open_model(Path(str(files("clinic_ai_xray") / "reference" / "pneumonia-fast")))


class _Run:
    """One run of the trainer: features, head, export."""

    def __init__(self, task: TrainingTask, progress: Progress) -> None:
        self._task = task
        self._progress = progress
        self._began = time.monotonic()
        self._directory = Path(task.run_directory)
        wanted = task.recipe.get("condition", "")
        self._condition = condition_of(task.dataset, str(wanted))
        self._recipe = HeadRecipe.parse(task.recipe)
        self._base_model = task.base or reference_base()
        self._base = ServedModel(self._base_model, task.device)
        self._notes: list[str] = []

    def go(self) -> TrainingResult:
        """Do what is left to do."""
        examples = labelled(self._task.dataset, self._condition)
        try:
            features, unreadable = compute_features(
                self._base,
                examples,
                self._directory / "features",
                lambda done: self._say(f"{done} of {len(examples)} images read"),
                self._should_stop,
            )
        except Stopped:
            return TrainingResult(state="stopped", notes=("Stopped while images were read.",))
        if unreadable:
            self._notes.append(f"{unreadable} images could not be read and were left out.")
            labelled(self._task.dataset.model_copy(update={"examples": features.examples}), self._condition)
        training = self._training(features)
        if training.resumed_from:
            self._notes.append(f"Went on after epoch {training.resumed_from}.")
        state = training.run(lambda entry: self._report(entry, training.steps_per_epoch), self._should_stop)
        if not state.finished:
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        scores = self._export(features, state, training.best_weights())
        return TrainingResult(
            state="finished",
            model_directory=str(self._directory / "model"),
            scores=scores,
            history=tuple(state.history),
            notes=tuple(self._notes),
        )

    def _training(self, features: Features) -> HeadTraining:
        train = features.part("train", self._condition)
        validation = features.part("validation", self._condition)
        initial = weights(pinned_bytes(self._base_model), tuple(f"head.{name}" for name in WEIGHTS))
        fingerprint = {
            "dataset": self._task.dataset.digest,
            "base": self._base_model.ref.digest,
            "condition": self._condition,
            "recipe": asdict(self._recipe),
        }
        return HeadTraining(
            Part(*train[:2]),
            Part(*validation[:2]),
            self._recipe,
            self._directory / "checkpoints",
            hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest(),
            {name.removeprefix("head."): value for name, value in initial.items()},
        )

    def _export(self, features: Features, state: HeadState, best: Tensors) -> Scores:
        """Write the candidate into ``model`` and the summary beside it; return the figures."""
        candidate = Candidate(self._task, self._base_model, self._condition, features, best)
        if candidate.split != "test":
            self._notes.append("The test part lacks a class; the figures are of the validation part and too good.")
        difference = candidate.write(self._directory / "model")
        summary = {
            "run": self._task.run_id,
            "condition": self._condition,
            "dataset": self._task.dataset.dataset_id,
            "base": self._base_model.ref.label(),
            "recipe": asdict(self._recipe),
            "best_epoch": state.best_epoch,
            "history": state.history,
            "temperature": candidate.temperature,
            "scores": candidate.scores.model_dump(mode="json"),
            "export_parity": difference,
            "seconds": round(time.monotonic() - self._began, 1),
            "notes": self._notes,
        }
        write_durably(self._directory / "training_summary.json", json.dumps(summary, indent=1).encode())
        return candidate.scores

    def _should_stop(self) -> bool:
        too_long = time.monotonic() - self._began > self._task.limits.max_seconds
        return too_long or self._progress.stop_requested()

    def _report(self, entry: dict[str, float], steps: int) -> None:
        epoch = int(entry["epoch"])
        spent = time.monotonic() - self._began
        self._progress.report(
            TrainingProgress(
                epoch=epoch,
                epochs=self._recipe.epochs,
                step=epoch * steps,
                steps=self._recipe.epochs * steps,
                loss=entry["loss"],
                metric=entry["validation_auroc"],
                metric_name="validation AUROC",
                eta_s=spent / epoch * (self._recipe.epochs - epoch),
            )
        )

    def _say(self, message: str) -> None:
        self._progress.report(TrainingProgress(epoch=0, epochs=self._recipe.epochs, step=0, steps=0, message=message))
