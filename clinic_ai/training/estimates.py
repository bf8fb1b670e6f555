"""What a run will cost before it starts: the trainer's plan, corrected by what earlier runs really cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from clinic_ai.contract import TrainingPlan
from clinic_ai.domain import Word
from clinic_ai.store.expenses import Experience

REMEMBERED_RUNS = 9
"""How many of the newest finished runs of a plugin an estimate learns from."""
_JOULES_PER_KWH = 3.6e6


class Estimate(Word):
    """What a run will cost: seconds, kWh, PF-days, money of the clinic's currency, MiB of disk and memory.

    ``learned_from`` earlier runs; 0: nothing is known but ``plan``, which is the trainer's own word.
    """

    steps: int
    seconds: float
    kwh: float
    pf_days: float
    money: float
    disk_mb: int
    memory_mb: int
    learned_from: int
    plan: TrainingPlan


def estimate(plan: TrainingPlan, earlier: Sequence[Experience], *, watts: float, price_per_kwh: float) -> Estimate:
    """Return what a run of this plan will cost, by the median of what earlier ones cost of what was planned.

    ``earlier`` are finished runs of the plugin on the same kind of device. ``watts`` is the power to count with where
    none of them tells.
    """
    seconds = plan.seconds * _ratio(earlier, lambda run: run.spent.seconds, lambda run: run.plan.seconds)
    power = [run.spent.kwh * _JOULES_PER_KWH / run.spent.seconds for run in earlier if run.spent.seconds > 0]
    kwh = seconds * (median(power) if power else watts) / _JOULES_PER_KWH
    return Estimate(
        steps=plan.steps,
        seconds=seconds,
        kwh=kwh,
        pf_days=plan.pf_days * _ratio(earlier, lambda run: run.spent.pf_days, lambda run: run.plan.pf_days),
        money=kwh * price_per_kwh,
        disk_mb=round(plan.disk_mb * _ratio(earlier, lambda run: run.peaks.disk_mb, lambda run: run.plan.disk_mb)),
        memory_mb=round(
            plan.memory_mb * _ratio(earlier, lambda run: run.peaks.memory_mb, lambda run: run.plan.memory_mb)
        ),
        learned_from=len(earlier),
        plan=plan,
    )


def _ratio(
    earlier: Sequence[Experience],
    actual: Callable[[Experience], float | None],
    planned: Callable[[Experience], float],
) -> float:
    """Return the median of actual over planned, of the runs where both are known; 1 without any."""
    pairs = ((actual(run), planned(run)) for run in earlier)
    ratios = [was / plan for was, plan in pairs if was and plan > 0]
    return median(ratios) if ratios else 1.0
