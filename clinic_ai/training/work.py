"""The work of one training run: its plan, its child, and what comes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    Dataset,
    Device,
    EvaluateRequest,
    Limits,
    LoadedModel,
    PlanTask,
    PluginManifest,
    Recipe,
    Scores,
    TrainingPlan,
    TrainingProgress,
    TrainingResult,
    TrainingTask,
    TrainRequest,
)
from clinic_ai.domain import ModelRef, PauseCode, Word
from clinic_ai.errors import ChildError, ChildMisbehaved, ChildRefused, Conflict, ModelError
from clinic_ai.gating import GateReport
from clinic_ai.hardware import CUDA_HOST_MB, Devices, Machine, Reading
from clinic_ai.home import Home
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on
from clinic_ai.settings import TrainingSettings
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.gates import add_report, newest_report
from clinic_ai.store.origins import origin_of
from clinic_ai.store.runs import RunPlan, RunProgress, RunView
from clinic_ai.training.datasets import Datasets
from clinic_ai.training.gate import Gate
from clinic_ai.training.registry import Registry
from clinic_ai.training.spoken import Interrupted, Watch
from clinic_ai.training.starting import base_of

PROGRESS_EVERY_S = 0.5
PLAN_TIMEOUT_S = 600.0
OVERTIME_S = 60.0
"""A trainer keeps to its own limit of time; this much later it is made to."""
NICE = 10
_MIB = 1 << 20

Wish = Literal["stop", "pause"]


class Evaluated(Word):
    """The figures of a model on the test part of a dataset."""

    model: ModelRef
    dataset_id: str
    scores: Scores


@dataclass(eq=False)
class Running:
    """The run at work. ``wish`` is what somebody wants of it, ``child`` its process once there is one.

    For a pause ``code`` and ``why`` say the reason. ``device`` is where it is to compute, None for what the settings
    say of a machine that nobody reads. ``plan`` and ``progress`` are its own, ``temperature_c`` and ``power_w`` those
    of the machine now, as far as somebody measures them.
    """

    run_id: str
    device: Device | None = None
    child: Child | None = None
    wish: Wish | None = None
    actor: str = "clinic-ai"
    why: str = ""
    code: PauseCode = PauseCode.PERSON
    kill_at: float = math.inf
    """When its child is killed if it has not ended by then, monotonic seconds of this process."""
    plan: RunPlan | None = None
    progress: RunProgress | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    left_gpu: str = ""
    """Why it is to go on on the processor, once its child is gone."""
    at_once: bool = False
    """Whether its process has nothing to write down before it ends: an examination begins anew."""


class Work:
    """Does one run after the other, each in a child of its own. One thread calls ``do``."""

    def __init__(
        self,
        home: Home,
        database: Database,
        registry: Registry,
        datasets: Datasets,
        crew: Crew,
        settings: Callable[[], TrainingSettings],
        gate: Gate | None = None,
        devices: Devices | None = None,
        told: Callable[[str, TrainingProgress], None] = lambda _run_id, _progress: None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the rooms; ``told`` is called with each progress of a run that was stored, in the thread of ``do``."""
        self._told = told
        self._home = home
        self._database = database
        self._registry = registry
        self._datasets = datasets
        self._crew = crew
        self._settings = settings
        self._gate = gate
        self._on_progress = on_progress
        self._devices = devices or Devices(Machine(home.path))

    def do(self, run: RunView, running: Running, manifest: PluginManifest) -> None:
        """Work on a run that has begun until it is finished or somebody wishes otherwise, and note what came of it.

        Its child is gone afterwards. Raise ClinicError if it fails.
        """
        # The notes name files, and files are named after patients: they are for people here, not for the trainer.
        dataset = self._datasets.get(run.dataset_id).model_copy(update={"notes": ()})
        directory = self._home.runs / run.run_id
        directory.mkdir(parents=True, exist_ok=True)
        if run.trained is not None and _whole(Path(run.trained.model_directory)):
            self._examine(run, running, manifest, dataset, directory, run.trained)
            return
        self._datasets.refuse_withdrawn(run.dataset_id)
        result = None if running.wish is not None else self._attend(run, running, manifest, dataset, directory)
        if result is not None and result.state == "finished":
            self._examine(run, running, manifest, dataset, directory, result)
        else:
            self._leave(run, running, result)

    def _attend(
        self, run: RunView, running: Running, manifest: PluginManifest, dataset: Dataset, directory: Path
    ) -> TrainingResult | None:
        """Return how the child of a run ended; None if somebody wished it to end before it could say so."""
        device = running.device or self.device(manifest)
        running.child = self._crew.start(self.spec(manifest, device))
        try:
            # A wish that came before there was a child has found none to tell.
            base = self._plan(run, running, manifest, dataset) if running.wish is None else None
            task = self._task(run, manifest, dataset, base, directory, device)
            return self._train(manifest, task, running) if running.wish is None else None
        except ChildError as error:
            # Otherwise it did not stop in time and was killed, as it was told it would be.
            if running.wish is None and not self._leaves_gpu(manifest, running, device, error):
                raise
            return None
        finally:
            running.child.kill()

    def examine_again(self, manifest: PluginManifest, model: LoadedModel) -> GateReport:
        """Hold a model against the one in use, on the dataset it was made of or examined on before; store the report.

        Raise Conflict if it is not known which dataset that is or there is no guard here, DatasetError if the dataset
        is damaged.
        """
        ref = model.ref
        with self._database.read() as connection:
            earlier = newest_report(connection, ref.plugin, ref.name, ref.version)
            origin = origin_of(connection, ref.digest)
        known = earlier.dataset_id if earlier is not None else origin.dataset_id if origin is not None else ""
        if not known or self._gate is None:
            raise Conflict(
                f"It is not known on which labelled images {ref.plugin}/{ref.name}/{ref.version} could be examined: it "
                "was not made here.",
                remedy="An administrator decides about it: `clinic-ai model promote` makes an imported model active.",
            )
        device = self.device(manifest)
        report = self._gate.examine(
            manifest,
            model,
            self._datasets.get(known),
            spec=self.spec(manifest, device),
            limits=self.limits(),
            device=device,
        )
        with self._database.write() as connection:
            add_report(connection, report, of=ref)
        return report

    def evaluate(self, manifest: PluginManifest, model: LoadedModel, dataset: Dataset) -> Evaluated:
        """Return the figures of a model on the test part of a dataset, as its trainer measures them in a child.

        Raise DatasetError if the model was trained on some of it, ModelError if its base is missing, ChildError with
        what the trainer says if it cannot.
        """
        assert manifest.trainer is not None
        base = None
        if self._gate is not None:
            self._gate.refuse_known(dataset, model, None)
            base = self._gate.base_of(model)
        device = self.device(manifest)
        request = EvaluateRequest(
            trainer=manifest.trainer,
            model=model,
            # The notes name files, and files are named after patients.
            dataset=dataset.model_copy(update={"notes": ()}),
            device=device,
            base=base,
        )
        child = self._crew.start(self.spec(manifest, device))
        try:
            scores = child.call("evaluate", request, Scores, timeout_s=self.limits().max_seconds)
        finally:
            child.kill()
        return Evaluated(model=model.ref, dataset_id=dataset.dataset_id, scores=scores)

    def limits(self) -> Limits:
        """Return what a run may use."""
        settings = self._settings()
        return Limits(
            memory_mb=settings.max_memory_mb,
            threads=settings.threads,
            max_seconds=settings.max_seconds,
            gpu_memory_mb=settings.budget.gpu_memory_mb,
        )

    def device(
        self, manifest: PluginManifest, reading: Reading | None = None, plan: TrainingPlan | None = None
    ) -> Device:
        """Return where a run of a plugin would compute on the machine as it was read, or as it is now.

        By its plan it needs as much of a GPU's memory as of the machine's. Raise HardwareError if there is no such GPU.
        """
        settings = self._settings()
        return self._devices.choose(
            manifest,
            settings.device,
            threads=settings.threads,
            memory_mb=settings.max_memory_mb,
            gpu_memory_mb=0 if plan is None else plan.memory_mb,
            reading=reading,
        )

    def _leaves_gpu(self, manifest: PluginManifest, running: Running, device: Device, error: ChildError) -> bool:
        """Return whether a run that was refused on a GPU before its first step is to go on on the processor.

        A driver says nothing about what the installed libraries can do, so that has to be tried.
        """
        refused = isinstance(error, ChildRefused) and running.progress is None
        if device.kind == "cpu" or self._settings().device != "auto" or not refused:
            return False
        self._devices.give_up(manifest.name)
        running.left_gpu = (
            f"It cannot compute on GPU {device.index} and goes on on the processor by itself. {error.message}"
        )
        return True

    def foresee(self, manifest: PluginManifest, dataset: Dataset, recipe: Recipe) -> RunPlan:
        """Return what a run would cost and start from, as its trainer says in a child of its own; none is started.

        Raise ModelError or ChildError if that cannot be told.
        """
        child = self._crew.start(self.spec(manifest))
        try:
            return self._ask_plan(child, manifest, dataset, recipe)
        finally:
            child.kill()

    def spec(self, manifest: PluginManifest, device: Device | None = None) -> ChildSpec:
        """Return what to start for a run of a plugin; without a ``device`` it computes on the processor."""
        settings = self._settings()
        beside_mb = CUDA_HOST_MB if device is not None and device.kind == "cuda" else 0
        return ChildSpec(
            kind="trainer",
            name=f"{manifest.name} trainer",
            confinement=Confinement(data=(settings.max_memory_mb + beside_mb) * _MIB, nice=NICE),
            environment=computing_on(settings.threads),
        )

    # ------------------------------------------------------------ before

    def _plan(self, run: RunView, running: Running, manifest: PluginManifest, dataset: Dataset) -> LoadedModel | None:
        """Store the plan of a new run; return the model it starts from, the same one whenever it is resumed."""
        running.plan = run.planned
        if running.plan is None:
            assert running.child is not None
            running.plan = self._ask_plan(running.child, manifest, dataset, run.recipe)
            with self._database.write() as connection:
                store.save_plan(connection, run.run_id, running.plan)
            self._on_progress()
        return self._loaded(running.plan.base)

    def _ask_plan(self, child: Child, manifest: PluginManifest, dataset: Dataset, recipe: Recipe) -> RunPlan:
        assert manifest.trainer is not None
        ref = base_of(manifest, recipe, self._registry)
        task = PlanTask(
            trainer=manifest.trainer,
            dataset=dataset,
            limits=self.limits(),
            recipe=recipe,
            base=self._loaded(ref),
        )
        plan = child.call("plan", task, TrainingPlan, timeout_s=PLAN_TIMEOUT_S)
        return RunPlan(**plan.model_dump(), base=ref)

    def _loaded(self, ref: ModelRef | None) -> LoadedModel | None:
        return None if ref is None else self._registry.loaded(ref)

    def _task(
        self,
        run: RunView,
        manifest: PluginManifest,
        dataset: Dataset,
        base: LoadedModel | None,
        directory: Path,
        device: Device,
    ) -> TrainingTask:
        return TrainingTask(
            run_id=run.run_id,
            dataset=dataset,
            base=base,
            recipe=run.recipe,
            run_directory=str(directory.absolute()),
            limits=self.limits(),
            device=device,
            categories=manifest.categories,
        )

    # ------------------------------------------------------------ meanwhile

    def _train(self, manifest: PluginManifest, task: TrainingTask, running: Running) -> TrainingResult:
        assert manifest.trainer is not None
        assert running.child is not None
        recorder = _Recorder(self._database, running, running.child, self._told, self._on_progress)
        try:
            return running.child.call(
                "train",
                TrainRequest(trainer=manifest.trainer, task=task),
                TrainingResult,
                timeout_s=self._settings().max_seconds + OVERTIME_S,
                on_progress=recorder,
            )
        except ChildError as error:
            raise recorder.misbehaviour or error from None
        finally:
            recorder.flush()

    # ------------------------------------------------------------ afterwards

    def _examine(
        self,
        run: RunView,
        running: Running,
        manifest: PluginManifest,
        dataset: Dataset,
        directory: Path,
        result: TrainingResult,
    ) -> None:
        """Hold what a run made against the model in use, and enter it as a candidate with the report of that.

        If somebody wishes otherwise meanwhile, the run is left and examines again when it goes on.
        """
        place = _inside(directory, result.model_directory)
        # What is examined is what will be imported: its files have the hashes that its digest stands for.
        model = self._registry.outside(place)
        if model.ref.plugin != manifest.name:
            raise ModelError(
                f"The trainer of {manifest.name} made a model for {model.ref.plugin}: {model.ref.label()}.",
                remedy="Ask the maker of the plugin.",
            )
        report = None
        if self._gate is not None:
            self._begin_examination(run, result)
            running.at_once = True
            device = running.device or self.device(manifest)
            watch = Watch(partial(setattr, running, "child"), lambda: running.wish is not None)
            try:
                report = self._gate.examine(
                    manifest,
                    model,
                    dataset,
                    spec=self.spec(manifest, device),
                    limits=self.limits(),
                    device=device,
                    watch=watch,
                )
            except Interrupted:
                self._leave(run, running, None)
                return
        # One transaction: a power cut must not leave a candidate whose run would make it a second time, or one that
        # nobody examined.
        finish = store.finish_with(run.run_id, result, report)
        candidate = self._registry.import_candidate(place, f"run {run.run_id}", finish)
        if self._gate is not None and run.origin == "night":
            self._gate.promotions.by_itself(candidate)

    def _begin_examination(self, run: RunView, result: TrainingResult) -> None:
        with self._database.write() as connection:
            store.save_result(connection, run.run_id, result)
            last = store.get_run(connection, run.run_id).progress
            if last is not None:
                message = "holds the candidate against the model in use"
                progress = RunProgress.model_validate({**last, "message": message, "eta_s": None})
                store.save_progress(connection, run.run_id, progress)
        self._on_progress()

    def _leave(self, run: RunView, running: Running, result: TrainingResult | None) -> None:
        """Note that a run ended before it was finished."""
        with self._database.write() as connection:
            if running.wish == "stop":
                store.end(connection, run.run_id, "stop", actor=running.actor)
                return
            if running.wish == "pause":
                store.pause(connection, run.run_id, running.why, running.actor, code=running.code)
                return
            if running.left_gpu:
                store.pause(connection, run.run_id, running.left_gpu, "clinic-ai", code=PauseCode.RESTART)
                return
            notes = " ".join(result.notes) if result is not None else ""
            why = (
                f"The trainer stopped before it was finished; its limit is {self._settings().max_seconds:.0f} s "
                f"(training.max_seconds). {notes} `clinic-ai train resume {run.run_id}` goes on with it."
            )
            store.pause(connection, run.run_id, why, "clinic-ai", code=PauseCode.TIME)


class _Recorder:
    """Stores progress, twice a second at most; a trainer that reports rubbish is killed."""

    def __init__(
        self,
        database: Database,
        running: Running,
        child: Child,
        told: Callable[[str, TrainingProgress], None],
        on_stored: Callable[[], None],
    ) -> None:
        self._database = database
        self._told = told
        self._on_stored = on_stored
        self._running = running
        self._child = child
        self._reminded = False
        self._stored_at = 0.0
        self._waiting: RunProgress | None = None
        self.misbehaviour: ChildMisbehaved | None = None

    def __call__(self, body: dict[str, object]) -> None:
        try:
            self._waiting = self._running.progress = RunProgress.model_validate(body)
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
            running, resident = self._running, self._child.resident_bytes()
            machine = {
                "memory_mb": resident // _MIB or None,
                "temperature_c": running.temperature_c,
                "power_w": running.power_w,
            }
            with self._database.write() as connection:
                store.save_progress(connection, running.run_id, self._waiting.model_copy(update=machine))
            self._told(running.run_id, self._waiting)
            self._waiting, self._stored_at = None, time.monotonic()
            self._on_stored()


def _whole(directory: Path) -> bool:
    """Whether what a run made is there and as it was written; the power may have failed just then."""
    try:
        Registry.outside(directory)
    except ModelError:
        return False
    return True


def _inside(directory: Path, named: str) -> Path:
    """Return the model directory a trainer named. Raise ChildMisbehaved if it is not a folder of its run directory."""
    place = Path(named)
    inside = place.parent == directory.absolute() and not place.is_symlink() and place.is_dir()
    if not inside:
        raise ChildMisbehaved("The trainer named a model directory that is not in its run directory.")
    return place
