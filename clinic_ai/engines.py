"""Warm engines: one child per plugin, started on demand, evicted when memory is needed, rested when it crashes."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import psutil
import structlog

from clinic_ai.confinement import Confinement
from clinic_ai.contract import (
    AnalysisTask,
    Device,
    EngineLoad,
    LoadedModel,
    PluginManifest,
    QuestionTask,
    Ready,
    memory_needed,
)
from clinic_ai.domain import Analysis, Answer, ModelRef, WaitReason
from clinic_ai.errors import ChildError, ChildRefused, Conflict, HardwareError
from clinic_ai.hardware import CUDA_HOST_MB, Devices
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on
from clinic_ai.settings import ExecutionSettings
from clinic_ai.waiting import crashing, memory_in_use, no_memory
from clinic_ai.wire import GPU_EXIT, MEMORY_EXIT

LOAD_TIMEOUT_S = 300.0
ANSWER_GRACE_S = 15.0
"""What an engine may take beyond ``answer_timeout_s``, to read the image and choose a frame, before it is killed."""
REST_S = 60.0
"""How long a plugin rests whose engine died too often."""
TURN_S = 30.0
"""How long a question waits for an engine that is at work on something else."""
REST_S = 60.0
"""How long a plugin rests whose engine died too often."""
_MIB = 1 << 20
_OF_THE_GPU = frozenset({GPU_EXIT, MEMORY_EXIT})
"""How an engine ends whose GPU failed, or has too little memory."""

log = structlog.get_logger()


@dataclass(frozen=True)
class EngineSettings:
    """What engines may use; times in seconds, memory in MiB (0: 60 % of the machine's)."""

    memory_mb: int
    threads: int
    idle_s: float
    restart_cap: int
    restart_window_s: float
    rest_s: float
    device: Literal["auto", "cpu", "cuda"] = "auto"


def engine_settings(execution: ExecutionSettings) -> EngineSettings:
    """Return what ``[execution]`` gives to engines."""
    cores = len(os.sched_getaffinity(0))
    return EngineSettings(
        memory_mb=execution.memory_mb,
        threads=execution.threads or max(1, cores // execution.max_parallel_jobs),
        idle_s=execution.engine_idle_s,
        restart_cap=execution.max_restarts,
        restart_window_s=execution.restart_window_s,
        rest_s=REST_S,
        device=execution.device,
    )


@dataclass(frozen=True)
class EngineView:
    """A warm engine as people see it."""

    plugin: str
    pid: int
    busy: bool
    resident_bytes: int
    models: tuple[str, ...]
    idle_s: float


@dataclass
class _Warm:
    child: Child
    need_mb: int
    device: Device
    models: tuple[ModelRef, ...] | None = None
    """None until they are loaded."""


@dataclass
class _Record:
    """What is remembered of a plugin whose engine failed."""

    failures: deque[float] = field(default_factory=deque)
    rests_until: float = 0.0


class Engines:
    """The warm engines of this appliance; different plugins run side by side, each at one task at a time."""

    def __init__(self, crew: Crew, settings: Callable[[], EngineSettings], devices: Devices | None = None) -> None:
        """``devices`` chooses where they compute; without it that is the processor."""
        self._crew = crew
        self._settings = settings
        self._devices = devices
        self._warm: dict[str, _Warm] = {}
        self._in_use: set[str] = set()
        self._records: dict[str, _Record] = {}
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.RLock()
        """Guards the fields; held shortly, never while an engine works."""

    @property
    def budget_mb(self) -> int:
        """What all engines together may use, in MiB."""
        return self._settings().memory_mb or int(psutil.virtual_memory().total * 0.6 / _MIB)

    def obstacle(
        self, manifest: PluginManifest, models: Sequence[LoadedModel] = (), *, beside_mb: int = 0
    ) -> WaitReason | None:
        """Return why an analysis of this plugin with these models cannot start now, or None if it can.

        ``beside_mb`` is what the plugins need that have work already, running engine or not.
        """
        need_mb = _need_mb(manifest, models)
        with self._lock:
            record = self._records.get(manifest.name)
            if record is not None and record.rests_until > time.monotonic():
                return crashing(manifest.name, self._settings().restart_cap, self._settings().restart_window_s)
            if need_mb > self.budget_mb:
                return no_memory(manifest.name, need_mb, self.budget_mb)
        if beside_mb + need_mb > self.budget_mb:
            return memory_in_use(manifest.name, need_mb)
        return None

    def analyse(self, manifest: PluginManifest, models: tuple[LoadedModel, ...], task: AnalysisTask) -> Analysis:
        """Run one analysis in the plugin's warm engine, started or switched to ``models`` first.

        Raise ChildError if it dies, hangs, misbehaves or refuses; only a refusal leaves the engine alive.
        """
        with self._turn(manifest.name):
            child = self._ready(manifest, models)
            return child.call("analyse", task, Analysis, timeout_s=manifest.timeout_s)

    def ask(
        self, manifest: PluginManifest, models: tuple[LoadedModel, ...], task: QuestionTask, *, wait_s: float = TURN_S
    ) -> Answer:
        """Ask the plugin's warm engine a question, started or switched to ``models`` first.

        Raise Conflict if it is at work on something else for ``wait_s`` seconds or cannot start now, and as ``analyse``
        does; an answer that is not there ``ANSWER_GRACE_S`` after the task's time-out costs the engine its life.
        """
        with self._turn(manifest.name, wait_s):
            with self._lock:
                beside_mb = sum(w.need_mb for n, w in self._warm.items() if n in self._in_use and n != manifest.name)
            obstacle = self.obstacle(manifest, models, beside_mb=beside_mb)
            if obstacle is not None:
                raise Conflict(obstacle.sentence, remedy=obstacle.remedy)
            child = self._ready(manifest, models)
            return child.call("ask", task, Answer, timeout_s=task.answer_timeout_s + ANSWER_GRACE_S)

    def distrust(self, plugin: str) -> None:
        """Kill an engine whose answer was well formed and yet could not be true."""
        self._bury(plugin)

    def evict_idle(self) -> None:
        """End engines that nobody used for a while, and forget those whose process is gone."""
        with self._lock:
            for name, warm in list(self._warm.items()):
                if name in self._in_use:
                    continue
                if not warm.child.alive or time.monotonic() - warm.child.last_used > self._settings().idle_s:
                    self._end(name)

    def views(self) -> list[EngineView]:
        """Return the warm engines."""
        with self._lock:
            return [
                EngineView(
                    plugin=name,
                    pid=warm.child.pid,
                    busy=name in self._in_use,
                    resident_bytes=warm.child.resident_bytes(),
                    models=tuple(model.label() for model in warm.models or ()),
                    idle_s=time.monotonic() - warm.child.last_used,
                )
                for name, warm in self._warm.items()
            ]

    def close(self) -> None:
        """End all engines."""
        with self._lock:
            for name in list(self._warm):
                self._end(name)

    # ------------------------------------------------------------

    @contextmanager
    def _turn(self, name: str, wait_s: float = -1.0) -> Iterator[None]:
        """Have a plugin's engine for oneself, after ``wait_s`` seconds at most (negative: however long it takes).

        Raise Conflict if somebody else has it for longer. An error of the child inside buries it, but for a refusal.
        """
        with self._lock:
            turn = self._turns[name]
        if not turn.acquire(timeout=wait_s):
            raise Conflict(
                f"The engine is busy: {name} has been at work on something else for {wait_s:g} s.",
                remedy="Ask again in a while; `clinic-ai status` shows what is at work.",
            )
        try:
            with self._lock:
                self._in_use.add(name)
            yield
        except ChildRefused:
            raise
        except ChildError:
            self._bury(name)
            raise
        finally:
            with self._lock:
                self._in_use.discard(name)
            turn.release()

    def _ready(self, manifest: PluginManifest, models: tuple[LoadedModel, ...]) -> Child:
        refs = tuple(model.ref for model in models)
        need_mb = _need_mb(manifest, models)
        warm = self._large_enough(manifest.name, need_mb) or self._start(manifest, need_mb)
        while warm.models != refs:
            load = EngineLoad(engine=manifest.engine, models=models, device=warm.device)
            try:
                warm.child.call("load", load, Ready, timeout_s=LOAD_TIMEOUT_S)
                warm.models = refs
            except ChildError as error:
                if self._leave_gpu(manifest.name, warm):
                    warm = self._start(manifest, need_mb)
                    continue
                if isinstance(error, ChildRefused):
                    self._bury(manifest.name)  # half a load is no state to work from
                raise
        return warm.child

    def _large_enough(self, name: str, need_mb: int) -> _Warm | None:
        """Return the plugin's engine if it lives; one with larger models than before needs higher limits, and ends."""
        with self._lock:
            warm = self._warm.get(name)
            if warm is not None and not (warm.child.alive and warm.need_mb >= need_mb):
                self._end(name)
                return None
            return warm

    def _start(self, manifest: PluginManifest, need_mb: int) -> _Warm:
        device = self._device(manifest, need_mb)
        with self._lock:
            self._make_room(need_mb)
            warm = _Warm(self._crew.start(self._spec(manifest, need_mb, device)), need_mb, device)
            self._warm[manifest.name] = warm
        return warm

    def _device(self, manifest: PluginManifest, need_mb: int) -> Device:
        """Return where an engine computes; it is taken to need as much of a GPU's memory as of the machine's."""
        settings = self._settings()
        if self._devices is None:
            return Device(threads=settings.threads, memory_mb=need_mb)
        try:
            return self._devices.choose(
                manifest, settings.device, threads=settings.threads, memory_mb=need_mb, gpu_memory_mb=need_mb
            )
        except HardwareError as error:
            raise ChildRefused("no_gpu", error.message, retryable=True, remedy=error.remedy) from error

    def _leave_gpu(self, name: str, warm: _Warm) -> bool:
        """End an engine that did not load on a GPU, if it may compute on the processor; return whether it may."""
        if self._devices is None or warm.device.kind == "cpu" or self._settings().device != "auto":
            return False
        log.warning("engine.leaves_gpu", plugin=name)
        self._devices.give_up(name)
        with self._lock:
            self._warm.pop(name, None)
        warm.child.kill()
        return True

    def _make_room(self, need_mb: int) -> None:
        """Evict engines that are not at work, the longest unused first, until the new one fits."""
        idle = sorted(
            (name for name in self._warm if name not in self._in_use), key=lambda n: self._warm[n].child.last_used
        )
        while idle and sum(w.need_mb for w in self._warm.values()) + need_mb > self.budget_mb:
            self._end(idle.pop(0))

    def _end(self, name: str) -> None:
        self._warm.pop(name).child.close(grace_s=1.0)

    def _bury(self, name: str) -> None:
        now = time.monotonic()
        with self._lock:
            warm = self._warm.pop(name, None)
            record = self._records.setdefault(name, _Record())
            record.failures.append(now)
            while record.failures and now - record.failures[0] > self._settings().restart_window_s:
                record.failures.popleft()
            if len(record.failures) >= self._settings().restart_cap:
                record.rests_until = now + self._settings().rest_s
                record.failures.clear()
        if warm is not None:
            warm.child.kill()
            if self._devices is not None and warm.device.kind == "cuda" and warm.child.exit_status in _OF_THE_GPU:
                self._devices.give_up(name)

    def _spec(self, manifest: PluginManifest, need_mb: int, device: Device) -> ChildSpec:
        beside_mb = 512 + (CUDA_HOST_MB if device.kind == "cuda" else 0)
        return ChildSpec(
            kind="engine",
            name=f"{manifest.name} engine",
            # Twice the need: RLIMIT_DATA counts what is reserved, not what is touched.
            confinement=Confinement(data=(2 * need_mb + beside_mb) * _MIB, file_size=1 << 30),
            environment=computing_on(self._settings().threads),
        )


def _need_mb(manifest: PluginManifest, models: Sequence[LoadedModel]) -> int:
    return memory_needed(manifest, (model.manifest for model in models))
