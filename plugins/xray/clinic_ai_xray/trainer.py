"""Trains the tail of a classifier on labelled images and exports it as a candidate model."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import torch

from clinic_ai.benching import BenchResult, BenchTask
from clinic_ai.contract import (
    Dataset,
    Device,
    Example,
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
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.gating import Judgement, JudgeTask
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.onnx import weights
from clinic_ai.ml.subgroups import weak_groups
from clinic_ai_xray.bench import bench, judge
from clinic_ai_xray.cache import SPLITS, Part, Stopped, compute_parts
from clinic_ai_xray.candidate import CHECKED_IMAGES, Candidate
from clinic_ai_xray.dataset import condition_of, labelled
from clinic_ai_xray.judging import judge as judge_model
from clinic_ai_xray.record import write_record
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.tail import (
    METRIC,
    METRIC_NAME,
    Labelled,
    Standardisation,
    Tail,
    TailRecipe,
    TailState,
    TailTraining,
    trained_names,
)
from clinic_ai_xray.tiers import Tier, tier_named

_PF_DAY = 1e15 * 86_400
_SECONDS_PER_FILE = 0.01
"""Reading and preparing one image, one thread."""
_NAMED = 10
"""So many images are named in a note; the rest are counted."""


class XrayTrainer:
    """Frozen base, its activations computed once, the tail trained on them; one run in one child."""

    def plan(
        self,
        dataset: Dataset,
        limits: Limits,
        recipe: Recipe,
        base: LoadedModel | None = None,  # noqa: ARG002 - bases of one tier cost the same
    ) -> TrainingPlan:
        """Say what training would cost at most, should no epoch end it early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable.
        """
        chosen = TailRecipe.parse(recipe)
        tier = tier_named(chosen.tier)
        examples = labelled(dataset, condition_of(dataset, str(recipe.get("condition", ""))))
        train = sum(example.split == "train" for example in examples)
        views = train * chosen.views + len(examples) - train
        rows = chosen.epochs * train
        checks = 4 * min(len(examples) - train, CHECKED_IMAGES)
        computing = views * tier.seconds_per_view + rows * tier.seconds_per_row
        exporting = _export_seconds(tier, len(examples) - train)
        seconds = len(examples) * _SECONDS_PER_FILE + computing + exporting + 5.0
        notes = [
            f"{len(examples)} images, {train} of them for training in {chosen.views} views; the base is frozen.",
            f"The run directory takes about {views * tier.kept_bytes / 1e6:.0f} MB of disk.",
        ]
        if seconds > limits.max_seconds:
            notes.append(f"It will be stopped after {limits.max_seconds:.0f} s and can go on later.")
        return TrainingPlan(
            steps=chosen.epochs * -(-train // chosen.batch),
            epochs=chosen.epochs,
            memory_mb=tier.memory_mb,
            seconds=seconds,
            pf_days=((views + checks) * tier.base_flops + rows * tier.tail_flops) / _PF_DAY,
            notes=tuple(notes),
        )

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory.

        Raise DatasetError if training would leak or mean nothing, ModelError if the base cannot be used.
        """
        torch.set_num_threads(max(1, task.limits.threads))
        return _Run(task, progress).go()

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,  # noqa: ARG002 - its models are whole
    ) -> Scores:
        """Score ``model`` on the readable images of the test split; ``device`` says how many beside each other.

        Raise DatasetError unless both classes are among them.
        """
        served = ServedModel(model, device or Device())
        examples = [e for e in dataset.examples if e.split == "test" and served.condition in e.labels]
        (judged,), _ = judge([served], examples, served.threads)
        return judged.scores("test")

    def bench(self, task: BenchTask) -> BenchResult:
        """Measure a model, and an int8 version of it if there are labelled images.

        Raise ModelError if the model is damaged, or int8 already; DatasetError if there are too few images.
        """
        return bench(task)

    def judge(self, task: JudgeTask) -> Judgement:
        """Say how likely a model calls the condition on each readable test image.

        Raise ModelError if the model is damaged, DatasetError unless both classes are among the images.
        """
        return judge_model(task)


def reference_base() -> LoadedModel:
    """Return the reference model that ships with the plugin, as the base of a first training."""
    return open_model(Path(str(files("clinic_ai_xray") / "reference" / "pneumonia-fast")))


def _unreadable(examples: Sequence[Example], readable: Sequence[Example]) -> str:
    """Return a note that counts and names the images that are not among the ``readable`` ones."""
    known = {example.sha256 for example in readable}
    lost = [example for example in examples if example.sha256 not in known]
    counts = Counter(example.split for example in lost)
    where = ", ".join(f"{counts[split]} of {split}" for split in SPLITS if counts[split])
    names = ", ".join(example.sha256[:12] for example in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return (
        f"Left out because the pixels cannot be read: {len(lost)} of {len(examples)} images ({where}). The SHA-256 in "
        f"datasets/objects begins with {names}{more}."
    )


def _export_seconds(tier: Tier, measured: int) -> float:
    """Return about how long a model takes to be exported, checked and measured on ``measured`` images, one thread."""
    return 5.0 + 4 * min(measured, CHECKED_IMAGES) * tier.seconds_per_view


class _Run:
    """One run of the trainer: activations, tail, export."""

    def __init__(self, task: TrainingTask, progress: Progress) -> None:
        self._task = task
        self._progress = progress
        self._began = time.monotonic()
        self._directory = Path(task.run_directory)
        wanted = task.recipe.get("condition", "")
        self._condition = condition_of(task.dataset, str(wanted))
        self._recipe = TailRecipe.parse(task.recipe)
        self._base_model = task.base or reference_base()
        self._base = ServedModel(self._base_model, task.device)
        self._notes: list[str] = []
        self._trained_since, self._trained_until, self._epochs_before = self._began, self._began, 0
        if self._base_model.manifest.quantisation != "none":
            raise ModelError(
                f"Model {self._base.ref.label()} is {self._base_model.manifest.quantisation} and cannot be trained on.",
                remedy="Promote the model it was made of, train, then run `clinic-ai model bench` on the result.",
            )
        tier = self._base.training_tier.name
        if tier != self._recipe.tier:
            raise ModelError(
                f"Model {self._base.ref.label()} is of the tier {tier}, the recipe asks for {self._recipe.tier}.",
                remedy=f"Set the recipe's tier={tier}, or its slot to that of a base of the tier {self._recipe.tier}; "
                "`python -m clinic_ai_xray.convert` makes one.",
            )

    def go(self) -> TrainingResult:
        """Do what is left to do."""
        examples = labelled(self._task.dataset, self._condition)
        try:
            parts, _ = compute_parts(
                self._base,
                examples,
                self._directory / "features",
                self._recipe.views,
                lambda done: self._say(f"{done} of {len(examples)} images read"),
                self._should_stop,
            )
        except Stopped:
            return TrainingResult(state="stopped", notes=("Stopped while images were read.",))
        readable = tuple(example for part in parts.values() for example in part.examples)
        if len(readable) < len(examples):
            self._notes.append(_unreadable(examples, readable))
            self._check_rest(readable)
        training = self._training(parts)
        if training.resumed_from:
            self._notes.append(f"Went on after epoch {training.resumed_from}.")
        self._trained_since, self._epochs_before = time.monotonic(), training.resumed_from
        state = training.run(lambda entry: self._report(entry, training.steps_per_epoch), self._should_stop)
        if not state.finished:
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        self._trained_until = time.monotonic()
        scores = self._export(parts, state, training)
        return TrainingResult(
            state="finished",
            model_directory=str(self._directory / "model"),
            scores=scores,
            history=tuple(state.history),
            notes=tuple(self._notes),
        )

    def _check_rest(self, readable: tuple[Example, ...]) -> None:
        try:
            labelled(self._task.dataset.model_copy(update={"examples": readable}), self._condition)
        except DatasetError as error:
            raise DatasetError(f"{error.message} {self._notes[-1]}", remedy=error.remedy) from error

    def _training(self, parts: dict[str, Part]) -> TailTraining:
        fingerprint = {
            "dataset": self._task.dataset.digest,
            "base": self._base_model.ref.digest,
            "condition": self._condition,
            # What is done with the trained tail afterwards does not make its checkpoints those of another run.
            "recipe": {key: value for key, value in asdict(self._recipe).items() if key != "error"},
        }
        train, validation = (
            Labelled(parts[split].activations, parts[split].labels(self._condition))
            for split in ("train", "validation")
        )
        return TailTraining(
            train,
            validation,
            self._recipe,
            self._directory / "checkpoints",
            hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest(),
            weights(pinned_bytes(self._base_model), trained_names(self._base.training_tier)),
            Standardisation.of(parts["train"].pooled),
        )

    def _export(self, parts: dict[str, Part], state: TailState, training: TailTraining) -> Scores:
        """Write the candidate into ``model``, the record and summary of the run beside it; return the figures."""
        steps = training.steps_per_epoch
        self._report_export("measures the model", state, steps)
        tail = Tail.of(self._base.training_tier, training.best_weights())
        trained = {split: replace(part, pooled=tail.pool(part.activations)) for split, part in parts.items()}
        candidate = Candidate(
            self._task, self._base_model, self._base, self._condition, trained, tail, self._recipe.error
        )
        self._notes += candidate.notes
        if candidate.split != "test":
            self._notes.append("The test part lacks a class; the figures are of the validation part and too good.")
        self._report_export("exports the model", state, steps)
        difference = candidate.write(self._directory / "model")
        self._report_export("draws the figures", state, steps)
        record = write_record(self._directory, candidate, state)
        self._notes += weak_groups(record["subgroups"], candidate.scores.values["auroc"])
        summary = {
            "run": self._task.run_id,
            "condition": self._condition,
            "dataset": self._task.dataset.dataset_id,
            "base": self._base_model.ref.label(),
            "recipe": asdict(self._recipe),
            "best_epoch": state.best_epoch,
            "history": state.history,
            "temperature": candidate.temperature,
            "promised_error": candidate.promised_error,
            "scores": candidate.scores.model_dump(mode="json"),
            "export_parity": difference,
            **record,
            "seconds": round(time.monotonic() - self._began, 1),
            "notes": self._notes,
        }
        write_durably(self._directory / "training_summary.json", json.dumps(summary, indent=1).encode())
        return candidate.scores

    def _should_stop(self) -> bool:
        too_long = time.monotonic() - self._began > self._task.limits.max_seconds
        return too_long or self._progress.stop_requested()

    def _report(self, entry: dict[str, float], steps: int) -> None:
        epoch, epochs = int(entry["epoch"]), self._recipe.epochs
        # Epochs before a resumption took none of this process's time, nor are images read again.
        pace = (time.monotonic() - self._trained_since) / (epoch - self._epochs_before)
        self._progress.report(
            TrainingProgress(
                epoch=epoch,
                epochs=epochs,
                step=epoch * steps,
                steps=epochs * steps,
                loss=entry["loss"],
                metric=entry[METRIC],
                metric_name=METRIC_NAME,
                eta_s=pace * (epochs - epoch) + self._export_seconds(),
            )
        )

    def _report_export(self, message: str, state: TailState, steps: int) -> None:
        spent = time.monotonic() - self._trained_until
        self._progress.report(
            TrainingProgress(
                epoch=state.epoch,
                epochs=self._recipe.epochs,
                step=state.epoch * steps,
                steps=self._recipe.epochs * steps,
                eta_s=max(1.0, self._export_seconds() - spent),
                message=message,
            )
        )

    def _export_seconds(self) -> float:
        return _export_seconds(self._base.training_tier, sum(e.split != "train" for e in self._task.dataset.examples))

    def _say(self, message: str) -> None:
        self._progress.report(TrainingProgress(epoch=0, epochs=self._recipe.epochs, step=0, steps=0, message=message))
