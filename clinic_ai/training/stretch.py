"""One stretch of work of one run, from its start to its pause or end: what it costs, entered as it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from clinic_ai.clock import Clock
from clinic_ai.contract import Device, TrainingPlan
from clinic_ai.domain import Spent, Verdict
from clinic_ai.hardware import GpuReading, Reading
from clinic_ai.settings import TrainingSettings
from clinic_ai.store import expenses
from clinic_ai.store.database import Database
from clinic_ai.store.expenses import Expense, Peaks
from clinic_ai.store.runs import RunView
from clinic_ai.training.budget import Need
from clinic_ai.training.meter import Meter
from clinic_ai.training.windows import Windows
from clinic_ai.training.work import Running

FLUSH_S = 5.0
"""What was spent is entered this often; a crash loses no more."""
_MIB = 1 << 20

N = TypeVar("N", int, float)
End = Literal["pause", "fail", "finish"]


class Stretch:
    """The work of a run since it began or went on. One thread calls it."""

    def __init__(
        self,
        run: RunView,
        running: Running,
        device: Device,
        *,
        database: Database,
        settings: Callable[[], TrainingSettings],
        clock: Clock,
        windows: Windows,
        directory: Path,
    ) -> None:
        """Begin to meter; ``directory`` is that of the run."""
        self.run = run
        self.running = running
        self.gpu = device.index if device.kind == "cuda" else None
        self._device = device.kind
        self._database = database
        self._settings = settings
        self._clock = clock
        self._windows = windows
        self._directory = directory
        self._meter = Meter(settings, self.gpu)
        self._began_at_step = int((run.progress or {}).get("step", 0))
        self._steps_entered = self._began_at_step
        self._plan_known = run.plan is not None
        self._row: int | None = None
        self._open = Expense(
            run_id=run.run_id,
            plugin=run.plugin,
            kind="work",
            began_at=clock.now(),
            ended_at=clock.now(),
            night=windows.night_of(clock.now()),
            year=windows.year_of(clock.now()),
            device=self._device,
        )
        self._night = self._year = Spent()
        """Spent in night and year by the time of the last entry."""
        self._since = Spent()
        self._entered_at = self.sampled_at = clock.monotonic()
        self._meter.sample(None, self.sampled_at, self._pf_days())
        self._enter()

    # ------------------------------------------------------------ what it costs

    @property
    def night(self) -> Spent:
        """What this night cost so far, all runs together."""
        return self._night + self._since

    @property
    def year(self) -> Spent:
        """What this year cost so far, all runs together."""
        return self._year + self._since

    def ahead(self, seconds: float) -> Spent:
        """Return what the next seconds will cost at most."""
        return self._meter.ahead(seconds)

    def sample(self, reading: Reading | None) -> None:
        """Add what was spent since the last sample; enter it if that is due."""
        monotonic = self._clock.monotonic()
        self._turn_of_night()
        spent = self._meter.sample(reading, monotonic, self._pf_days())
        self.sampled_at = monotonic
        self._since = self._since + spent
        self._open = self._open.model_copy(
            update={
                "ended_at": max(self._open.began_at, self._clock.now()),
                "spent": self._open.spent + spent,
                "peaks": self._peaks(reading),
            }
        )
        if abs(monotonic - self._entered_at) >= FLUSH_S:
            self._enter()

    def end(self, reading: Reading | None, kind: End, verdict: Verdict) -> None:
        """Enter the rest, and how the stretch ended."""
        self.sample(reading)
        disk_mb = sum(f.stat().st_size for f in self._directory.rglob("*") if f.is_file()) // _MIB
        peaks = self._open.peaks.model_copy(update={"disk_mb": disk_mb})
        self._open = self._open.model_copy(update={"peaks": peaks})
        self._enter()
        code = verdict.code.value if verdict.code is not None else ""
        last = {"kind": kind, "code": code, "sentence": verdict.sentence, "spent": Spent(), "peaks": Peaks()}
        now = self._open.ended_at
        with self._database.write() as connection:
            expenses.add_expense(connection, self._open.model_copy(update={**last, "began_at": now}))

    def _enter(self) -> None:
        with self._database.write() as connection:
            if self._row is None:
                self._row = expenses.add_expense(connection, self._open)
            else:
                expenses.extend_expense(connection, self._row, self._open)
            self._night = expenses.spent_in_night(connection, self._open.night)
            self._year = expenses.spent_in_year(connection, self._open.year)
        self._since, self._entered_at = Spent(), self._clock.monotonic()

    def _turn_of_night(self) -> None:
        """Begin a new row at noon, at the turn of the year, and where somebody has set the clock that far."""
        now = self._clock.now()
        night, year = self._windows.night_of(now), self._windows.year_of(now)
        if (night, year) == (self._open.night, self._open.year):
            return
        self._enter()
        fresh = {"night": night, "year": year, "began_at": now, "ended_at": now, "spent": Spent(), "peaks": Peaks()}
        self._open = self._open.model_copy(update=fresh)
        self._row, self._steps_entered = None, self._step()
        self._enter()

    # ------------------------------------------------------------ the run

    def need(self, *, still: bool = False) -> Need:
        """Return what the run needs, as far as it is known by now; ``still``: of memory, beside what it has."""
        need = need_of(self.running.plan or self.run.planned, self.gpu, self._meter.ahead(1.0))
        child = self.running.child
        has_mb = child.resident_bytes() // _MIB if still and child is not None else 0
        return need.model_copy(update={"memory_mb": max(0, need.memory_mb - has_mb)})

    def planned_just_now(self) -> bool:
        """Return, once, whether the run has got its plan since it began: what it needs was not known then."""
        news = not self._plan_known and self.running.plan is not None
        self._plan_known = self._plan_known or news
        return news

    def _step(self) -> int:
        progress = self.running.progress
        return self._began_at_step if progress is None else progress.step

    def _pf_days(self) -> float | None:
        """Return what the process has computed: by its own count, else by its share of the plan's steps."""
        progress, plan = self.running.progress, self.running.plan
        if progress is None:
            return 0.0
        if progress.pf_days is not None:
            return progress.pf_days
        if plan is None or progress.steps < 1:
            return None
        return plan.pf_days * max(0, progress.step - self._began_at_step) / progress.steps

    # ------------------------------------------------------------ the machine

    @property
    def pid(self) -> int | None:
        """Number of its process, None while it has none."""
        return None if self.running.child is None else self.running.child.pid

    def _peaks(self, reading: Reading | None) -> Peaks:
        """Return the most that was measured so far; tell the run how the machine fares now."""
        running, gpu, before = self.running, gpu_of(reading, self.gpu), self._open.peaks
        measured = gpu or reading
        heat = None if measured is None else measured.temperature_c
        watts = None if measured is None else measured.power_w
        running.temperature_c, running.power_w = heat, watts
        child = running.child
        return Peaks(
            hottest_c=_most(before.hottest_c, heat),
            watts=_most(before.watts, watts),
            memory_mb=_most(before.memory_mb, None if child is None else child.resident_bytes() // _MIB),
            gpu_memory_mb=_most(before.gpu_memory_mb, None if gpu is None else gpu.used_by.get(self.pid or 0)),
            steps=max(0, self._step() - self._steps_entered),
        )


def second_of(settings: Callable[[], TrainingSettings], reading: Reading | None, device: Device) -> Spent:
    """Return what a second of work on a device would cost, by the power that is drawn there or assumed."""
    meter = Meter(settings, device.index if device.kind == "cuda" else None)
    meter.sample(reading, 0.0, None)
    return meter.ahead(1.0)


def need_of(plan: TrainingPlan | None, gpu: int | None, second: Spent) -> Need:
    """Return what a run of this plan needs, if a second of its work costs this much at most."""
    if plan is None:
        return Need(gpu=gpu)
    step = second.scaled(plan.seconds / max(1, plan.steps))
    return Need(
        memory_mb=plan.memory_mb,
        disk_mb=plan.disk_mb,
        gpu_memory_mb=0 if gpu is None else plan.memory_mb,
        gpu=gpu,
        step=step.model_copy(update={"pf_days": plan.pf_days / max(1, plan.steps)}),
    )


def gpu_of(reading: Reading | None, index: int | None) -> GpuReading | None:
    """Return the GPU of an index, None if there is none."""
    gpus = () if reading is None else reading.gpus
    return next((gpu for gpu in gpus if gpu.index == index), None)


def _most(before: N | None, now: N | None) -> N | None:
    known = [value for value in (before, now) if value is not None]
    return max(known, default=None)
