"""One run of the trainer: activations, tail, export."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import torch

from clinic_ai.contract import (
    Example,
    LoadedModel,
    Progress,
    Scores,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai.ml.checkpoints import fingerprint, write_durably
from clinic_ai.ml.finished import keep_result, kept_result
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.onnx import weights
from clinic_ai.ml.records import Record
from clinic_ai.ml.subgroups import weak_groups
from clinic_ai_xray.cache import SPLITS, Part, Stopped, compute_parts
from clinic_ai_xray.candidate import CHECKED_IMAGES, Candidate
from clinic_ai_xray.dataset import condition_of, labelled
from clinic_ai_xray.plan import PASSES, PF_DAY, export_seconds
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.record import write_record
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.tail import Standardisation, Tail, trained_names
from clinic_ai_xray.training import METRIC, METRIC_NAME, Labelled, TailState, TailTraining

_NAMED = 10
"""So many images are named in a note; the rest are counted."""
_REPORT_EVERY_S = 0.5


def reference_base() -> LoadedModel:
    """Return the reference model that ships with the plugin, as the base of a first training."""
    return open_model(Path(str(files("clinic_ai_xray") / "reference" / "pneumonia-fast")))


class Run:
    """What ``XrayTrainer.train`` does; ``go`` is called once."""

    def __init__(self, task: TrainingTask, progress: Progress) -> None:
        """Raise DatasetError or ModelError if the task cannot be done."""
        torch.set_num_threads(max(1, task.limits.threads))
        self._task = task
        self._progress = progress
        self._began = time.monotonic()
        self._reported = -math.inf
        self._directory = Path(task.run_directory)
        self._condition = condition_of(task.dataset, str(task.recipe.get("condition", "")))
        self._recipe = TailRecipe.parse(task.recipe)
        self._base_model = task.base or reference_base()
        self._base = ServedModel(self._base_model, task.device)
        self._record = Record(self._directory, METRIC, METRIC_NAME)
        self._notes: list[str] = []
        self._looked, self._learned = 0.0, 0
        """Views looked at and images learned from by this process."""
        self._trained_since, self._trained_until, self._steps_before = self._began, self._began, 0
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
        whole_run = fingerprint(**self._follows_from(), run=self._task.run_id, whole=asdict(self._recipe))
        before = kept_result(self._directory, whole_run)
        if before is not None:
            return before
        examples = labelled(self._task.dataset, self._condition)
        try:
            parts, _ = compute_parts(
                self._base,
                examples,
                self._directory / "features",
                self._recipe.views,
                lambda done: self._say(f"{done} of {len(examples)} images read"),
                self._should_stop,
                self._count_looks,
            )
        except Stopped:
            return TrainingResult(state="stopped", notes=("Stopped while images were read.",))
        readable = tuple(example for part in parts.values() for example in part.examples)
        if len(readable) < len(examples):
            self._notes.append(_unreadable(examples, readable))
            self._check_rest(readable)
        training = self._training(parts)
        state = self._train(training)
        self._notes += training.notes
        if not state.finished:
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        self._trained_until = time.monotonic()
        scores = self._export(parts, state, training)
        result = TrainingResult(
            state="finished",
            model_directory=str(self._directory / "model"),
            scores=scores,
            history=tuple(state.history),
            notes=tuple(self._notes),
        )
        return keep_result(self._directory, whole_run, result)

    def _follows_from(self) -> dict[str, object]:
        """Return what the trained weights follow from, as plain values."""
        return {
            "dataset": self._task.dataset.digest,
            "base": self._base_model.ref.digest,
            "condition": self._condition,
            # What is done with the trained tail afterwards does not make its checkpoints those of another run.
            "recipe": self._recipe.trained_by(),
        }

    def _check_rest(self, readable: tuple[Example, ...]) -> None:
        try:
            labelled(self._task.dataset.model_copy(update={"examples": readable}), self._condition)
        except DatasetError as error:
            raise DatasetError(f"{error.message} {self._notes[-1]}", remedy=error.remedy) from error

    def _training(self, parts: dict[str, Part]) -> TailTraining:
        train, validation = (
            Labelled(parts[split].activations, parts[split].labels(self._condition))
            for split in ("train", "validation")
        )
        return TailTraining(
            train,
            validation,
            self._recipe,
            self._directory / "checkpoints",
            fingerprint(**self._follows_from()),
            weights(pinned_bytes(self._base_model), trained_names(self._base.training_tier)),
            Standardisation.of(parts["train"].pooled),
        )

    def _train(self, training: TailTraining) -> TailState:
        state, steps = training.state, training.steps_per_epoch
        self._steps_before = state.epoch * steps + state.step
        if self._steps_before:
            within = f", {state.step} steps into the next" if state.step else ""
            self._notes.append(f"Went on after epoch {state.epoch}{within}.")
        self._record.write(state.history, state.best_epoch)
        self._trained_since = time.monotonic()

        def report_step(epoch: int, step: int, loss: float) -> None:
            self._learned = training.rows_learned
            now = time.monotonic()
            if step < steps and now - self._reported >= _REPORT_EVERY_S:
                self._reported = now
                self._report(epoch - 1, (epoch - 1) * steps + step, steps, loss=loss)

        def report_epoch(entry: dict[str, float]) -> None:
            epoch = int(entry["epoch"])
            self._record.write(training.state.history, training.state.best_epoch)
            self._report(epoch, epoch * steps, steps, loss=entry["loss"], metric=entry[METRIC], metric_name=METRIC_NAME)

        return training.run(report_step, report_epoch, self._should_stop)

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
        self._count_looks(PASSES * min(len(parts["validation"].examples), CHECKED_IMAGES))
        self._report_export("draws the figures", state, steps)
        record = write_record(self._directory, self._record, candidate, state)
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

    # ------------------------------------------------------------ what the daemon is told

    def _should_stop(self) -> bool:
        too_long = time.monotonic() - self._began > self._task.limits.max_seconds
        return too_long or self._progress.stop_requested()

    def _count_looks(self, views: int) -> None:
        self._looked += views

    def _pf_days(self) -> float:
        tier = self._base.training_tier
        return (self._looked * tier.base_flops + self._learned * tier.tail_flops) / PF_DAY

    def _report(self, epoch: int, done: int, steps: int, **told: float | str) -> None:
        """Say that ``done`` steps are taken, ``epoch`` epochs of ``steps`` are complete, and what else is ``told``."""
        total = self._recipe.epochs * steps
        # Steps before a resumption took none of this process's time, nor are images read again.
        pace = (time.monotonic() - self._trained_since) / (done - self._steps_before)
        eta = pace * (total - done) + self._export_seconds()
        told = {"epoch": epoch, "epochs": self._recipe.epochs, "step": done, "steps": total, "eta_s": eta, **told}
        self._progress.report(TrainingProgress.model_validate({**told, "pf_days": self._pf_days()}))

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
                pf_days=self._pf_days(),
            )
        )

    def _export_seconds(self) -> float:
        return export_seconds(self._base.training_tier, sum(e.split != "train" for e in self._task.dataset.examples))

    def _say(self, message: str) -> None:
        epochs = self._recipe.epochs
        self._progress.report(
            TrainingProgress(epoch=0, epochs=epochs, step=0, steps=0, message=message, pf_days=self._pf_days())
        )


def _unreadable(examples: Sequence[Example], readable: Sequence[Example]) -> str:
    """Return a note that counts and names the images that are not among the ``readable`` ones."""
    known = {example.sha256 for example in readable}
    lost = [example for example in examples if example.sha256 not in known]
    counts = Counter[str](example.split for example in lost)
    where = ", ".join(f"{counts[split]} of {split}" for split in SPLITS if counts[split])
    names = ", ".join(example.sha256[:12] for example in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return (
        f"Left out because the pixels cannot be read: {len(lost)} of {len(examples)} images ({where}). The SHA-256 in "
        f"datasets/objects begins with {names}{more}."
    )
