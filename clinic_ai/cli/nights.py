"""``clinic-ai train plan`` and ``train budget``: what the night will do and what it has cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clinic_ai.cli.options import HomeOption, JsonOption, example, home_of
from clinic_ai.cli.training import train

if TYPE_CHECKING:
    from clinic_ai.control.night_views import EstimateView, ExpenseView, SpendingView, SpentView, TonightView

__all__ = ["budget", "plan", "train"]

SHOWN_ROWS = 20


@train.command("plan", epilog=example("train plan"))
def plan(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say what will be trained in the next window and why, or why not, and what it will cost; nothing is started."""
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import print_json

    with training(home_of(home)) as desk:
        found = desk.tonight()
    if as_json:
        print_json(found)
    else:
        _tell_tonight(found)


@train.command("budget", epilog=example("train budget --json"))
def budget(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what training may use, what it has used tonight and this year, and the newest rows of the ledger."""
    from clinic_ai.cli.offline import training
    from clinic_ai.cli.output import print_json

    with training(home_of(home)) as desk:
        found = desk.spending()
    if as_json:
        print_json(found)
    else:
        _tell_spending(found)


# ---------------------------------------------------------------- words


def _tell_tonight(found: TonightView) -> None:
    from clinic_ai.cli.output import say, table

    say(_window(found))
    if found.may_sleep:
        say(found.may_sleep)
    rows = ((e.name, "yes" if e.due else "no", f"{e.sentence} {e.remedy}".strip()) for e in found.expected)
    table(("plan or run", "next window", "why"), rows, empty="Nothing is planned, and no run waits.")
    for expected in found.expected:
        if expected.estimate is not None:
            say(f"{expected.name}: {cost_words(expected.estimate, found.currency)}")
        elif expected.untold:
            say(f"{expected.name}: {expected.untold}")


def _window(found: TonightView) -> str:
    if not found.configured:
        return (
            "There are no training windows ([[training.window]] in clinic.toml): nothing is trained by itself, and "
            "runs that people start begin at once."
        )
    if found.opens_at is not None and found.closes_at is not None:
        return f"The next window opens on {_when(found.opens_at)} and closes on {_when(found.closes_at)}."
    if found.closes_at is not None:
        return f"A window is open until {_when(found.closes_at)}."
    return "No window opens within 400 days; look at training.window and training.holidays in clinic.toml."


def cost_words(cost: EstimateView, currency: str) -> str:
    """Return in words what a run will cost, and how far that is known."""
    from clinic_ai.cli.output import age

    learned = (
        f"learned from {cost.learned_from} earlier run{'' if cost.learned_from == 1 else 's'}"
        if cost.learned_from
        else "by its trainer's own word; no earlier run tells more"
    )
    return (
        f"about {cost.steps} steps in {age(cost.seconds)}, {cost.kwh:.3g} kWh, {cost.pf_days:.2g} PF-days, "
        f"{cost.money:.2f} {currency}, {cost.memory_mb} MiB of memory, {cost.disk_mb} MiB of disk ({learned})."
    )


def _tell_spending(found: SpendingView) -> None:
    from clinic_ai.cli.output import age, fields, table

    fields(
        (
            (f"night of {found.night}", _spent(found.tonight, found.currency)),
            (f"year {found.year}", _spent(found.this_year, found.currency)),
        )
    )
    limits = (
        (row.key, f"{row.spent:.4g}", f"{row.limit:g}" if row.limit else "no limit", row.unit) for row in found.limits
    )
    table(("training.budget", "used", "limit", "unit"), limits, empty="")
    compared = (
        (row.run_id, row.plugin, row.state, age(row.planned_seconds), age(row.spent.seconds), f"{row.spent.kwh:.3g}")
        for row in found.compared
    )
    table(("run", "plugin", "state", "planned", "took", "kWh"), compared, empty="No run has told yet what it costs.")
    rows = map(_row, found.rows[:SHOWN_ROWS])
    table(("when", "run", "what", "took", "kWh", "°C"), rows, empty="The ledger is empty.")


def _spent(spent: SpentView, currency: str) -> str:
    from clinic_ai.cli.output import age

    return f"{age(spent.seconds)}, {spent.kwh:.3g} kWh, {spent.pf_days:.2g} PF-days, {spent.money:.2f} {currency}"


def _row(row: ExpenseView) -> tuple[str, ...]:
    from clinic_ai.cli.output import age

    hottest = "" if row.peaks.hottest_c is None else f"{row.peaks.hottest_c:.0f}"
    took, kwh = (age(row.spent.seconds), f"{row.spent.kwh:.3g}") if row.kind == "work" else ("", "")
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.ended_at))
    return (at, row.run_id, f"{row.kind} {row.code}".strip(), took, kwh, hottest)


def _when(at: float) -> str:
    return time.strftime("%a %Y-%m-%d %H:%M", time.localtime(at))
