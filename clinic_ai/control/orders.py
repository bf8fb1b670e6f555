"""What people may order of models and training; the CLI uses the same when no daemon runs."""

from __future__ import annotations

from pathlib import Path

from clinic_ai.control.bench_views import BenchOrder, BenchView
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetRow, DatasetView, row_of, view_of
from clinic_ai.control.evaluation_views import EvaluateOrder, EvaluationView
from clinic_ai.control.night_views import SpendingView, TonightView
from clinic_ai.control.services import DatasetsPort, NightPort, RegistryPort, RunsPort
from clinic_ai.control.training_views import CheckOrder, CheckView, RunOrder
from clinic_ai.control.views import DoneView, ModelRow, RunRow, VerifyView
from clinic_ai.domain import ModelRef
from clinic_ai.errors import Conflict, NotFound


class ModelDesk:
    """The model registry for one person, by name in the audit."""

    def __init__(self, registry: RegistryPort, actor: str) -> None:
        self._registry = registry
        self._actor = actor

    def models(self) -> tuple[ModelRow, ...]:
        """Return all models."""
        return tuple(ModelRow.model_validate(model) for model in self._registry.list_models())

    def import_model(self, directory: str) -> DoneView:
        """Import a model directory. Raise ModelError."""
        ref = self._registry.import_directory(Path(directory), self._actor)
        return DoneView(
            sentence=f"{ref.label()} is imported; `clinic-ai model promote {_words(ref)}` makes it the active one."
        )

    def verify_model(self, plugin: str, name: str, version: str) -> VerifyView:
        """Check the files of a model against its manifest. Raise NotFound."""
        problems = self._registry.verify(plugin, name, version)
        return VerifyView(plugin=plugin, name=name, version=version, problems=tuple(problems))

    def rollback_model(self, plugin: str, slot: str = "main", retires: str | None = None) -> DoneView:
        """Take back the newest promotion of a slot. Raise Conflict or ModelError."""
        ref = self._registry.rollback(plugin, slot, self._actor, retires=retires)
        return DoneView(sentence=f"{ref.label()} is the active model of {ref.plugin}, slot {ref.slot}, again.")


class DatasetDesk:
    """The frozen datasets of a home."""

    def __init__(self, datasets: DatasetsPort) -> None:
        self._datasets = datasets

    def datasets(self) -> tuple[DatasetRow, ...]:
        """Return all datasets, newest first."""
        return tuple(row_of(view) for view in self._datasets.list_datasets())

    def dataset(self, dataset_id: str) -> DatasetView:
        """Return all that is known of a dataset. Raise NotFound."""
        return view_of(self._datasets.show(dataset_id))

    def check_dataset(self, dataset_id: str) -> DatasetCheckView:
        """Read the images of a dataset again and say what is wrong with it. Raise NotFound."""
        return DatasetCheckView.model_validate(self._datasets.inspect(dataset_id))


class RunDesk:
    """Training for one person, by name in the audit."""

    outlives_us = False
    """Runs of this process pause when it ends."""

    def __init__(self, runs: RunsPort, actor: str, night: NightPort | None = None) -> None:
        self._runs = runs
        self._actor = actor
        self._night = night

    def runs(self) -> tuple[RunRow, ...]:
        """Return all runs."""
        return tuple(RunRow.model_validate(run) for run in self._runs.list_runs())

    def run(self, run_id: str) -> RunRow:
        """Return one run. Raise NotFound."""
        for row in self.runs():
            if row.run_id == run_id:
                return row
        raise NotFound(f"There is no training run {run_id}.", remedy="`clinic-ai train list` shows the runs there are.")

    def check_labels(self, order: CheckOrder) -> CheckView:
        """Say what a run would learn from these labels. Raise NotFound, Conflict or ChildError."""
        directory = None if order.dataset is None else Path(order.dataset)
        found = self._runs.check(order.plugin, directory, order.category, sources=order.sources)
        return CheckView.model_validate(found)

    def start_run(self, order: RunOrder) -> RunRow:
        """Start a run. Raise DatasetError, NotFound or Conflict."""
        directory = None if order.dataset is None else Path(order.dataset)
        run_id = self._runs.start(
            order.plugin,
            directory,
            dict(order.recipe),
            self._actor,
            sources=order.sources,
            at_once=order.at_once,
        )
        return self.run(run_id).model_copy(update={"dataset_notes": self._runs.dataset_notes(run_id)})

    def tonight(self) -> TonightView:
        """Return what will be trained in the next window, and why or why not. Raise Conflict if nothing governs it."""
        return TonightView.model_validate(self._governed().tonight())

    def spending(self) -> SpendingView:
        """Return the budgets and the ledger. Raise Conflict if nothing governs the runs."""
        return SpendingView.model_validate(self._governed().spending())

    def _governed(self) -> NightPort:
        if self._night is None:
            raise Conflict("Nothing governs training here.", remedy="Start the daemon with `clinic-ai run`.")
        return self._night

    def bench_model(self, order: BenchOrder) -> BenchView:
        """Measure a model on this machine. Raise DatasetError, NotFound, Conflict, or ChildError."""
        directory = None if order.dataset is None else Path(order.dataset)
        found = self._runs.bench(order.plugin, order.name, order.version, directory, self._actor)
        return BenchView.model_validate(found)

    def evaluate_model(self, order: EvaluateOrder) -> EvaluationView:
        """Score a model on the test part of a dataset. Raise DatasetError, NotFound, Conflict, or ChildError."""
        model = None if order.name is None or order.version is None else (order.name, order.version)
        return EvaluationView.model_validate(self._runs.evaluate(order.plugin, model, order.dataset_id or ""))

    def stop_run(self, run_id: str) -> DoneView:
        """Stop a run at its next safe point. Raise NotFound or Conflict."""
        self._runs.stop(run_id, self._actor)
        return DoneView(sentence=f"Training run {run_id} is stopped.")

    def pause_run(self, run_id: str) -> DoneView:
        """Pause a run; its process is gone afterwards. Raise NotFound or Conflict."""
        self._runs.pause(run_id, self._actor)
        return DoneView(sentence=f"Training run {run_id} is paused; `clinic-ai train resume {run_id}` goes on with it.")

    def resume_run(self, run_id: str, *, at_once: bool = False) -> DoneView:
        """Go on with a run; ``at_once`` without waiting for a window. Raise NotFound or Conflict."""
        self._runs.resume(run_id, self._actor, at_once=at_once)
        return DoneView(sentence=f"Training run {run_id} goes on.")


def _words(ref: ModelRef) -> str:
    return f"{ref.plugin} {ref.name} {ref.version}"
