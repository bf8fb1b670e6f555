"""Mistakes that keys about training make together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from clinic_ai.settings.lines import KeyPath, Mistake
from clinic_ai.settings.training import TrainingSettings

BUDGET = ("training", "budget")


def training_mistakes(training: TrainingSettings) -> Iterator[Mistake]:
    """Yield every mistake that keys of ``[training]`` valid by themselves make together."""
    yield from _holidays(training)
    yield from _windows(training)
    yield from _plans(training)
    budget = training.budget
    if budget.resume_below_c >= budget.hottest_c:
        yield (
            ((*BUDGET, "hottest_c"), (*BUDGET, "resume_below_c")),
            f"{budget.resume_below_c:g} is not cooler than training.budget.hottest_c; "
            f"write less than {budget.hottest_c:g}, such as {budget.hottest_c - 10:g}",
        )
    if budget.money_per_year > 0 and budget.price_per_kwh <= 0:
        yield (
            ((*BUDGET, "money_per_year"), (*BUDGET, "price_per_kwh")),
            "energy that costs nothing never reaches training.budget.money_per_year; write what a kilowatt-hour costs",
        )


def _holidays(training: TrainingSettings) -> Iterator[Mistake]:
    for index, text in enumerate(training.holidays):
        try:
            date.fromisoformat(text)
        except ValueError:
            yield (("training", "holidays", index),), f'no calendar has {text!r}; write for example "2026-12-25"'


def _windows(training: TrainingSettings) -> Iterator[Mistake]:
    for index, window in enumerate(training.window):
        place: KeyPath = ("training", "window", index)
        if window.start == window.end:
            yield (
                ((*place, "start"), (*place, "end")),
                f"a window from {window.start} to {window.end} has no length; write another end, "
                "and for the whole day two windows, such as 00:00 to 12:00 and 12:00 to 00:00",
            )
        if set(window.days) == {"holiday"} and not training.holidays:
            yield (
                (("training", "holidays"), (*place, "days")),
                "the window never opens, for training.holidays has no day; write weekdays here, or holidays there",
            )


def _plans(training: TrainingSettings) -> Iterator[Mistake]:
    seen: dict[tuple[str, str, str], int] = {}
    for index, plan in enumerate(training.plan):
        place: KeyPath = ("training", "plan", index)
        first = seen.setdefault((plan.plugin, plan.condition, plan.category), index)
        if first != index:
            yield (
                (("training", "plan", first), place),
                f"training.plan[{first + 1}] trains the same already; take one out, "
                "or name another condition or category",
            )
        keys = [pair.partition("=")[0] for pair in plan.recipe]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                yield ((*place, "recipe", number),), f"{key} stands in the recipe twice; take one out"
