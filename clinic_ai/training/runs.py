"""Training runs: one at a time, each in a child of its own that may be stopped, killed and gone on with.

A run that is not RUNNING has no process. Whatever ends a run before it is finished leaves its checkpoints in
``runs/<run id>/``; the trainer goes on from the newest whole one. What a finished run made becomes a
CANDIDATE in the registry and nothing more: only a person promotes it.

Planned runs begin one after the other, unless somebody governs them: then one begins, or goes on, when ``let`` says so.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from clinic_ai.contract import Dataset, Device, PluginManifest, TrainingProgress
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import FOLDER_ALONE, LabelSource, PauseCode, RunState
from clinic_ai.errors import ChildError, ChildRefused, ClinicError, Conflict, NotFound
from clinic_ai.gating import GateReport
from clinic_ai.hardware import Devices
from clinic_ai.home import Home
from clinic_ai.lanes import places
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings, TrainingSettings
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RecipeValue, RunView
from clinic_ai.training.bench import Bench, Benched
from clinic_ai.training.checking import Checked
from clinic_ai.training.datasets import Datasets
from clinic_ai.training.gate import Gate
from clinic_ai.training.histories import History, Traces, history_of
from clinic_ai.training.label_reading import Terms
from clinic_ai.training.registry import Registry
from clinic_ai.training.sheet_reading import SheetReader
from clinic_ai.training.starting import base_of
from clinic_ai.training.work import OVERTIME_S, Evaluated, Running, Wish, Work

STOP_GRACE_S = 10.0
"""Time a trainer has to write a checkpoint when it is asked to stop; then it is killed."""

log = structlog.get_logger()


class Runs:
    """The training runs of one home. Safe to call from several threads; a thread of its own does the work."""

    def __init__(
        self,
        home: Home,
        database: Database,
        registry: Registry,
        manifests: Mapping[str, PluginManifest],
        crew: Crew,
        settings: Settings,
        deidentifier: Deidentifier,
        gate: Gate | None = None,
        devices: Devices | None = None,
        *,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the rooms it works with; without a ``gate`` nothing is examined, and no candidate can be promoted.

        ``devices`` chooses where runs compute; None: by the sensors of this machine. ``on_progress`` is called when
        something of a run was stored that the audit does not tell: its progress, or why it waits.
        """
        self._directory = home.runs
        self._database = database
        self.registry = registry
        self._manifests = manifests
        self.settings: TrainingSettings = settings.training
        self._owner = secrets.token_hex(8)
        self.datasets = Datasets(home, database, deidentifier, SheetReader(crew))
        self._traces = Traces()
        self.work = Work(
            home,
            database,
            registry,
            self.datasets,
            crew,
            lambda: self.settings,
            gate,
            devices,
            told=self._note,
            on_progress=on_progress,
        )
        self.tell = on_progress
        self._bench = Bench(home, registry, crew, gate)
        self._benching = threading.Lock()
        self._changed = threading.Condition()
        self._running: Running | None = None
        self.asked: set[str] = set()
        """The runs that somebody started or resumed here since this process began."""
        self._news: Callable[[], None] | None = None
        """Whom to tell that something changed; None while nobody governs the runs."""
        self._closed = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ what people ask

    def start(
        self,
        plugin: str,
        dataset_directory: Path | None,
        recipe: Mapping[str, RecipeValue],
        actor: str,
        *,
        sources: Collection[LabelSource] = FOLDER_ALONE,
        at_once: bool = False,
    ) -> str:
        """Freeze the dataset and queue a run; return its id. ``at_once``: it is not to wait for a window.

        It is made of these ``sources``; labels lie in the directory, or in ``labels/PLUGIN`` if none is given.

        Where the plugin learns from answers, ``category`` of the recipe names what they are about, else the folder
        does. Raise NotFound if there is no such plugin, Conflict if it cannot learn, DatasetError if the folder has
        problems.
        """
        manifest = self.trainable(plugin)
        recipe = dict(recipe)
        category = str(recipe.pop("category", "")) if manifest.labels == "answers" else ""
        dataset = self.datasets.gather(manifest, sources, actor, self.terms(plugin, category), dataset_directory)
        with self._database.write() as connection:
            run_id = store.add_run(connection, plugin, dataset.dataset_id, recipe, actor, at_once=at_once)
        self.asked.add(run_id)
        self._wake()
        return run_id

    def plan(self, dataset: Dataset, recipe: Mapping[str, RecipeValue], plan_key: str, at: float) -> str:
        """Queue a run of a ``[[training.plan]]`` on a frozen dataset, for the night; return its id.

        ``at`` is the time of day, UTC seconds.
        """
        with self._database.write() as connection:
            run_id = store.add_run(
                connection,
                dataset.plugin,
                dataset.dataset_id,
                recipe,
                "clinic-ai",
                origin="night",
                plan_key=plan_key,
                at=at,
            )
        self._wake()
        return run_id

    def check(
        self,
        plugin: str,
        dataset_directory: Path | None,
        category: str = "",
        *,
        sources: Collection[LabelSource] = FOLDER_ALONE,
    ) -> Checked:
        """Return what a run would learn from these, and every problem of them; nothing is kept or started.

        Raise NotFound if there is no such plugin, Conflict if it cannot learn.
        """
        manifest = self.trainable(plugin)
        return self.datasets.check_sources(manifest, sources, self.terms(plugin, category), dataset_directory)

    def history(self, run_id: str) -> History:
        """Return loss and metrics of a run so far. Raise NotFound."""
        return history_of(self.get(run_id), self._directory / run_id, self._traces.of(run_id))

    def dataset_notes(self, run_id: str) -> tuple[str, ...]:
        """Return what was noted when the dataset of a run was frozen; notes name files. Raise NotFound."""
        return self.datasets.notes(self.get(run_id).dataset_id)

    def stop(self, run_id: str, actor: str) -> None:
        """Stop a run: it writes a checkpoint within 10 s or is killed. Raise NotFound, Conflict if it ended."""
        with self._changed:
            running = self._wish(run_id, "stop", actor, "")
            if running is None:
                with self._database.write() as connection:
                    store.end(connection, run_id, "stop", actor=actor)
        self._see_end_of(running)
        self._wake()

    def pause(self, run_id: str, actor: str) -> None:
        """Pause a running run; its process is gone afterwards. Raise NotFound, Conflict if it is not running."""
        with self._changed:
            running = self._wish(run_id, "pause", actor, f"Paused by {actor}.")
            if running is None:
                state = self.get(run_id).state
                raise Conflict(
                    f"The run {run_id} is {state.value}; only a running one can be paused.",
                    remedy=f"`clinic-ai train stop {run_id}` keeps one that waits from going on by itself.",
                )
        self._see_end_of(running)

    def resume(self, run_id: str, actor: str, *, at_once: bool = False) -> None:
        """Queue a paused, stopped or failed run again; it goes on from its newest checkpoint.

        ``at_once``: it is not to wait for a window, even if it is planned already. Raise NotFound, Conflict if it is
        running or finished, or planned and nothing changes by that.
        """
        with self._database.write() as connection:
            store.resume(connection, run_id, actor, at_once=at_once)
        self.asked.add(run_id)
        self._wake()

    # ------------------------------------------------------------ what the night does

    def govern(self, news: Callable[[], None]) -> None:
        """Let nothing begin or go on from now on before ``let`` says so; ``news`` is called when anything changed."""
        self._news = news

    @property
    def at_work(self) -> Running | None:
        """The run at work, from the moment it was let to its end."""
        return self._running

    def startable(self) -> list[RunView]:
        """Return the runs that may be let, in the order in which that is tried."""
        with self._database.read() as connection:
            return store.startable(connection)

    def let(self, run_id: str, device: Device) -> Running | None:
        """Let a planned run begin, or one that the machine paused go on, on this device; return it as it is at work.

        None if another one is at work or something is measured, or a person has decided otherwise meanwhile.
        """
        with self._changed:
            if self._closed or self._running is not None or self._benching.locked():
                return None
            with self._database.write() as connection:
                run = store.get_run(connection, run_id)
                if run.state is RunState.PAUSED and run.goes_on:
                    store.resume(connection, run_id, "clinic-ai")
                elif run.state is not RunState.PLANNED:
                    return None
            self._running = running = Running(run_id, device)
        self._wake()
        return running

    def interrupt(self, code: PauseCode, why: str, grace_s: float) -> None:
        """Pause the run at work for a reason of the machine; its process is gone afterwards.

        It may write a checkpoint for ``grace_s`` seconds, or less if ``hurry`` is called meanwhile. What a person
        wished of it before stands.
        """
        with self._changed:
            running = self._running
            if running is not None and running.wish is None:
                running.wish, running.actor, running.code, running.why = "pause", "clinic-ai", code, why
        self._see_end_of(running, grace_s)

    def hurry(self, grace_s: float) -> None:
        """Leave a run that is ending no more than this many seconds from now."""
        with self._changed:
            if self._running is not None and self._running.wish is not None:
                self._running.kill_at = min(self._running.kill_at, time.monotonic() + grace_s)
                self._changed.notify_all()

    # ------------------------------------------------------------ what is told

    def list_runs(self, limit: int | None = None, before: str | None = None) -> list[RunView]:
        """Return all runs, newest first; or ``limit`` of them, after ``before``. Raise NotFound if that is none."""
        with self._database.read() as connection:
            return store.list_runs(connection, limit, before)

    def living(self) -> list[RunView]:
        """Return the runs that are at work or go on by themselves, newest first."""
        with self._database.read() as connection:
            return store.living(connection)

    def get(self, run_id: str) -> RunView:
        """Return a run. Raise NotFound if there is none of that id."""
        with self._database.read() as connection:
            return store.get_run(connection, run_id)

    def wait(self, run_id: str, timeout_s: float) -> RunView:
        """Return the run once it is neither planned nor running, or as it is after ``timeout_s``. Raise NotFound."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (run := self.get(run_id)).state in {RunState.PLANNED, RunState.RUNNING}:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(timeout=left):
                    return self.get(run_id)
            return run

    def bench(self, plugin: str, name: str, version: str, dataset_directory: Path | None, actor: str) -> Benched:
        """Measure a model on this machine; with labelled images, beside an int8 version, which may become a candidate.

        Raise NotFound if there is no such plugin or model, Conflict if a run or another measurement is at work or the
        model has an int8 version already, DatasetError if the folder has problems, ChildError if the trainer cannot.
        """
        manifest = self.trainable(plugin)
        with self._measuring():
            model = self.registry.named(plugin, name, version)
            dataset = None
            if dataset_directory is not None:
                self._bench.refuse_second(model)
                dataset = self._freeze(manifest, dataset_directory, actor)
            spec, limits, most = self.work.spec(manifest), self.work.limits(), self.settings.max_seconds + OVERTIME_S
            return self._bench.measure(manifest, model, dataset, actor, spec=spec, limits=limits, timeout_s=most)

    def examine(self, plugin: str, name: str, version: str) -> GateReport:
        """Hold a model against the one in use, on the test patients of the dataset it was made of, and store that.

        Raise NotFound if there is no such plugin or model, Conflict if a run or a measurement is at work or it is not
        known which dataset that is, DatasetError if the dataset is damaged, ModelError if the model is.
        """
        manifest = self.trainable(plugin)
        with self._measuring():
            return self.work.examine_again(manifest, self.registry.loaded(self.registry.named(plugin, name, version)))

    def evaluate(self, plugin: str, model: tuple[str, str] | None, dataset_id: str) -> Evaluated:
        """Return the figures of a model, or of the one in use, on the test part of a dataset, or of the newest.

        Raise NotFound if there is no such plugin, model or dataset, Conflict if a run or a measurement is at work,
        DatasetError if the dataset is damaged or the model was trained on its test part, ChildError if the trainer
        cannot.
        """
        manifest = self.trainable(plugin)
        with self._measuring():
            ref = self.registry.named(plugin, *model) if model else base_of(manifest, {}, self.registry)
            if ref is None:
                remedy = "Name one of `clinic-ai model list`, or promote one."
                raise NotFound(f"No model of {plugin} is active.", remedy=remedy)
            dataset = self.datasets.get(dataset_id or self.datasets.newest(plugin))
            if dataset.plugin != plugin:
                raise Conflict(f"The dataset {dataset_id} is of {dataset.plugin}.", remedy=f"Choose one of {plugin}.")
            return self.work.evaluate(manifest, self.registry.loaded(ref), dataset)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Measure, with nothing else at work. Raise Conflict if something is."""
        if not self._benching.acquire(blocking=False):
            raise Conflict("Another model is being measured.", remedy="Try again when that is over.")
        try:
            with self._changed:
                running = self._running
            if running is not None:
                raise Conflict(
                    f"The training run {running.run_id} is at work, beside which nothing can be measured.",
                    remedy="Try again when it is over, or pause it with `clinic-ai train pause`.",
                )
            yield
        finally:
            self._benching.release()

    # ------------------------------------------------------------ life

    def recover(self) -> None:
        """Pause what a daemon that is gone left running, and go on with what is planned.

        Its child died with it. Where nobody governs the runs, a person says whether it goes on: ``resume``.
        """
        with self._database.write() as connection:
            for run_id in store.orphans(connection, self._owner):
                why = f"The appliance ended during this run; `clinic-ai train resume {run_id}` goes on with it."
                store.pause(connection, run_id, why, "clinic-ai", code=PauseCode.RESTART)
        self._wake()

    def close(self) -> None:
        """Pause the run at work, if any, and end the thread. Planned runs start with the next daemon."""
        with self._changed:
            self._closed = True
            running, thread = self._running, self._thread
            if running is not None:
                why = f"The appliance was stopped; `clinic-ai train resume {running.run_id}` goes on with it."
                self._wish(running.run_id, "pause", "clinic-ai", why, PauseCode.RESTART)
            self._changed.notify_all()
        self._see_end_of(running)
        if thread is not None:
            thread.join(timeout=STOP_GRACE_S)

    def _freeze(self, manifest: PluginManifest, directory: Path, actor: str, category: str = "") -> Dataset:
        return self.datasets.freeze(manifest, directory, actor, self.terms(manifest.name, category))

    def terms(self, plugin: str, category: str) -> Terms:
        """Return on what terms labels become a dataset for a plugin."""
        trained = frozenset(ref.slot for ref in self.registry.active(plugin))
        return Terms(keep_burned_in=self.settings.burned_in == "keep", category=category, trained=trained)

    def trainable(self, plugin: str) -> PluginManifest:
        """Return the manifest of a plugin. Raise NotFound if there is none, Conflict if it cannot learn."""
        manifest = self._manifests.get(plugin)
        if manifest is None:
            raise NotFound(f"There is no plugin {plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
        if manifest.trainer is None:
            raise Conflict(f"The plugin {plugin} cannot learn: it has no trainer.", remedy="Choose another plugin.")
        return manifest

    def _wish(
        self, run_id: str, wish: Wish, actor: str, why: str, code: PauseCode = PauseCode.PERSON
    ) -> Running | None:
        """Note what is wanted of a run if it is at work, and return it; the caller holds the lock."""
        running = self._running
        if running is None or running.run_id != run_id:
            return None
        running.wish, running.actor, running.why, running.code = wish, actor, why, code
        return running

    def _see_end_of(self, running: Running | None, grace_s: float | None = None) -> None:
        """Ask the run at work to end, kill it if it does not, and return when it is gone."""
        if running is None:
            return
        grace_s = STOP_GRACE_S if grace_s is None else grace_s
        with self._changed:
            running.kill_at = min(running.kill_at, time.monotonic() + (0.0 if running.at_once else grace_s))
            self._changed.notify_all()
        if running.child is not None:
            running.child.hasten()
        if running.child is not None and not running.at_once:
            running.child.request_stop()
        with self._changed:
            while self._running is running and (left := running.kill_at - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._running is not running:
                return
        if running.child is not None:
            running.child.kill()
        with self._changed:
            self._changed.wait_for(lambda: self._running is not running, timeout=STOP_GRACE_S)

    def _wake(self) -> None:
        with self._changed:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._repeat, name="training runs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        self._tell()

    def _note(self, run_id: str, progress: TrainingProgress) -> None:
        self._traces.add(run_id, progress)

    def _tell(self) -> None:
        if self._news is not None:
            self._news()

    # ------------------------------------------------------------ the thread

    def _repeat(self) -> None:
        while (running := self._await_turn()) is not None:
            run = self.get(running.run_id)
            try:
                manifest = self.trainable(run.plugin)
                with self._database.write() as connection:
                    store.begin(connection, run.run_id, self._owner)
                self.work.do(run, running, manifest)
            except ClinicError as error:
                self._fail(run, error)
            except Exception as error:  # noqa: BLE001 - thread boundary: a thread that ended would strand later runs
                # The text of a foreign error may hold personal data; its place does not.
                log.error("run.failed", run=run.run_id, error=type(error).__name__, at=places(error))
                self._fail(run, ChildError(f"The run ended by a mistake of the program ({type(error).__name__})."))
            finally:
                with self._changed:
                    self._running = None
                    self._changed.notify_all()
                self._tell()

    def _await_turn(self) -> Running | None:
        """Return the run whose turn it is, entered as the one at work; None once this is closed."""
        with self._changed:
            while not self._closed:
                if self._running is None and self._news is None:
                    with self._database.read() as connection:
                        run = store.next_planned(connection)
                    self._running = None if run is None else Running(run.run_id)
                if self._running is not None:
                    return self._running
                self._changed.wait()
            self._running = None  # one that was let and has not begun stays planned
            self._changed.notify_all()
        return None

    def _fail(self, run: RunView, error: ClinicError) -> None:
        sentence = f"{error.message} {error.remedy}".strip()
        if not isinstance(error, ChildRefused) and isinstance(error, ChildError):
            sentence += f" Its checkpoints are kept; `clinic-ai train resume {run.run_id}` goes on from the newest."
        with self._database.write() as connection:
            store.end(connection, run.run_id, "fail", actor="clinic-ai", error=sentence)
