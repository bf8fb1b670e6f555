"""One run of the trainer: features, fit, evaluation, candidate and report."""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

from clinic_ai.contract import (
    Example,
    LoadedModel,
    Progress,
    Scores,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
)
from clinic_ai.domain import CategoryInfo
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import fingerprint, write_durably
from clinic_ai.ml.finished import keep_result, kept_result
from clinic_ai.ml.records import Record
from clinic_ai.ml.rescue import NoMemoryLeft, clear_cache
from clinic_ai_ultrasound.answering import fitting
from clinic_ai_ultrasound.candidate import DIRECTORY, SUMMARY, Candidate
from clinic_ai_ultrasound.collating import Row, encode, shortest_answer
from clinic_ai_ultrasound.costs import sizes_of
from clinic_ai_ultrasound.dataset import described, labelled, refuse_empty
from clinic_ai_ultrasound.evaluation import Compared, Model, Said, ask_all, calibrate, generation_of
from clinic_ai_ultrasound.features import Features, Stopped, compute_features, key_of
from clinic_ai_ultrasound.fitting import LOSS, METRIC, METRIC_NAME, VALIDATION_LOSS, AdapterFit, FitState
from clinic_ai_ultrasound.gpu_room import GpuRoom
from clinic_ai_ultrasound.kept_answers import KeptAnswers
from clinic_ai_ultrasound.loading import BASE_SLOT, Base, load_base
from clinic_ai_ultrasound.plan import BEAMS, PF_DAY, mean_tokens, memory_of
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.report import Finished, write_report

ANSWERS = "answers.jsonl"
_REPORT_EVERY_S = 0.5
_NAMED = 10
"""So many images are named in a note; the rest are counted."""


def required(base: LoadedModel | None) -> LoadedModel:
    """Return the base. Raise ModelError if there is none, or if it is an adapter."""
    if base is None:
        raise ModelError(
            "There is no base model to train an adapter on.",
            remedy="Import one with `clinic-ai model import DIR` and promote it with `clinic-ai model promote`.",
        )
    if base.ref.slot != BASE_SLOT:
        raise ModelError(f"{base.ref.label()} is no base: an adapter is trained on the base alone.")
    return base


class Run:
    """What ``UltrasoundTrainer.train`` does; ``go`` is called once."""

    def __init__(self, task: TrainingTask, progress: Progress) -> None:
        self._task, self._progress = task, progress
        self._began = time.monotonic()
        self._reported = -math.inf
        self._directory = Path(task.run_directory)
        self._recipe = AdapterRecipe.parse(task.recipe)
        self._examples = labelled(task.dataset)
        self._base_model = required(task.base)
        self._base: Base
        self._sizes, self._tokens = sizes_of(self._base_model), mean_tokens(self._examples)
        self._flops, self._fit_flops = 0.0, 0.0
        """Floating-point operations of this process so far: beside the fit, and in it."""
        self._record = Record(self._directory, VALIDATION_LOSS, "validation loss", least=True)
        self._notes: list[str] = []
        self._fitted_since, self._steps_before = self._began, 0

    def go(self) -> TrainingResult:
        """Do what is left to do."""
        whole_run = fingerprint(**self._follows_from(), run=self._task.run_id)
        before = kept_result(self._directory, whole_run)
        if before is not None:
            return before
        try:
            fit, state = self._fitted()
        except Stopped:
            return TrainingResult(state="stopped", notes=(*self._notes, "Stopped while images were looked at."))
        self._notes += fit.notes
        if not state.finished:
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        try:
            scores = self._conclude(fit, state)
        except Stopped:
            self._notes.append("Stopped while it answered validation and test; what it answered is kept.")
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        result = TrainingResult(
            state="finished",
            model_directory=str(self._directory / DIRECTORY),
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
            "category": self._task.dataset.category,
            "recipe": self._recipe.trained_by(),
        }

    def _fitted(self) -> tuple[AdapterFit, FitState]:
        """Load the base, look at the images and fit. Raise Stopped, or NoMemoryLeft if nothing helps."""
        gpu = GpuRoom(self._task, memory_of(self._examples, self._recipe, self._sizes, self._base_model))
        device = self._task.device.model_copy(update={"threads": self._task.limits.threads})
        while True:
            self._base = load_base(self._base_model, device, gpu.room())
            try:
                fit = self._fit(self._features())
                return fit, self._train(fit)
            except NoMemoryLeft:
                if not gpu.shrink(self._base.quantisation):
                    raise
            # Only here is the error gone, and with it what its frames held of the base.
            del self._base
            clear_cache()
            self._notes.append(
                "The memory of the GPU did not suffice for one answer at a time; half of the base was laid aside, and "
                "the run went on from its newest checkpoint."
            )

    def _features(self) -> Features:
        learned = [example for example in self._examples if example.split != "test"]
        count = len({example.sha256 for example in learned})
        features = compute_features(
            self._base,
            learned,
            self._directory / "features",
            self._task.limits.memory_mb,
            lambda done: self._say(f"{done} of {count} images looked at"),
            self._should_stop,
            self._count_looks,
        )
        lost = [e.sha256 for e in learned if key_of(self._base, e.sha256, e.pairs[0].question) not in features]
        if lost:
            named = ", ".join(sha256[:12] for sha256 in lost[:_NAMED])
            self._notes.append(
                f"Left out because the pixels cannot be read: {len(lost)} of {len(learned)} images of training and "
                f"validation. The SHA-256 in datasets/objects begins with {named}."
            )
            self._examples = [example for example in self._examples if example.sha256 not in lost]
            refuse_empty(self._examples)
        return features

    def _fit(self, features: Features) -> AdapterFit:
        return AdapterFit(
            self._base,
            self._rows("train"),
            self._rows("validation"),
            features,
            self._recipe,
            self._directory / "checkpoints",
            fingerprint(**self._follows_from()),
        )

    def _train(self, fit: AdapterFit) -> FitState:
        state = fit.state
        self._steps_before = fit.steps_after(state.epoch) + state.step
        if self._steps_before:
            self._notes.append(f"Went on after {self._steps_before} steps.")
        self._record.write(state.history, state.best_epoch)
        self._fitted_since = time.monotonic()
        return fit.run(
            lambda epoch, step, loss: self._report_step(fit, epoch, step, loss),
            lambda entry: self._report_epoch(fit, entry),
            self._should_stop,
        )

    def _rows(self, split: str) -> list[Row]:
        return [
            encode(self._base, key_of(self._base, example.sha256, pair.question), pair)
            for example in self._part(split)
            for pair in example.pairs
        ]

    def _part(self, split: str) -> list[Example]:
        return [example for example in self._examples if example.split == split]

    # ------------------------------------------------------------ the end

    def _conclude(self, fit: AdapterFit, state: FitState) -> Scores:
        """Calibrate, measure, and write candidate, report and summary; return the figures. Raise Stopped."""
        category = self._task.dataset.category
        candidate = Candidate(self._task, self._base_model, fit.adapted, shortest_answer(fit.train))
        wanted = generation_of(category, self._categories)
        adapter = Model(nullcontext, fitting(wanted, candidate.manifest), "adapter")
        # The weights follow from the run; a machine that computes them otherwise must not mix its answers with others.
        weights = hashlib.sha256(b"".join(state.best[name].tobytes() for name in sorted(state.best))).hexdigest()
        kept = KeptAnswers(self._directory / ANSWERS, fingerprint(**self._follows_from(), weights=weights))
        self._say("answers the validation part", state)
        judged = self._ask("validation", [adapter], kept)
        calibration, why_not = calibrate(judged)
        self._notes += [why_not] if why_not else []
        self._say("answers the test part", state)
        alone = Model(fit.adapted.disable_adapter, fitting(wanted, self._base_model.manifest), "base")
        compared = Compared.of(self._ask("test", [alone, adapter], kept))
        finished = Finished(
            run=self._task.run_id,
            category=self._label(),
            dataset=self._task.dataset.dataset_id,
            base=self._base_model.ref.label(),
            quantisation=self._base.quantisation,
            model=f"{candidate.manifest.plugin} {candidate.manifest.name} {candidate.manifest.version}",
            recipe=self._recipe,
            state=state,
            compared=compared,
            calibration=calibration,
            counts=described(self._examples),
            trainable=fit.trainable,
            seconds=time.monotonic() - self._began,
            notes=self._notes,
        )
        summary, scores = finished.summary(), compared.scores()
        write_report(self._directory, finished, self._record)
        write_durably(self._directory / SUMMARY, json.dumps(summary, indent=1).encode())
        candidate.write(self._directory / DIRECTORY, calibration, scores, summary)
        return scores

    def _ask(self, split: str, models: list[Model], kept: KeptAnswers) -> Said:
        return ask_all(self._base, self._part(split), models, self._should_stop, kept, self._count_answers)

    @property
    def _categories(self) -> tuple[CategoryInfo, ...]:
        return self._task.categories or describe_plugin().categories

    def _label(self) -> str:
        key = self._task.dataset.category
        return next((info.label for info in self._categories if info.key == key), key)

    # ------------------------------------------------------------ what the daemon is told

    def _should_stop(self) -> bool:
        too_long = time.monotonic() - self._began > self._task.limits.max_seconds
        return too_long or self._progress.stop_requested()

    def _count_looks(self, images: int) -> None:
        self._flops += images * self._sizes.look_flops()

    def _count_answers(self, answers: int) -> None:
        self._flops += answers * BEAMS * self._sizes.learn_flops(self._tokens)

    def _pf_days(self, fit: AdapterFit | None = None) -> float:
        """Return what this process has computed so far."""
        if fit is not None:
            learned = fit.rows_learned + fit.rows_judged / 2
            self._fit_flops = learned * self._sizes.learn_flops(self._tokens)
        return (self._flops + self._fit_flops) / PF_DAY

    def _report_step(self, fit: AdapterFit, epoch: int, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        self._progress.report(self._progress_of(fit, epoch, step).model_copy(update={"loss": loss}))

    def _report_epoch(self, fit: AdapterFit, entry: dict[str, float]) -> None:
        epoch = int(entry["epoch"])
        self._record.write(fit.state.history, fit.state.best_epoch)
        told = {"epoch": epoch, "loss": entry[LOSS], "metric": entry[METRIC], "metric_name": METRIC_NAME}
        steps = fit.steps_after(epoch) - fit.steps_after(epoch - 1)
        self._progress.report(self._progress_of(fit, epoch, steps).model_copy(update=told))

    def _progress_of(self, fit: AdapterFit, epoch: int, step: int) -> TrainingProgress:
        """Return how far it is, ``step`` steps into ``epoch``, which is not complete yet."""
        done = fit.steps_after(epoch - 1) + step
        # Steps before a resumption took none of this process's time.
        pace = (time.monotonic() - self._fitted_since) / max(1, done - self._steps_before)
        return TrainingProgress(
            epoch=epoch - 1,
            epochs=self._recipe.epochs,
            step=done,
            steps=fit.steps,
            eta_s=pace * (fit.steps - done),
            message=fit.stage_in_words(epoch),
            pf_days=self._pf_days(fit),
        )

    def _say(self, message: str, state: FitState | None = None) -> None:
        epoch, epochs = 0 if state is None else state.epoch, self._recipe.epochs
        self._progress.report(
            TrainingProgress(epoch=epoch, epochs=epochs, step=0, steps=0, message=message, pf_days=self._pf_days())
        )
