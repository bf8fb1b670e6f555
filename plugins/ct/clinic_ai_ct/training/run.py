"""One run of the trainer: its phases in order, evaluation, candidate."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from clinic_ai.contract import Progress, TrainingProgress, TrainingResult, TrainingTask
from clinic_ai.errors import DatasetError
from clinic_ai.ml.challenge import table_text
from clinic_ai.ml.checkpoints import fingerprint, write_durably
from clinic_ai.ml.finished import keep_result, kept_result
from clinic_ai.ml.records import HISTORY, Record, table
from clinic_ai_ct.language import Language, write
from clinic_ai_ct.lora import language_digest
from clinic_ai_ct.training.candidate import DIRECTORY, SUMMARY, write_candidate
from clinic_ai_ct.training.cases import Case, cases_of, described, refuse_useless, usable
from clinic_ai_ct.training.costs import case_flops, costs_of, language_bytes
from clinic_ai_ct.training.evaluating import Evaluated, evaluate
from clinic_ai_ct.training.fitting import LOSS, Entry, FitState, PhaseFit
from clinic_ai_ct.training.loading import network_of, place_of, speech_of
from clinic_ai_ct.training.looking import Looking
from clinic_ai_ct.training.objective import Objective, Scene
from clinic_ai_ct.training.phases import PROJECTOR, TASKS, Phase
from clinic_ai_ct.training.plan import PF_DAY
from clinic_ai_ct.training.prepared import Preparing
from clinic_ai_ct.training.processes import Processes
from clinic_ai_ct.training.recipe import CTRecipe
from clinic_ai_ct.training.rewarding import Rewarding
from clinic_ai_ct.training.seeing import Seeing
from clinic_ai_ct.training.serving import Serving, serving_of
from clinic_ai_ct.training.speaking import Aligning
from clinic_ai_ct.training.tasks import Classifying, Joint, Localising, weigh_classes

_REPORT_EVERY_S = 0.5
_PARAPHRASED = 400
"""Tokens of a paraphrased report at most."""
OBJECTIVES: dict[str, Callable[[Phase, Scene], Objective]] = {
    "encoder": Looking,
    "classification": Classifying,
    "localisation": Localising,
    "alignment": Aligning,
    "joint": Joint,
    "grpo": Rewarding,
}


class _Stopped(Exception):
    """The run was asked to stop outside a phase."""


class Run:
    """What ``CTTrainer.train`` does; ``go`` is called once."""

    def __init__(self, task: TrainingTask, progress: Progress, processes: Processes | None = None) -> None:
        """Raise DatasetError or ModelError if the task cannot be done."""
        torch.set_num_threads(max(1, task.limits.threads))
        self._task, self._progress = task, progress
        self._began, self._reported = time.monotonic(), -math.inf
        self._directory = Path(task.run_directory)
        self._recipe = CTRecipe.parse(task.recipe)
        self._cases = cases_of(task.dataset)
        self._processes = processes or Processes()
        device = self._processes.device or place_of(task.device)
        network = network_of(task.base, self._recipe).to(device)
        for phase in self._recipe.phases:
            refuse_useless(self._cases, phase, network.config.classifier.labels)
        self._speech = speech_of(task.base, self._recipe, network.config.projector.language_width, device)
        language = None if self._speech is None else self._speech.language
        self._prepare = Preparing(
            network.config,
            self._directory / "prepared" / task.dataset.digest[:16],
            self._recipe.cache_mb,
            len(self._cases),
            self._recipe.seed,
            paraphrased(language) if language is not None and self._recipe.paraphrase else None,
        )
        self._scene = Scene(network, language, self._prepare, self._recipe, device)
        self._language_digest = language_digest(Path(self._recipe.language)) if self._recipe.language else ""
        self._costs, self._speech_bytes = costs_of(network.config), language_bytes(self._recipe)
        self._notes: list[str] = [*described(self._cases), self._prepare.note]
        self._history: list[Entry] = []
        self._done = 0.0
        """Floating-point operations of this process in phases that have ended."""
        self._fitted_since, self._steps_before = self._began, 0

    def go(self) -> TrainingResult:
        """Do what is left to do."""
        whole_run = fingerprint(**self._follows_from(len(self._recipe.phases)), run=self._task.run_id)
        before = kept_result(self._directory, whole_run)
        if before is not None:
            return before
        try:
            self._leave_out()
        except _Stopped:
            return self._stopped("Stopped while the volumes were read.")
        summary: list[dict[str, object]] = []
        for number, phase in enumerate(self._recipe.phases, start=1):
            fit, state = self._learn(number, phase)
            self._notes += fit.notes
            self._history += [{"phase": float(number), **entry} for entry in state.history]
            write_durably(self._directory / HISTORY, table(self._history))
            if not state.finished:
                return self._stopped(f"Stopped in the phase {phase.name}.")
            best = state.history[state.best_epoch - 1] if state.best_epoch else {}
            summary.append({"phase": phase.name, "best_epoch": state.best_epoch, "best": best})
        try:
            evaluated = self._evaluate()
            serving = self._calibrate()
        except _Stopped:
            return self._stopped("Stopped while it was measured.")
        scores = evaluated.scores()
        said = {
            "run": self._task.run_id,
            "dataset": self._task.dataset.dataset_id,
            "base": None if self._task.base is None else self._task.base.ref.label(),
            "recipe": {key: value for key, value in asdict(self._recipe).items() if key not in _PLACES},
            "phases": summary,
            "scores": scores.model_dump(mode="json"),
            "seconds": round(time.monotonic() - self._began, 1),
            "notes": self._notes,
        }
        result = TrainingResult(
            state="finished",
            model_directory=str(self._directory / DIRECTORY),
            scores=scores,
            history=tuple(self._history),
            notes=tuple(self._notes),
        )
        if self._processes.first:
            write_durably(self._directory / "evaluation.txt", table_text(evaluated.rows).encode())
            write_durably(self._directory / SUMMARY, json.dumps(said, indent=1).encode())
            write_candidate(self._task, self._recipe, self._scene.network, self._speech, scores, said, serving)
            keep_result(self._directory, whole_run, result)
        self._processes.wait()
        return result

    def _follows_from(self, phases: int) -> dict[str, object]:
        """Return what the weights after so many phases follow from, as plain values."""
        base = self._task.base
        return {
            "dataset": self._task.dataset.digest,
            "prepared": self._prepare.key,
            "base": None if base is None else base.ref.digest,
            "language": self._language_digest,
            "text_encoder": self._scene.network.text_digest,
            "recipe": {**self._recipe.trained_by(), "phase": ""},
            "phases": [phase.name for phase in self._recipe.phases[:phases]],
        }

    def _stopped(self, note: str) -> TrainingResult:
        return TrainingResult(state="stopped", history=tuple(self._history), notes=(*self._notes, note))

    def _leave_out(self) -> None:
        """Leave out volumes that cannot be used, once and for all of this run. Raise _Stopped.

        Else the last test volume could end a run that has learned for nights, and end it anew whenever it is resumed.
        Raise DatasetError if what is left is not enough.
        """
        reasons = self._unusable()
        if not reasons:
            return
        self._cases = [case for case in self._cases if case.sha256 not in reasons]
        self._notes += [f"Left out: {reason}" for reason in list(reasons.values())[:_NAMED]]
        if len(reasons) > _NAMED:
            self._notes.append(f"{len(reasons)} volumes were left out in all.")
        for phase in self._recipe.phases:
            refuse_useless(self._cases, phase, self._scene.network.config.classifier.labels)

    def _unusable(self) -> dict[str, str]:
        """Return why volumes cannot be used, by their hashes; each process reads its share of them. Raise _Stopped."""
        processes = self._processes
        name = f"{LEFT_OUT}-{self._task.dataset.digest[:16]}"
        parts = [self._directory / f"{name}-{n + 1}-of-{processes.count}.json" for n in range(processes.count)]
        stopped = False
        if not parts[processes.index].is_file():
            try:
                reasons = self._read(processes.own(self._cases))
                write_durably(parts[processes.index], json.dumps(reasons, indent=1).encode())
            except _Stopped:
                stopped = True
        if processes.any(stopped):
            raise _Stopped
        return {sha256: reason for part in parts for sha256, reason in json.loads(part.read_text()).items()}

    def _read(self, cases: Sequence[Case]) -> dict[str, str]:
        """Prepare volumes and return why some cannot be. Raise _Stopped."""
        reasons: dict[str, str] = {}
        step = self._stepping("reads the volumes", len(cases))
        for done, case in enumerate(cases, start=1):
            try:
                self._prepare(case)
            except DatasetError as error:
                reasons[case.sha256] = error.message
            step(done)
        return reasons

    # ------------------------------------------------------------ one phase

    def _learn(self, number: int, phase: Phase) -> tuple[PhaseFit, FitState]:
        scene, directory = self._scene, self._directory / f"phase-{number}-{phase.name}"
        labels = scene.network.config.classifier.labels
        parts = {split: usable(self._part(split), phase, labels) for split in ("train", "validation")}
        scene.seeing = None
        if phase.frozen:
            limit, cases = self._recipe.cache_mb, len(self._cases)
            kept = self._directory / "features" / f"{self._task.dataset.digest[:16]}-{self._prepare.key}"
            scene.seeing = Seeing(scene.network, kept, limit, cases)
            if scene.seeing.note not in self._notes:
                self._notes.append(scene.seeing.note)
        rates = self._recipe.rates_of(phase)
        if TASKS in rates and phase.name != "localisation":
            weigh_classes(scene, parts["train"])
        if PROJECTOR in rates and scene.language is not None and float(scene.network.projector.loudness) == 1.0:
            scene.network.projector.match(scene.language.words)
        fit = PhaseFit(
            OBJECTIVES[phase.name](phase, scene),
            parts["train"],
            parts["validation"],
            self._recipe,
            directory / "checkpoints",
            fingerprint(**self._follows_from(number)),
            self._processes,
        )
        record = Record(directory, phase.metric, phase.metric_name)
        self._steps_before = fit.state.epoch * fit.steps_per_epoch + fit.state.step
        if self._steps_before and not fit.state.finished:
            self._notes.append(f"Went on after {self._steps_before} steps of the phase {phase.name}.")
        self._fitted_since = time.monotonic()

        def report_epoch(entry: Entry) -> None:
            epoch = int(entry["epoch"])
            if self._processes.first:
                record.write(fit.state.history, fit.state.best_epoch)
            told: dict[str, float | str] = {
                "loss": entry[LOSS],
                "metric": entry[phase.metric],
                "metric_name": phase.metric_name,
            }
            self._report(number, phase, fit, epoch, epoch * fit.steps_per_epoch, told)

        def report_step(epoch: int, step: int, loss: float) -> None:
            now = time.monotonic()
            if now - self._reported >= _REPORT_EVERY_S:
                self._reported = now
                self._report(number, phase, fit, epoch - 1, (epoch - 1) * fit.steps_per_epoch + step, {"loss": loss})

        ended = fit.state.finished
        state = fit.run(report_step, report_epoch, self._should_stop)
        # A curve of one point tells nothing, and one of before is there already.
        if not ended and state.finished and self._processes.first and len(state.history) > 1:
            record.draw(state.history, state.best_epoch)
        self._done += self._flops(phase, fit)
        return fit, state

    def _part(self, split: str) -> list[Case]:
        return [case for case in self._cases if case.split == split]

    def _evaluate(self) -> Evaluated:
        """Measure on the test part, or on the validation part where there is none. Raise _Stopped."""
        cases = self._part("test")
        if not cases:
            cases = self._part("validation")
            self._notes.append("There is no test part; the figures are of the validation part and too good.")
        step = self._stepping("measures the model", len(cases))
        return evaluate(self._scene.network, cases, self._prepare, self._scene.device, step)

    def _calibrate(self) -> Serving:
        """Return what it takes to serve the model, by the validation part. Raise _Stopped."""
        cases = self._part("validation")
        step = self._stepping("calibrates the model", len(cases))
        serving = serving_of(self._task.base, self._scene, self._part("train"), cases, step)
        self._notes += serving.notes
        return serving

    def _stepping(self, what: str, of: int) -> Callable[[int], None]:
        """Return what tells the daemon that so many volumes are done, and raises _Stopped if it asks to stop."""
        epochs = sum(self._recipe.epochs_of(phase) for phase in self._recipe.phases)

        def step(done: int) -> None:
            told = TrainingProgress(epoch=epochs, epochs=epochs, step=0, steps=0, message=f"{what}: {done} of {of}")
            self._progress.report(told.model_copy(update={"pf_days": self._done / PF_DAY}))
            if self._should_stop():
                raise _Stopped

        return step

    # ------------------------------------------------------------ what the daemon is told

    def _should_stop(self) -> bool:
        too_long = time.monotonic() - self._began > self._task.limits.max_seconds
        return too_long or self._progress.stop_requested()

    def _flops(self, phase: Phase, fit: PhaseFit) -> float:
        """Return what this process has computed in a phase."""
        each = case_flops(phase, self._recipe, self._costs, self._speech_bytes)
        looks = 0 if self._scene.seeing is None else self._scene.seeing.looks
        return each * (fit.learned + fit.judged / 3) + looks * self._costs.flops["encoder"]

    def _report(
        self, number: int, phase: Phase, fit: PhaseFit, epoch: int, done: int, told: dict[str, float | str]
    ) -> None:
        """Say that ``done`` steps and ``epoch`` epochs of a phase are complete, and what else is ``told``."""
        phases = self._recipe.phases
        before = sum(self._recipe.epochs_of(one) for one in phases[: number - 1])
        steps = fit.epochs * fit.steps_per_epoch
        # Steps before a resumption took none of this process's time.
        pace = (time.monotonic() - self._fitted_since) / max(1, done - self._steps_before)
        progress = {
            "epoch": before + epoch,
            "epochs": sum(self._recipe.epochs_of(one) for one in phases),
            "step": done,
            "steps": steps,
            "eta_s": pace * (steps - done),
            "message": f"phase {number} of {len(phases)}: {phase.name}",
            "pf_days": (self._done + self._flops(phase, fit)) / PF_DAY,
        }
        self._progress.report(TrainingProgress.model_validate({**progress, **told}))


LEFT_OUT = "left-out"
_NAMED = 5
"""Volumes left out whose reasons are told."""
_PLACES = {"language", "text_encoder"}
"""Keys of a recipe that name directories of this machine; no model says them."""


def paraphrased(language: Language) -> Callable[[str], str]:
    """Return a language model as what rewrites a text: it is asked without an image."""

    def rewritten(asked: str) -> str:
        embed = language.model.get_input_embeddings().weight
        return write(language, embed.new_zeros(1, 0, language.width), asked, longest=_PARAPHRASED)[0]

    return rewritten
