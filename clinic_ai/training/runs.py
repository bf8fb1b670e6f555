"""Training runs: one at a time, each in a child of its own that may be stopped, killed and gone on with.

A run that is not RUNNING has no process. Whatever ends a run before it is finished leaves its checkpoints in
``runs/<run id>/``; the trainer goes on from the newest whole one. What a finished run made becomes a
CANDIDATE in the registry and nothing more: only a person promotes it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from pydantic import ValidationError

from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    Dataset,
    Device,
    Limits,
    LoadedModel,
    PlanTask,
    PluginManifest,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
    TrainRequest,
)
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import ModelRef, RunState
from clinic_ai.errors import ChildError, ChildMisbehaved, ChildRefused, ClinicError, Conflict, ModelError, NotFound
from clinic_ai.home import Home
from clinic_ai.lanes import places
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.settings import Settings, TrainingSettings
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RecipeValue, RunPlan, RunView
from clinic_ai.training.bench import Bench, Benched
from clinic_ai.training.checking import Checked
from clinic_ai.training.datasets import Datasets
from clinic_ai.training.label_reading import Terms
from clinic_ai.training.registry import Registry
from clinic_ai.training.sheet_reading import SheetReader

STOP_GRACE_S = 10.0
"""Time a trainer has to write a checkpoint when it is asked to stop; then it is killed."""
PROGRESS_EVERY_S = 0.5
PLAN_TIMEOUT_S = 600.0
OVERTIME_S = 60.0
"""A trainer keeps to its own limit of time; this much later it is made to."""
NICE = 10
BASE_SLOT = "base"
"""Slot of the model that the adapters of a plugin are trained on: never on what another adapter made of it."""
_MIB = 1 << 20

log = structlog.get_logger()

_Wish = Literal["stop", "pause"]


@dataclass
class _Running:
    """The run at work. ``wish`` is what somebody wants of it, ``child`` its process once there is one."""

    run_id: str
    child: Child | None = None
    wish: _Wish | None = None
    actor: str = "clinic-ai"
    why: str = ""


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
    ) -> None:
        self._home = home
        self._database = database
        self._registry = registry
        self._manifests = manifests
        self._crew = crew
        self.settings: TrainingSettings = settings.training
        self._owner = secrets.token_hex(8)
        self.datasets = Datasets(home, database, deidentifier, SheetReader(crew))
        self._bench = Bench(home, registry, crew)
        self._benching = threading.Lock()
        self._changed = threading.Condition()
        self._running: _Running | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ what people ask

    def start(self, plugin: str, dataset_directory: Path, recipe: Mapping[str, RecipeValue], actor: str) -> str:
        """Freeze the dataset and queue a run; return its id.

        Where the plugin learns from answers, ``category`` of the recipe names what they are about, else the folder
        does. Raise NotFound if there is no such plugin, Conflict if it cannot learn, DatasetError if the folder has
        problems.
        """
        manifest = self._trainable(plugin)
        recipe = dict(recipe)
        category = str(recipe.pop("category", "")) if manifest.labels == "answers" else ""
        dataset = self._freeze(manifest, dataset_directory, actor, category)
        with self._database.write() as connection:
            run_id = store.add_run(connection, plugin, dataset.dataset_id, recipe, actor)
        self._wake()
        return run_id

    def check(self, plugin: str, dataset_directory: Path, category: str = "") -> Checked:
        """Return what a run would learn from a folder, and every problem of it; nothing is kept or started.

        Raise NotFound if there is no such plugin, Conflict if it cannot learn.
        """
        manifest = self._trainable(plugin)
        return self.datasets.check(manifest, dataset_directory, self._terms(plugin, category))

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
                self._changed.notify_all()
        self._see_end_of(running)

    def pause(self, run_id: str, actor: str) -> None:
        """Pause a running run; its process is gone afterwards. Raise NotFound, Conflict if it is not running."""
        with self._changed:
            running = self._wish(run_id, "pause", actor, f"Paused by {actor}.")
            if running is None:
                state = self.get(run_id).state
                raise Conflict(f"The run {run_id} is {state.value}; only a running one can be paused.")
        self._see_end_of(running)

    def resume(self, run_id: str, actor: str) -> None:
        """Queue a paused, stopped or failed run again; it goes on from its newest checkpoint.

        Raise NotFound, Conflict if it is planned, running or finished.
        """
        with self._database.write() as connection:
            store.resume(connection, run_id, actor)
        self._wake()

    def list_runs(self) -> list[RunView]:
        """Return all runs, newest first."""
        with self._database.read() as connection:
            return store.list_runs(connection)

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
        manifest = self._trainable(plugin)
        if not self._benching.acquire(blocking=False):
            raise Conflict("Another model is being measured.", remedy="Try again when that is over.")
        try:
            running = self._running
            if running is not None:
                raise Conflict(
                    f"The training run {running.run_id} is at work, beside which nothing can be measured.",
                    remedy="Try again when it is over, or pause it with `clinic-ai train pause`.",
                )
            model = self._registry.named(plugin, name, version)
            dataset = None
            if dataset_directory is not None:
                self._bench.refuse_second(model)
                dataset = self._freeze(manifest, dataset_directory, actor)
            limits, most = self._limits(), self.settings.max_seconds + OVERTIME_S
            return self._bench.measure(
                manifest, model, dataset, actor, spec=self._spec(manifest), limits=limits, timeout_s=most
            )
        finally:
            self._benching.release()

    # ------------------------------------------------------------ life

    def recover(self) -> None:
        """Pause what a daemon that is gone left running, and go on with what is planned.

        Its child died with it. Whether the run goes on is for a person to say: ``resume``.
        """
        with self._database.write() as connection:
            for run_id in store.orphans(connection, self._owner):
                why = f"The appliance ended during this run; `clinic-ai train resume {run_id}` goes on with it."
                store.pause(connection, run_id, why, "clinic-ai")
        self._wake()

    def close(self) -> None:
        """Pause the run at work, if any, and end the thread. Planned runs start with the next daemon."""
        with self._changed:
            self._closed = True
            running, thread = self._running, self._thread
            if running is not None:
                why = f"The appliance was stopped; `clinic-ai train resume {running.run_id}` goes on with it."
                self._wish(running.run_id, "pause", "clinic-ai", why)
            self._changed.notify_all()
        self._see_end_of(running)
        if thread is not None:
            thread.join(timeout=STOP_GRACE_S)

    def _freeze(self, manifest: PluginManifest, directory: Path, actor: str, category: str = "") -> Dataset:
        return self.datasets.freeze(manifest, directory, actor, self._terms(manifest.name, category))

    def _terms(self, plugin: str, category: str) -> Terms:
        trained = frozenset(ref.slot for ref in self._registry.active(plugin))
        return Terms(keep_burned_in=self.settings.burned_in == "keep", category=category, trained=trained)

    def _trainable(self, plugin: str) -> PluginManifest:
        manifest = self._manifests.get(plugin)
        if manifest is None:
            raise NotFound(f"There is no plugin {plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
        if manifest.trainer is None:
            raise Conflict(f"The plugin {plugin} cannot learn: it has no trainer.", remedy="Choose another plugin.")
        return manifest

    def _wish(self, run_id: str, wish: _Wish, actor: str, why: str) -> _Running | None:
        """Note what is wanted of a run if it is at work, and return it; the caller holds the lock."""
        running = self._running
        if running is None or running.run_id != run_id:
            return None
        running.wish, running.actor, running.why = wish, actor, why
        return running

    def _see_end_of(self, running: _Running | None) -> None:
        """Ask the run at work to end, kill it if it does not, and return when it is gone."""
        if running is None:
            return
        if running.child is not None:
            running.child.request_stop()
        for act in (self._kill, None):
            with self._changed:
                if self._changed.wait_for(lambda: self._running is not running, timeout=STOP_GRACE_S):
                    return
            if act is not None:
                act(running)

    @staticmethod
    def _kill(running: _Running) -> None:
        if running.child is not None:
            running.child.kill()

    def _wake(self) -> None:
        with self._changed:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._work, name="training runs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        while (run := self._await_planned()) is not None:
            running = self._running
            assert running is not None
            try:
                self._do(run, running)
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

    def _await_planned(self) -> RunView | None:
        """Return the next run, entered as the one at work; None once this is closed."""
        with self._changed:
            while not self._closed:
                with self._database.read() as connection:
                    run = store.next_planned(connection)
                if run is not None:
                    self._running = _Running(run.run_id)
                    return run
                self._changed.wait()
        return None

    def _do(self, run: RunView, running: _Running) -> None:
        manifest = self._trainable(run.plugin)
        with self._database.write() as connection:
            store.begin(connection, run.run_id, self._owner)
        # The notes name files, and files are named after patients: they are for people here, not for the trainer.
        dataset = self.datasets.get(run.dataset_id).model_copy(update={"notes": ()})
        directory = self._home.runs / run.run_id
        directory.mkdir(parents=True, exist_ok=True)
        running.child = self._crew.start(self._spec(manifest))
        result = None
        try:
            base = self._plan(run, manifest, dataset, running.child)
            task = self._task(run, dataset, base, directory)
            if running.wish is None:
                result = self._train(manifest, task, running)
        except ChildError:
            if running.wish is None:
                raise
            # Otherwise it did not stop in time and was killed, as it was told it would be.
        finally:
            running.child.kill()
        self._conclude(run, running, directory, result)

    def _plan(self, run: RunView, manifest: PluginManifest, dataset: Dataset, child: Child) -> LoadedModel | None:
        """Store the plan of a new run; return the model it starts from, the same one whenever it is resumed."""
        assert manifest.trainer is not None
        if run.planned is not None:
            return self._loaded(run.planned.base)
        ref = self._base(run)
        base = self._loaded(ref)
        task = PlanTask(trainer=manifest.trainer, dataset=dataset, limits=self._limits(), recipe=run.recipe, base=base)
        plan = child.call("plan", task, TrainingPlan, timeout_s=PLAN_TIMEOUT_S)
        with self._database.write() as connection:
            store.save_plan(connection, run.run_id, RunPlan(**plan.model_dump(), base=ref))
        return base

    def _loaded(self, ref: ModelRef | None) -> LoadedModel | None:
        return None if ref is None else self._registry.loaded(ref)

    def _base(self, run: RunView) -> ModelRef | None:
        """Return the active model of the slot the recipe names, else the one that fits the recipe best.

        That is one of its tier, if there is one, a reference model included; of those one of its condition, one that is
        in use, the one of ``main``. Where adapters are trained, for a plugin that learns from answers, it is the base.
        """
        active = {ref.slot: ref for ref in self._registry.active(run.plugin)}
        if self._manifests[run.plugin].labels == "answers":
            return active.get(BASE_SLOT)
        wanted = run.recipe.get("slot")
        if wanted is not None and wanted not in active:
            raise ModelError(
                f"No model of {run.plugin} is active in the slot {wanted}.",
                remedy=f"Choose one of: {', '.join(sorted(active)) or 'none is active'}.",
            )
        if wanted is not None:
            return active[str(wanted)]
        known = list(active.values())
        if "tier" in run.recipe:
            alike = (r for r in (*known, *self._registry.spare(run.plugin)) if self._is(r, run, "tier"))
            known = list(alike) or known
        used = set(active.values())
        return max(known, key=lambda r: (self._is(r, run, "condition"), r in used, r.slot == "main"), default=None)

    def _is(self, ref: ModelRef, run: RunView, key: str) -> bool:
        """Whether a model says the same of itself as the recipe of a run asks for."""
        asked = run.recipe.get(key)
        return asked is not None and self._registry.loaded(ref).manifest.parameters.get(key) == asked

    def _task(self, run: RunView, dataset: Dataset, base: LoadedModel | None, directory: Path) -> TrainingTask:
        return TrainingTask(
            run_id=run.run_id,
            dataset=dataset,
            base=base,
            recipe=run.recipe,
            run_directory=str(directory.absolute()),
            limits=self._limits(),
            device=Device(threads=self.settings.threads, memory_mb=self.settings.max_memory_mb),
            categories=self._manifests[run.plugin].categories,
        )

    def _train(self, manifest: PluginManifest, task: TrainingTask, running: _Running) -> TrainingResult:
        assert manifest.trainer is not None
        assert running.child is not None
        recorder = _Recorder(self._database, running, running.child)
        try:
            return running.child.call(
                "train",
                TrainRequest(trainer=manifest.trainer, task=task),
                TrainingResult,
                timeout_s=self.settings.max_seconds + OVERTIME_S,
                on_progress=recorder,
            )
        except ChildError as error:
            raise recorder.misbehaviour or error from None
        finally:
            recorder.flush()

    def _conclude(self, run: RunView, running: _Running, directory: Path, result: TrainingResult | None) -> None:
        if result is not None and result.state == "finished":
            place = _inside(directory, result.model_directory)
            # One transaction: a power cut must not leave a candidate whose run would make it a second time.
            finish = store.finish_with(run.run_id, result)
            self._registry.import_candidate(place, f"run {run.run_id}", finish)
            return
        with self._database.write() as connection:
            if running.wish == "stop":
                store.end(connection, run.run_id, "stop", actor=running.actor)
                return
            notes = " ".join(result.notes) if result is not None else ""
            why = running.why or (
                f"The trainer stopped before it was finished; its limit is {self.settings.max_seconds:.0f} s "
                f"(training.max_seconds). {notes} `clinic-ai train resume {run.run_id}` goes on with it."
            )
            store.pause(connection, run.run_id, why, running.actor)

    def _fail(self, run: RunView, error: ClinicError) -> None:
        sentence = f"{error.message} {error.remedy}".strip()
        if not isinstance(error, ChildRefused) and isinstance(error, ChildError):
            sentence += f" Its checkpoints are kept; `clinic-ai train resume {run.run_id}` goes on from the newest."
        with self._database.write() as connection:
            store.end(connection, run.run_id, "fail", actor="clinic-ai", error=sentence)

    def _limits(self) -> Limits:
        settings = self.settings
        return Limits(memory_mb=settings.max_memory_mb, threads=settings.threads, max_seconds=settings.max_seconds)

    def _spec(self, manifest: PluginManifest) -> ChildSpec:
        threads = str(self.settings.threads)
        return ChildSpec(
            kind="trainer",
            name=f"{manifest.name} trainer",
            confinement=Confinement(data=self.settings.max_memory_mb * _MIB, nice=NICE),
            environment=(("OMP_NUM_THREADS", threads), ("MKL_NUM_THREADS", threads), ("OPENBLAS_NUM_THREADS", threads)),
        )


class _Recorder:
    """Stores progress, twice a second at most; a trainer that reports rubbish is killed."""

    def __init__(self, database: Database, running: _Running, child: Child) -> None:
        self._database = database
        self._running = running
        self._child = child
        self._reminded = False
        self._stored_at = 0.0
        self._waiting: TrainingProgress | None = None
        self.misbehaviour: ChildMisbehaved | None = None

    def __call__(self, body: dict[str, object]) -> None:
        try:
            self._waiting = TrainingProgress.model_validate(body)
        except ValidationError:
            self.misbehaviour = ChildMisbehaved(f"The {self._child.spec.name} child reported progress that is none.")
            self._child.kill()
            return
        if self._running.wish is not None and not self._reminded:
            # The first request may have come just before the call did, when nobody listened.
            self._reminded = True
            self._child.request_stop()
        if time.monotonic() - self._stored_at >= PROGRESS_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Store the newest progress that is not stored yet."""
        if self._waiting is not None:
            with self._database.write() as connection:
                store.save_progress(connection, self._running.run_id, self._waiting)
            self._waiting, self._stored_at = None, time.monotonic()


def _inside(directory: Path, named: str) -> Path:
    """Return the model directory a trainer named. Raise ChildMisbehaved if it is not a folder of its run directory."""
    place = Path(named)
    inside = place.parent == directory.absolute() and not place.is_symlink() and place.is_dir()
    if not inside:
        raise ChildMisbehaved("The trainer named a model directory that is not in its run directory.")
    return place
