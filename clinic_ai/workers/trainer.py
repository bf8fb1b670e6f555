"""The trainer child: one training run, measurement or examination, of one plugin.

Methods ``plan``, ``train``, ``evaluate``, ``bench``, ``examine``, ``describe``, ``fit``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clinic_ai import confinement, wire

if TYPE_CHECKING:
    from clinic_ai.benching import BenchRequest, BenchResult
    from clinic_ai.contract import (
        EvaluateRequest,
        PlanTask,
        Scores,
        Trainer,
        TrainingPlan,
        TrainingProgress,
        TrainingResult,
        TrainRequest,
    )
    from clinic_ai.describing import DescribeRequest, FitRequest, FitResult, ModelStats
    from clinic_ai.gating import Examined, ExamineRequest


class _Reporter:
    """What a trainer sees of the daemon."""

    def __init__(self, call: wire.Call) -> None:
        self._call = call

    def report(self, progress: TrainingProgress) -> None:
        self._call.progress(progress)

    def stop_requested(self) -> bool:
        return self._call.stop_requested()


def plan(params: PlanTask, _: wire.Call) -> TrainingPlan:
    """Say what training would cost. Raise DatasetError if the data set would leak or mean nothing."""
    with _packages_of(params.trainer):
        return _make(params.trainer).plan(params.dataset, params.limits, params.recipe, params.base)


def train(params: TrainRequest, call: wire.Call) -> TrainingResult:
    """Train or resume; a ``stop`` during the call ends it at the next whole checkpoint."""
    with _packages_of(params.trainer):
        return _make(params.trainer).train(params.task, _Reporter(call))


def evaluate(params: EvaluateRequest, _: wire.Call) -> Scores:
    """Return the figures of a model on the test part of a dataset."""
    with _packages_of(params.trainer):
        return _make(params.trainer).evaluate(params.model, params.dataset, params.device, params.base)


def bench(params: BenchRequest, _: wire.Call) -> BenchResult:
    """Measure a model, and an int8 version of it. Raise PluginError if this trainer cannot."""
    from clinic_ai.benching import Bencher
    from clinic_ai.errors import PluginError

    trainer = _make(params.trainer)
    if not isinstance(trainer, Bencher):
        raise PluginError(
            f"The plugin {params.task.model.ref.plugin} cannot measure its models: its trainer has no `bench`.",
            remedy="Measure a model of another plugin, or ask the maker of this one.",
        )
    with _packages_of(params.trainer):
        return trainer.bench(params.task)


def examine(params: ExamineRequest, _: wire.Call) -> Examined:
    """Have two models judge the same test examples, and hold one against the other.

    Raise PluginError if this trainer cannot, DatasetError if the two cannot be compared on these examples.
    """
    from clinic_ai.errors import DatasetError, PluginError
    from clinic_ai.gating import Examined, Judge

    trainer = _make(params.trainer)
    if not isinstance(trainer, Judge):
        raise PluginError(
            f"The trainer of {params.candidate.model.ref.plugin} cannot say what a model makes of test examples: it "
            "has no `judge`, so none of its candidates can be promoted.",
            remedy="Ask the maker of the plugin.",
        )
    from clinic_ai.ml.comparison import check_all_judged, check_rows, compare, said_by_both

    with _packages_of(params.trainer):
        candidate = trainer.judge(params.candidate)
        incumbent = None if params.incumbent is None else trainer.judge(params.incumbent)
    try:
        for judged, task in ((candidate, params.candidate), (incumbent, params.incumbent)):
            if judged is not None and task is not None:
                check_rows(judged, [example for example in task.dataset.examples if example.split == "test"])
        if incumbent is not None:
            check_all_judged(candidate, incumbent)
        comparison = compare(candidate, incumbent)
    except ValueError as error:
        raise DatasetError(
            f"Candidate and model in use cannot be compared: {error}.",
            remedy="Give the candidate a slot of its own in model.toml, or promote a model for the same purpose first.",
        ) from error
    notes = (*candidate.notes, *(incumbent.notes if incumbent is not None else ()))
    return Examined(comparison=comparison, said=said_by_both(candidate, incumbent), notes=tuple(dict.fromkeys(notes)))


def describe(params: DescribeRequest, _: wire.Call) -> ModelStats:
    """Say what a model is made of and what its training would take. Raise PluginError if this trainer cannot."""
    from clinic_ai.describing import Describer
    from clinic_ai.errors import PluginError

    trainer = _make(params.trainer)
    if not isinstance(trainer, Describer):
        raise PluginError(
            f"The plugin {params.task.model.ref.plugin} cannot describe its models: its trainer has no `describe`.",
            remedy="`clinic-ai model list` says what is there; ask the maker of the plugin for more.",
        )
    with _packages_of(params.trainer):
        return trainer.describe(params.task)


def fit(params: FitRequest, _: wire.Call) -> FitResult:
    """Say which configuration of a plugin's networks fits a machine. Raise PluginError if this trainer cannot."""
    from clinic_ai.describing import Fitter
    from clinic_ai.errors import PluginError

    trainer = _make(params.trainer)
    if not isinstance(trainer, Fitter):
        raise PluginError(
            f"The networks of the plugin {params.task.plugin} come in one size: its trainer has no `fit`.",
            remedy="`clinic-ai model stats` says what a model of it needs.",
        )
    with _packages_of(params.trainer):
        return trainer.fit(params.task)


@contextmanager
def _packages_of(path: str) -> Iterator[None]:
    """Name what is not installed: a trainer may import what it needs only where it does. Raise PluginError if so."""
    from clinic_ai.errors import PluginError

    try:
        yield
    except ModuleNotFoundError as error:
        raise PluginError(
            f"The trainer {path} needs the Python package {error.name}, which is not installed.",
            remedy="Install what learning needs, for instance: pip install 'clinic-ai-xray[train]'.",
        ) from error


def _make(path: str) -> Trainer:
    """Return a trainer of the class ``package.module:Class``. Raise PluginError if there is none."""
    from clinic_ai.errors import PluginError

    module, _, name = path.partition(":")
    try:
        with _packages_of(path):
            trainer: Trainer = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise PluginError(
            f"The trainer {path} cannot be started ({type(error).__name__}).", remedy="Install the plugin again."
        ) from error
    return trainer


def main() -> None:
    """Tie our hands, then serve until the daemon closes the channel."""
    channel, _ = confinement.confine()
    from clinic_ai.benching import BenchRequest
    from clinic_ai.contract import EvaluateRequest, PlanTask, TrainRequest
    from clinic_ai.describing import DescribeRequest, FitRequest
    from clinic_ai.gating import ExamineRequest

    methods = {
        "plan": wire.Method(PlanTask, plan),
        "train": wire.Method(TrainRequest, train),
        "evaluate": wire.Method(EvaluateRequest, evaluate),
        "bench": wire.Method(BenchRequest, bench),
        "describe": wire.Method(DescribeRequest, describe),
        "examine": wire.Method(ExamineRequest, examine),
        "fit": wire.Method(FitRequest, fit),
    }
    wire.serve(channel, methods)


if __name__ == "__main__":
    main()
