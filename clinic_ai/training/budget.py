"""Whether training may work now: the clinic's windows and budgets, and the state of the machine.

``Budget.verdict`` is asked before a run starts and at each sample while it works. It says one reason at a time, with
the figures it rests on, the key that sets the limit, and what a person can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clinic_ai.clock import SystemClock
from clinic_ai.domain import PauseCode, Spent, Verdict, Word
from clinic_ai.hardware import GpuReading, Reading
from clinic_ai.settings import TrainingSettings

LONGEST_SAMPLE_S = 60.0
"""Of a longer time between two samples only this much counts as time in which a run did nothing."""
OWN_IDLE_PERCENT = 1.0
"""A process that takes less of one core than this does nothing."""
MACHINE_IDLE_PERCENT = 5.0
"""The same for all processes of the machine together, where nobody says what the run's own takes."""


class Need(Word):
    """What a run needs beside what it holds already: MiB of memory, disk and GPU memory; and what one step costs.

    ``gpu`` is the index of the GPU it computes on, None for the processor.
    """

    memory_mb: int = 0
    disk_mb: int = 0
    gpu_memory_mb: int = 0
    gpu: int | None = None
    step: Spent = Spent()


class Budget:
    """Judges one machine. Keeps, from sample to sample, whether it is too hot and how long a run did nothing.

    ``monotonic`` gives seconds that only go forward; None: those of this machine.
    """

    def __init__(self, settings: Callable[[], TrainingSettings], monotonic: Callable[[], float] | None = None) -> None:
        self._settings = settings
        self._heat = _Heat()
        self._stall = _StallWatch(monotonic or SystemClock().monotonic)

    def verdict(
        self,
        reading: Reading | None,
        *,
        night: Spent,
        year: Spent,
        open_until: float | None,
        windows_configured: bool,
        at_once: bool,
        need: Need | None,
        running: bool,
        ahead: Spent,
        busy_percent: float | None = None,
        pid: int | None = None,
        planned: bool = False,
    ) -> Verdict:
        """Return whether a run may work now, and if not the first reason why. Call it once a second while one does.

        ``reading`` is None if the sensors cannot be read. ``night`` and ``year`` were spent so far; ``ahead`` is what
        it will cost until the next call and until it has stopped, so that it is paused before a limit and not after.
        ``at_once``: a person did not want to wait for a window. ``busy_percent`` is what the run's own process takes
        of one core, and ``pid`` its number, where they are known. ``planned``: it runs, and its plan came just now,
        so that nobody has seen yet whether there is room for it.
        """
        settings, need = self._settings(), need or Need()
        found = list(_calendar(open_until, windows_configured=windows_configured, at_once=at_once))
        found += _spending(settings, night, year, need, ahead, running=running)
        idle_s = self._stall.idle_s(reading, need.gpu, busy_percent, running=running)
        if reading is None:
            found.append(_blind("The state of this machine cannot be read, so nobody knows whether it is too hot."))
        else:
            found += self._heat.judge(settings, reading)
            found += _power(settings, reading)
            found += _room(settings, reading, need, running=running and not planned)
            found += _gpu_room(settings, reading, need, running=running and not planned, pid=pid)
        if idle_s >= settings.budget.stalled_s:
            found.append(_stalled(settings, need.gpu, idle_s))
        return found[0] if found else Verdict()


def _no(code: PauseCode, sentence: str, remedy: str, *, own: bool = False) -> Verdict:
    return Verdict(code=code, sentence=sentence, remedy=remedy, own=own)


def _blind(sentence: str) -> Verdict:
    return _no(PauseCode.SENSORS, sentence, "`clinic-ai doctor` says what cannot be read; training waits until it can.")


# ---------------------------------------------------------------- calendar and ledger


def _calendar(open_until: float | None, *, windows_configured: bool, at_once: bool) -> Iterator[Verdict]:
    if windows_configured and not at_once and open_until is None:
        yield _no(
            PauseCode.WINDOW,
            "No training window is open (training.window).",
            "It goes on by itself in the next one; `clinic-ai train run --now` does not wait for a window.",
        )


def _spending(
    settings: TrainingSettings, night: Spent, year: Spent, need: Need, ahead: Spent, *, running: bool
) -> Iterator[Verdict]:
    budget, step = settings.budget, need.step
    money = budget.currency
    for code, key, limit, unit, spent, one, next_ in (
        (PauseCode.YEAR_MONEY, "money_per_year", budget.money_per_year, money, year.money, step.money, ahead.money),
        (PauseCode.YEAR_ENERGY, "kwh_per_year", budget.kwh_per_year, "kWh", year.kwh, step.kwh, ahead.kwh),
        (
            PauseCode.YEAR_COMPUTE,
            "pf_days_per_year",
            budget.pf_days_per_year,
            "PF-days",
            year.pf_days,
            step.pf_days,
            ahead.pf_days,
        ),
        (PauseCode.NIGHT_ENERGY, "kwh_per_night", budget.kwh_per_night, "kWh", night.kwh, step.kwh, ahead.kwh),
    ):
        if limit <= 0:
            continue
        when = "night" if code is PauseCode.NIGHT_ENERGY else "year"
        whole = f"{limit:.6g} {unit} (training.budget.{key})"
        raise_it = f"Raise training.budget.{key}"
        if one > limit:
            yield _no(
                code,
                f"The budget of a {when}, {whole}, is smaller than one step of this run, {one:.3g} {unit}.",
                f"{raise_it} to more than {one:.3g} {unit}, or train with a smaller recipe.",
                own=True,
            )
        elif spent + (next_ if running else max(one, next_)) > limit:
            yield _no(
                code,
                f"This {when} training has used {spent:.6g} of {whole}; what is left is too little to go on.",
                f"It goes on by itself next {when}. {raise_it} to go on sooner.",
            )


# ---------------------------------------------------------------- the machine


class _Heat:
    """Too hot from ``hottest_c`` on, until everything is cooler than ``resume_below_c``."""

    def __init__(self) -> None:
        self._hot: set[str] = set()
        self._known: set[str] = set()

    def judge(self, settings: TrainingSettings, reading: Reading) -> Iterator[Verdict]:
        """Yield what is too hot, or does not say any more how hot it is."""
        budget = settings.budget
        degrees = _temperatures(reading)
        silent = sorted(self._known - set(degrees))
        self._known |= set(degrees)
        for name, celsius in degrees.items():
            if celsius >= budget.hottest_c:
                self._hot.add(name)
            elif celsius < budget.resume_below_c:
                self._hot.discard(name)
        for name in silent:
            yield _blind(f"The {name} does not say any more how hot it is.")
        for name, celsius in sorted(degrees.items(), key=lambda pair: -pair[1]):
            if name not in self._hot:
                continue
            limit = (
                f"the limit is {budget.hottest_c:g} °C (training.budget.hottest_c)"
                if celsius >= budget.hottest_c
                else f"it was too hot, and has to cool below {budget.resume_below_c:g} °C "
                "(training.budget.resume_below_c)"
            )
            yield _no(
                PauseCode.HEAT,
                f"The {name} has {celsius:.0f} °C; {limit}.",
                "It goes on by itself once it is cooler. If that happens often, look at fans, filters and the room.",
            )


def _temperatures(reading: Reading) -> dict[str, float]:
    known = {} if reading.temperature_c is None else {"processor": reading.temperature_c}
    return known | {
        f"GPU {gpu.index} ({gpu.name})": gpu.temperature_c for gpu in reading.gpus if gpu.temperature_c is not None
    }


class _StallWatch:
    """How long a run that works has done nothing."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._idle_s = 0.0
        self._at: float | None = None

    def idle_s(self, reading: Reading | None, gpu: int | None, busy_percent: float | None, *, running: bool) -> float:
        """Return for how many seconds it has done nothing; a moment without a reading counts for neither."""
        now = self._monotonic()
        before, self._at = self._at, now if running else None
        if not running:
            self._idle_s = 0.0
        elif reading is not None:
            idle = before is not None and _idle(reading, gpu, busy_percent)
            self._idle_s = self._idle_s + min(max(0.0, now - (before or now)), LONGEST_SAMPLE_S) if idle else 0.0
        return self._idle_s


def _idle(reading: Reading, gpu: int | None, busy_percent: float | None) -> bool:
    at_work = _gpu(reading, gpu)
    if at_work is not None and at_work.use_percent is not None:
        return at_work.use_percent <= 0
    if busy_percent is not None:
        return busy_percent < OWN_IDLE_PERCENT
    return reading.cpu_percent * reading.cpus < MACHINE_IDLE_PERCENT


def _stalled(settings: TrainingSettings, gpu: int | None, idle_s: float) -> Verdict:
    who = "processor" if gpu is None else f"GPU {gpu}"
    return _no(
        PauseCode.STALLED,
        f"The {who} has done nothing for this run for {idle_s:.0f} s; after {settings.budget.stalled_s:g} s "
        "(training.budget.stalled_s) a run counts as stalled.",
        "`clinic-ai train resume` goes on from its checkpoint. If it stalls again, tell who made the plugin.",
    )


def _power(settings: TrainingSettings, reading: Reading) -> Iterator[Verdict]:
    if settings.budget.mains_only and reading.on_mains is False:
        yield _no(
            PauseCode.BATTERY,
            "The machine runs on battery (training.budget.mains_only).",
            "It goes on by itself once the mains are back; look at plug and UPS.",
        )


def _room(settings: TrainingSettings, reading: Reading, need: Need, *, running: bool) -> Iterator[Verdict]:
    budget = settings.budget
    disk_mb, memory_mb = (0, 0) if running else (need.disk_mb, need.memory_mb)
    if reading.disk_free_mb - disk_mb < budget.disk_reserve_mb:
        yield _no(
            PauseCode.DISK,
            f"The disk of the home has {reading.disk_free_mb} MiB free; {_wants(disk_mb, budget.disk_reserve_mb)} "
            "(training.budget.disk_reserve_mb).",
            "Make room: `clinic-ai disk` says what takes it. It goes on by itself then.",
            own=reading.disk_free_mb >= budget.disk_reserve_mb,
        )
    if reading.memory_available_mb - memory_mb < budget.free_memory_mb:
        yield _no(
            PauseCode.MEMORY,
            f"{reading.memory_available_mb} MiB of memory are free; {_wants(memory_mb, budget.free_memory_mb)} "
            "(training.budget.free_memory_mb).",
            "It goes on by itself once there is more; other programs on this machine may be ended.",
            own=reading.memory_available_mb >= budget.free_memory_mb,
        )


def _wants(need_mb: int, reserve_mb: int) -> str:
    beside = f"{reserve_mb} MiB have to stay free"
    return f"the run needs {need_mb} MiB, and {beside}" if need_mb else beside


def _gpu_room(
    settings: TrainingSettings, reading: Reading, need: Need, *, running: bool, pid: int | None
) -> Iterator[Verdict]:
    if need.gpu is None:
        return
    gpu = _gpu(reading, need.gpu)
    if gpu is None:
        yield _blind(f"GPU {need.gpu}, on which this run computes, cannot be found any more.")
        return
    most = settings.budget.gpu_memory_mb or gpu.memory_mb
    used = 0 if pid is None else gpu.used_by.get(pid, 0)
    wanted = max(used, 0 if running else need.gpu_memory_mb)
    name = f"GPU {gpu.index} ({gpu.name})"
    if wanted > most:
        yield _no(
            PauseCode.GPU_MEMORY,
            f"The run needs {wanted} MiB of {name}, where training may use {most} MiB (training.budget.gpu_memory_mb).",
            "Raise the limit, or train with a smaller batch.",
            own=True,
        )
    elif not running and gpu.memory_mb - gpu.memory_used_mb + used < wanted:
        yield _no(
            PauseCode.GPU_MEMORY,
            f"The run needs {wanted} MiB of {name}, which has {gpu.memory_mb - gpu.memory_used_mb} MiB free.",
            "It goes on by itself once there is more; `nvidia-smi` says what takes it.",
            own=True,
        )


def _gpu(reading: Reading, index: int | None) -> GpuReading | None:
    return next((gpu for gpu in reading.gpus if gpu.index == index), None)
