"""What the command line does itself when no daemon runs: it opens the home under its lock, as a daemon would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from clinic_ai.category_files import FOLDER as CATEGORIES
from clinic_ai.category_files import add_categories
from clinic_ai.conditions import FOLDER as CONDITIONS
from clinic_ai.conditions import add_conditions
from clinic_ai.control.bench_views import BenchOrder, BenchView
from clinic_ai.control.client import Client
from clinic_ai.control.dataset_client import DatasetClient
from clinic_ai.control.dataset_views import DatasetCheckView, DatasetRow, DatasetView
from clinic_ai.control.evaluation_views import EvaluateOrder, EvaluationView
from clinic_ai.control.forecast_views import ForecastOrder, ForecastView
from clinic_ai.control.night_views import SpendingView, TonightView
from clinic_ai.control.orders import DatasetDesk, ModelDesk, RunDesk
from clinic_ai.control.people import user_name
from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.promotions import PromotionDesk
from clinic_ai.control.sockets import answers
from clinic_ai.control.stats_desk import StatsDesk
from clinic_ai.control.stats_views import StatsOrder, StatsView
from clinic_ai.control.training_views import CheckOrder, CheckView, RunOrder
from clinic_ai.control.views import DoneView, ModelRow, RunRow, VerifyView
from clinic_ai.deidentification import Deidentifier
from clinic_ai.describing import FitResult
from clinic_ai.errors import DatasetError, NotFound
from clinic_ai.forecasting import Rates
from clinic_ai.gating import GateReport
from clinic_ai.guard.client import Guard
from clinic_ai.hardware import Machine
from clinic_ai.home import Home, check_home, lock_home
from clinic_ai.lanes import Lane, Wake
from clinic_ai.logs import only_errors
from clinic_ai.plugins import PluginCatalogue, find_plugins
from clinic_ai.processes import Crew
from clinic_ai.promoting import CanaryResult, PromotionRecord
from clinic_ai.results.codes import table
from clinic_ai.settings import Settings, load_settings
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.training.category_folders import SHEET_SUFFIX, category_of
from clinic_ai.training.fitting import fitted, machine_of
from clinic_ai.training.gate import Gate
from clinic_ai.training.labelled_sheets import form_of
from clinic_ai.training.loss_curves import read_curve
from clinic_ai.training.night import Night
from clinic_ai.training.promotion import Promotions
from clinic_ai.training.registry import Registry
from clinic_ai.training.runs import STOP_GRACE_S, Runs
from clinic_ai.training.scaling import Forecasts, costed, rates_of
from clinic_ai.training.sheet_reading import write_form
from clinic_ai.training.stats import Stats


class Models(Protocol):
    """What a daemon's client and a desk of one's own have in common."""

    def models(self) -> tuple[ModelRow, ...]:
        """Return all models."""

    def import_model(self, directory: str) -> DoneView:
        """Import a model directory."""

    def verify_model(self, plugin: str, name: str, version: str) -> VerifyView:
        """Check the files of a model."""

    def rollback_model(self, plugin: str, slot: str = "main") -> DoneView:
        """Take back the newest promotion of a slot."""


class Promoting(Protocol):
    """What a daemon's client and a desk of one's own have in common."""

    def check_model(self, plugin: str, name: str, version: str) -> GateReport:
        """Hold a candidate against the model in use."""

    def approve_model(self, order: ApproveOrder) -> DoneView:
        """Approve a candidate in the name of a person."""

    def promote_model(self, order: PromoteOrder) -> DoneView:
        """Make a model the active one of its slot."""

    def run_canary(self, order: CanaryOrder) -> CanaryResult:
        """Run a candidate in the shadow."""

    def model_record(self, plugin: str, name: str, version: str) -> PromotionRecord:
        """Return what stands behind a model."""


class Training(Protocol):
    """What a daemon's client and a desk of one's own have in common. A daemon's runs outlive this process."""

    outlives_us: bool

    def runs(self) -> tuple[RunRow, ...]:
        """Return all runs."""

    def run(self, run_id: str) -> RunRow:
        """Return one run."""

    def check_labels(self, order: CheckOrder) -> CheckView:
        """Say what a run would learn from a folder."""

    def start_run(self, order: RunOrder) -> RunRow:
        """Start a run."""

    def stop_run(self, run_id: str) -> DoneView:
        """Stop a run."""

    def pause_run(self, run_id: str) -> DoneView:
        """Pause a run."""

    def resume_run(self, run_id: str, *, at_once: bool = False) -> DoneView:
        """Go on with a run; ``at_once`` without waiting for a window."""

    def tonight(self) -> TonightView:
        """Say what will be trained in the next window."""

    def spending(self) -> SpendingView:
        """Say what training may use and has used."""


class FrozenDatasets(Protocol):
    """What a daemon's client and a desk of one's own have in common."""

    def datasets(self) -> tuple[DatasetRow, ...]:
        """Return all datasets."""

    def dataset(self, dataset_id: str) -> DatasetView:
        """Return one dataset."""

    def check_dataset(self, dataset_id: str) -> DatasetCheckView:
        """Read the images of a dataset again."""


class Benching(Protocol):
    """What a daemon's client and a desk of one's own have in common."""

    def evaluate_model(self, order: EvaluateOrder) -> EvaluationView:
        """Score a model on a frozen dataset."""

    def bench_model(self, order: BenchOrder) -> BenchView:
        """Measure a model."""


class Describing(Protocol):
    """What a daemon's client and a desk of one's own have in common."""

    def model_stats(self, order: StatsOrder) -> StatsView:
        """Describe a model."""


def actor() -> str:
    """Return the name under which the audit records what is done here."""
    return user_name(os.geteuid())


def daemon_answers(home: Home) -> bool:
    """Return whether a daemon serves this home."""
    return answers(home.control_socket)


def plugins_of(home: Home) -> PluginCatalogue:
    """Return the installed plugins with the conditions and categories that this home adds to them."""
    catalogue = find_plugins()
    add_conditions(catalogue, home.path / CONDITIONS, table())
    add_categories(catalogue, home.path / CATEGORIES)
    return catalogue


@contextmanager
def model_desk(home: Home) -> Iterator[Models]:
    """Give the models of the daemon, or of the home if no daemon runs. Raise HomeError if neither is possible."""
    if daemon_answers(home):
        with Client(home) as client:
            yield client
        return
    with _opened(home) as (database, crew, _):
        yield ModelDesk(Registry(home, database, plugins_of(home).manifests, crew), actor())


@contextmanager
def training(home: Home) -> Iterator[Training]:
    """Give the training of the daemon, or of the home if no daemon runs; there, a run is paused at the end.

    There too it keeps to windows and budgets; nothing begins that was not asked for here.
    """
    if daemon_answers(home):
        with Client(home) as client:
            yield client
        return
    with only_errors(), _opened(home) as opened:
        database, _, settings = opened
        runs, wake = _runs(home, *opened), Wake()
        night = Night(
            runs=runs,
            database=database,
            settings=lambda: settings.training,
            sensors=Machine(home.path),
            directory=home.runs,
            wake=wake,
            alone=True,
        )
        lane = Lane("night", night.step, wake)
        runs.recover()
        lane.start()
        try:
            yield RunDesk(runs, actor(), night)
        finally:
            runs.close()
            lane.ask_to_stop()
            lane.join(STOP_GRACE_S)
            night.close()


@contextmanager
def describing(home: Home) -> Iterator[Describing]:
    """Give what describes models, of the daemon, or of the home if no daemon runs."""
    if daemon_answers(home):
        with Client(home) as client:
            yield client
        return
    with _opened(home) as (database, crew, settings):
        manifests = plugins_of(home).manifests
        yield StatsDesk(Stats(Registry(home, database, manifests, crew), manifests, crew, settings.training))


def fit_machine(
    home: Home, plugin: str, *, memory_mb: int | None, gpu_memory_mb: int | None, cpus: int | None
) -> FitResult:
    """Return which configuration of a plugin's networks fits this machine, or another where that is said of it.

    No daemon and no database have a part in it. Raise NotFound or Conflict as ``fitted`` does, HardwareError if this
    machine cannot be read, ChildError with what the trainer says if it cannot tell.
    """
    manifests, crew = plugins_of(home).manifests, Crew()
    settings = load_settings(home.clinic_toml) if home.clinic_toml.exists() else Settings()
    machine = Machine(home.path if home.path.exists() else Path("/"))
    try:
        task = machine_of(plugin, machine.read(), memory_mb=memory_mb, gpu_memory_mb=gpu_memory_mb, cpus=cpus)
        return fitted(crew, manifests, task, settings.training)
    finally:
        machine.close()
        crew.close()


@contextmanager
def benching(home: Home) -> Iterator[Benching]:
    """Give what measures models, of the daemon, or of the home if no daemon runs; planned runs stay planned there."""
    if daemon_answers(home):
        with Client(home) as client:
            yield client
        return
    with _opened(home) as opened:
        yield RunDesk(_runs(home, *opened), actor())


def forecast_run(home: Home, run_id: str, order: ForecastOrder) -> ForecastView:
    """Return what a run would bring if it went on, by the daemon or, if none runs, by the home itself.

    Raise NotFound, InputError if its loss tells nothing, or ChildError.
    """
    if daemon_answers(home):
        with Client(home) as client:
            return client.forecast_run(run_id, order)
    with _opened(home) as (database, crew, settings):
        forecasts = Forecasts(home, database, crew, lambda: settings.training.budget)
        return ForecastView.model_validate(forecasts.of_run(run_id, order.wish()))


def forecast_file(home: Home, file: Path, column: str, order: ForecastOrder) -> ForecastView:
    """Return what a loss curve in a CSV file foretells; no daemon has a part in it, and there need be no home.

    Where there is one, its prices count. Raise InputError if the file tells nothing, or ChildError.
    """
    found = read_curve(file, column)
    wish = order.wish()
    pace, known = found.seconds_per_step, None
    if pace is not None and wish.seconds_per_step is None:
        known = Rates(seconds=pace, basis=f"By the clock of the file: {pace:.3g} s a {found.curve.unit}.")
    settings = load_settings(home.clinic_toml) if home.clinic_toml.exists() else Settings()
    rates = rates_of(wish, settings.training.budget, known=known)
    crew = Crew()
    try:
        return ForecastView.model_validate(costed(crew, found.curve, wish, rates))
    finally:
        crew.close()


@contextmanager
def promoting(home: Home) -> Iterator[Promoting]:
    """Give what decides about candidates, of the daemon, or of the home if no daemon runs."""
    if daemon_answers(home):
        with PromotionClient(home) as client:
            yield client
        return
    with _opened(home) as opened:
        database, _, settings = opened
        runs = _runs(home, *opened)
        yield PromotionDesk(database, Promotions(database, runs.registry, lambda: settings), runs, None, actor())


@contextmanager
def dataset_desk(home: Home) -> Iterator[FrozenDatasets]:
    """Give the frozen datasets of the daemon, or of the home if no daemon runs. Raise HomeError if neither can be."""
    if daemon_answers(home):
        with DatasetClient(home) as client:
            yield client
        return
    with _opened(home) as opened:
        yield DatasetDesk(_runs(home, *opened).datasets)


def write_sheet(home: Home, plugin: str, category: str, file: Path) -> DoneView:
    """Write a sheet to fill in for the images of a folder. Raise NotFound, DatasetError or ChildError."""
    manifest = plugins_of(home).manifests.get(plugin)
    if manifest is None:
        raise NotFound(f"There is no plugin {plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
    if file.suffix != SHEET_SUFFIX:
        raise DatasetError(f"{file.name} does not end with {SHEET_SUFFIX}.", remedy="Give it such a name.")
    found = category_of(category, manifest.categories)
    rows = form_of(file.parent, found)
    crew = Crew()
    try:
        write_form(crew, found.label, rows, file)
    finally:
        crew.close()
    return DoneView(
        sentence=f"{file} has a row for each of {len(rows) - 1} images of {found.label}; fill it in, then look at it "
        f"with `clinic-ai train check {plugin} {file.parent} --category {found.key}`."
    )


def _runs(home: Home, database: Database, crew: Crew, settings: Settings) -> Runs:
    manifests = plugins_of(home).manifests
    registry = Registry(home, database, manifests, crew)
    deidentifier = Deidentifier(
        crew=crew,
        database=database,
        objects=ObjectStore(home.objects),
        directory=home.jobs,
        max_pixels=lambda: settings.ingest.max_pixels,
    )
    guard = Guard(
        crew,
        home.policies / settings.guard.pack,
        timeout_s=settings.guard.timeout_s,
        archive=home.state / "policies",
    )  # its child starts when it is first asked, and ends with the others
    gate = Gate(home, database, registry, crew, guard, lambda: settings)
    return Runs(home, database, registry, manifests, crew, settings, deidentifier, gate)


@contextmanager
def _opened(home: Home) -> Iterator[tuple[Database, Crew, Settings]]:
    check_home(home)
    settings = load_settings(home.clinic_toml)
    crew = Crew()
    with lock_home(home):
        database = Database(home.database)
        try:
            database.open()
            yield database, crew, settings
        finally:
            crew.close()
            database.close()


def make_database(home: Home) -> None:
    """Make the database of a home that has none. Raise HomeError if the home is in use or cannot be written.

    The daemon would make it too, and keep for the rest of its life the memory that making it takes.
    """
    if home.database.exists():
        return
    with lock_home(home):
        database = Database(home.database)
        try:
            database.open()
        finally:
            database.close()


def absolute(path: Path) -> str:
    """Return a path as the daemon, which stands somewhere else, can use it."""
    return str(path.expanduser().resolve())
