"""Trains the LoRA adapter of one category on labelled images and makes a candidate model of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

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
from clinic_ai.domain import CategoryInfo, ModelRef
from clinic_ai.errors import ModelError
from clinic_ai.gating import Judgement, JudgeTask
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.answering import fitting
from clinic_ai_ultrasound.candidate import DIRECTORY, SUMMARY, Candidate
from clinic_ai_ultrasound.collating import Row, encode, shortest_answer
from clinic_ai_ultrasound.costs import Sizes, flops_per_second, sizes_of, step_seconds
from clinic_ai_ultrasound.dataset import SPLITS, count_pairs, described, labelled, refuse_empty
from clinic_ai_ultrasound.evaluation import Compared, Model, ask_all, calibrate, generation_of, scores_alone
from clinic_ai_ultrasound.features import Features, Stopped, compute_features, key_of
from clinic_ai_ultrasound.fitting import LOSS, METRIC, METRIC_NAME, AdapterFit, FitState
from clinic_ai_ultrasound.judging import judge as judge_model
from clinic_ai_ultrasound.loading import BASE_SLOT, Base, load_base
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.report import Finished, write_report

_PF_DAY = 1e15 * 86_400
_INTERPRETER_MB = 900
"""Memory of Python with torch and transformers, before any model."""
_LOADING_S = 10.0
_BEAMS = 3
_CHARACTERS_PER_TOKEN = 4
_PROMPT_TOKENS = 8
_REPORT_EVERY_S = 0.5
_NAMED = 10
"""So many images are named in a note; the rest are counted."""


class UltrasoundTrainer:
    """Frozen base, its image features computed once, a LoRA on its language model; one run in one child."""

    def plan(self, dataset: Dataset, limits: Limits, recipe: Recipe, base: LoadedModel | None = None) -> TrainingPlan:
        """Say what training would cost at most, should no epoch end it early.

        Raise DatasetError if it would leak or mean nothing, or if the recipe has a key or value that is not usable;
        ModelError if there is no base.
        """
        chosen = AdapterRecipe.parse(recipe)
        examples = labelled(dataset)
        sizes = sizes_of(_required(base))
        return _plan(examples, chosen, sizes, _required(base), limits)

    def train(self, task: TrainingTask, progress: Progress) -> TrainingResult:
        """Train, or go on from the newest whole checkpoint in the run directory.

        Raise DatasetError if training would leak or mean nothing, ModelError if the base cannot be used.
        """
        return _Run(task, progress).go()

    def evaluate(
        self,
        model: LoadedModel,
        dataset: Dataset,
        device: Device | None = None,
        base: LoadedModel | None = None,
    ) -> Scores:
        """Score a base, or an adapter over its ``base``, on the readable images of the test part.

        Answers are generated as for the plugin's own category. Raise DatasetError if there are none, ModelError if
        ``base`` is not that of the adapter.
        """
        examples = [example for example in dataset.examples if example.split == "test" and example.pairs]
        generation = generation_of(dataset.category, describe_plugin().categories)
        if model.manifest.base_digest is None:
            alone = Model(nullcontext, fitting(generation, model.manifest))
            return scores_alone(ask_all(load_base(model, device or Device()), examples, [alone]))
        loaded = load_base(_required(base), device or Device())
        adapters = Adapters(loaded)
        adapters.add(model)

        @contextmanager
        def using(ref: ModelRef | None) -> Iterator[None]:
            adapters.use(ref)
            yield

        models = [
            Model(lambda: using(None), fitting(generation, loaded.manifest)),
            Model(lambda: using(model.ref), fitting(generation, model.manifest)),
        ]
        return Compared.of(ask_all(loaded, examples, models)).scores()

    def judge(self, task: JudgeTask) -> Judgement:
        """Say what a base, or an adapter over its base, answers about the readable images of the test part.

        Raise DatasetError if there are none, ModelError if the base is missing or not that of the adapter.
        """
        return judge_model(task)


def _required(base: LoadedModel | None) -> LoadedModel:
    if base is None:
        raise ModelError(
            "There is no base model to train an adapter on.",
            remedy="Import one with `clinic-ai model import DIR` and promote it with `clinic-ai model promote`.",
        )
    if base.ref.slot != BASE_SLOT:
        raise ModelError(f"{base.ref.label()} is no base: an adapter is trained on the base alone.")
    return base


def _plan(
    examples: Sequence[Example], recipe: AdapterRecipe, sizes: Sizes, base: LoadedModel, limits: Limits
) -> TrainingPlan:
    parts = {split: [example for example in examples if example.split == split] for split in SPLITS}
    learned, judged, tested = (count_pairs(parts[split]) for split in SPLITS)
    lengths = [len(pair.question) + len(pair.answer) for example in examples for pair in example.pairs]
    mean, longest = (
        _PROMPT_TOKENS + round(length / _CHARACTERS_PER_TOKEN) for length in (_mean(lengths), max(lengths))
    )
    speed = flops_per_second(limits.threads)
    # Judging goes forward only; an answer is generated by each beam, once by the base and once by the adapter.
    rows = recipe.epochs * (learned + judged / 2) + _BEAMS * (judged + 2 * tested)
    looks = 2 * len({example.sha256 for example in examples})
    seconds = _LOADING_S + looks * sizes.look_flops() / speed + rows * step_seconds(sizes, mean, speed)
    numbers = 4 if base.manifest.parameters.get("dtype", "float32") == "float32" else 2
    memory = sizes.training_bytes(base.manifest.quantisation, numbers, recipe.rank, recipe.batch, longest)
    memory_mb = _INTERPRETER_MB + memory // (1 << 20)
    notes = [
        *described(examples),
        f"{sizes.lora(recipe.rank):,} numbers of the adapter are learned; the {sizes.total:,} of the base stay.",
    ]
    if memory_mb > limits.memory_mb:
        notes.append(
            f"It needs about {memory_mb} MiB and may use {limits.memory_mb} (training.max_memory_mb in clinic.toml)."
        )
    if seconds > limits.max_seconds:
        notes.append(f"It will be stopped after {limits.max_seconds:.0f} s and can go on later.")
    return TrainingPlan(
        steps=recipe.epochs * math.ceil(learned / recipe.effective_batch),
        epochs=recipe.epochs,
        memory_mb=memory_mb,
        seconds=seconds,
        pf_days=(looks * sizes.look_flops() + rows * sizes.learn_flops(mean)) / _PF_DAY,
        notes=tuple(notes),
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


class _Run:
    """One run of the trainer: features, fit, evaluation, candidate and report."""

    def __init__(self, task: TrainingTask, progress: Progress) -> None:
        self._task, self._progress = task, progress
        self._began = time.monotonic()
        self._reported = -math.inf
        self._directory = Path(task.run_directory)
        self._recipe = AdapterRecipe.parse(task.recipe)
        self._examples = labelled(task.dataset)
        self._base_model = _required(task.base)
        self._base: Base = load_base(self._base_model, task.device.model_copy(update={"threads": task.limits.threads}))
        self._notes: list[str] = []
        self._fitted_since, self._steps_before = self._began, 0

    def go(self) -> TrainingResult:
        """Do what is left to do."""
        try:
            features = self._features()
            fit = self._fit(features)
            self._fitted_since = time.monotonic()
            self._steps_before = fit.state.epoch * fit.steps_per_epoch + fit.state.step
            if self._steps_before:
                self._notes.append(f"Went on after {self._steps_before} steps.")
            state = fit.run(
                lambda epoch, step, loss: self._report_step(fit, epoch, step, loss),
                lambda entry: self._report_epoch(fit, entry),
                self._should_stop,
            )
            self._notes += [*fit.notes, *fit.portions.notes]
        except Stopped:
            return TrainingResult(state="stopped", notes=(*self._notes, "Stopped while images were looked at."))
        if not state.finished:
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        try:
            scores = self._conclude(fit, state)
        except Stopped:
            self._notes.append(
                "Stopped while it answered validation and test, which begins anew and must fit into the limit."
            )
            return TrainingResult(state="stopped", history=tuple(state.history), notes=tuple(self._notes))
        return TrainingResult(
            state="finished",
            model_directory=str(self._directory / DIRECTORY),
            scores=scores,
            history=tuple(state.history),
            notes=tuple(self._notes),
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
        fingerprint = {
            "dataset": self._task.dataset.digest,
            "base": self._base_model.ref.digest,
            "category": self._task.dataset.category,
            "recipe": asdict(self._recipe),
        }
        return AdapterFit(
            self._base,
            self._rows("train"),
            self._rows("validation"),
            features,
            self._recipe,
            self._directory / "checkpoints",
            hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest(),
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
        adapter = Model(nullcontext, fitting(wanted, candidate.manifest))
        self._say("answers the validation part", state)
        judged = ask_all(self._base, self._part("validation"), [adapter], self._should_stop)
        calibration, why_not = calibrate(judged)
        self._notes += [why_not] if why_not else []
        self._say("answers the test part", state)
        alone = Model(fit.adapted.disable_adapter, fitting(wanted, self._base_model.manifest))
        compared = Compared.of(ask_all(self._base, self._part("test"), [alone, adapter], self._should_stop))
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
        write_report(self._directory, finished)
        write_durably(self._directory / SUMMARY, json.dumps(summary, indent=1).encode())
        candidate.write(self._directory / DIRECTORY, calibration, scores, summary)
        return scores

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

    def _report_step(self, fit: AdapterFit, epoch: int, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        self._progress.report(self._progress_of(fit, epoch, step).model_copy(update={"loss": loss}))

    def _report_epoch(self, fit: AdapterFit, entry: dict[str, float]) -> None:
        epoch = int(entry["epoch"])
        told = {"epoch": epoch, "loss": entry[LOSS], "metric": entry[METRIC], "metric_name": METRIC_NAME}
        self._progress.report(self._progress_of(fit, epoch, fit.steps_per_epoch).model_copy(update=told))

    def _progress_of(self, fit: AdapterFit, epoch: int, step: int) -> TrainingProgress:
        """Return how far it is, ``step`` steps into ``epoch``, which is not complete yet."""
        steps = self._recipe.epochs * fit.steps_per_epoch
        done = (epoch - 1) * fit.steps_per_epoch + step
        # Steps before a resumption took none of this process's time.
        pace = (time.monotonic() - self._fitted_since) / max(1, done - self._steps_before)
        return TrainingProgress(
            epoch=epoch - 1, epochs=self._recipe.epochs, step=done, steps=steps, eta_s=pace * (steps - done)
        )

    def _say(self, message: str, state: FitState | None = None) -> None:
        epoch = 0 if state is None else state.epoch
        self._progress.report(
            TrainingProgress(epoch=epoch, epochs=self._recipe.epochs, step=0, steps=0, message=message)
        )
