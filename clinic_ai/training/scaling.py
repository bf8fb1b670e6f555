"""What more computing would buy: the forecast of a loss curve, made in a child, and what it would cost.

The child knows steps and losses alone. What a step costs is told by the ledger of the run, or by a person.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from clinic_ai.confinement import Confinement
from clinic_ai.domain import Spent
from clinic_ai.errors import ChildRefused, Conflict, InputError
from clinic_ai.forecasting import CostedForecast, Forecast, ForecastTask, ForecastWish, LossCurve, Purchase, Rates, Span
from clinic_ai.home import Home
from clinic_ai.processes import ChildSpec, Crew, computing_on
from clinic_ai.settings import TrainingBudget
from clinic_ai.store import expenses, runs
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RunView
from clinic_ai.training.loss_curves import curve_of_run

_SPEC = ChildSpec(
    kind="forecaster",
    name="forecaster",
    confinement=Confinement(data=2 << 30, nice=10),
    environment=computing_on(1),
)
_TIMEOUT_S = 300.0
_JOULES_PER_KWH = 3.6e6
_DAY_S = 86400.0
_CODES_OF_THE_CHILD = frozenset({"child_raised", "no_such_method", "bad_params", "answer_too_large"})


class Forecasts:
    """Makes forecasts of the runs of one home, one at a time. Safe to call from several threads."""

    def __init__(self, home: Home, database: Database, crew: Crew, budget: Callable[[], TrainingBudget]) -> None:
        self._home = home
        self._database = database
        self._crew = crew
        self._budget = budget
        self._making = threading.Lock()

    def of_run(self, run_id: str, wish: ForecastWish) -> CostedForecast:
        """Return the forecast of a run, from its history so far.

        Raise NotFound, InputError if no law can be fitted to its loss, Conflict while another is being made, ChildError
        if the child fails.
        """
        with self._database.read() as connection:
            run = runs.get_run(connection, run_id)
            spent = expenses.of_run(connection, run_id)
        curve = curve_of_run(run, self._home.runs / run_id)
        rates = rates_of(wish, self._budget(), known=_rates_of_run(run, spent, curve, self._budget()))
        if not self._making.acquire(blocking=False):  # each takes a child of 2 GiB, and anybody may ask for one
            raise Conflict("Another forecast is being made.", remedy="Try again in a minute.")
        try:
            return costed(self._crew, curve, wish, rates)
        finally:
            self._making.release()


def costed(crew: Crew, curve: LossCurve, wish: ForecastWish, rates: Rates) -> CostedForecast:
    """Return the forecast of a curve, made in a child, with what it would cost.

    Raise InputError if no law can be fitted to it, ChildError if the child fails.
    """
    task = ForecastTask(curve=curve, drop=wish.drop, target=wish.target, picture=wish.picture)
    child = crew.start(_SPEC)
    try:
        found = child.call("forecast", task, Forecast, timeout_s=_TIMEOUT_S)
    except ChildRefused as error:
        if error.code in _CODES_OF_THE_CHILD:
            raise
        raise InputError(error.code, error.message, remedy=error.remedy) from error
    finally:
        child.close()
    return CostedForecast(forecast=found, rates=rates, purchases=_purchases(found, rates, wish.larger))


# ---------------------------------------------------------------- what a step costs


def rates_of(wish: ForecastWish, budget: TrainingBudget, *, known: Rates | None = None) -> Rates:
    """Return what a step costs: what the person says counts before what is ``known``.

    Raise InputError if a peak is given without its utilisation, or the other way round.
    """
    if (wish.pflops is None) != (wish.utilisation is None):
        raise InputError(
            "half_a_peak",
            "PF-days are peak × utilisation × days; only one of the first two is given.",
            remedy="Give both --pflops and --utilisation.",
        )
    known = known or Rates()
    seconds = known.seconds if wish.seconds_per_step is None else wish.seconds_per_step
    if seconds is None:
        return Rates(currency=budget.currency, basis="What a step costs is not known; give --seconds-per-step.")
    faster = seconds / known.seconds if known.seconds else 1.0  # a person corrects the time of a step
    told = wish.watts is not None or known.kwh is None
    watts = budget.assumed_watts if wish.watts is None else wish.watts
    kwh = seconds * watts / _JOULES_PER_KWH if told else (known.kwh or 0.0) * faster
    pf_days = None if known.pf_days is None else known.pf_days
    if wish.pflops is not None and wish.utilisation is not None:
        pf_days = wish.pflops * wish.utilisation * seconds / _DAY_S
    basis = [known.basis or f"{seconds:.3g} s a step as given."]
    if wish.seconds_per_step is not None and known.basis:
        basis.append(f"Of these, {seconds:.3g} s a step is taken as given.")
    if told:
        how = "as given" if wish.watts is not None else "assumed (training.budget.assumed_watts)"
        basis.append(f"Power: {watts:g} W, {how}.")
    basis.append(f"A kWh costs {budget.price_per_kwh:.2f} {budget.currency}.")
    return Rates(
        seconds=seconds,
        kwh=kwh,
        pf_days=pf_days,
        money=kwh * budget.price_per_kwh,
        currency=budget.currency,
        basis=" ".join(basis),
    )


def _rates_of_run(run: RunView, spent: Spent, curve: LossCurve, budget: TrainingBudget) -> Rates:
    """Return what a step of a run cost by the ledger; by its plan where the ledger has nothing of it."""
    progress, plan = run.progress or {}, run.planned
    done = float(progress.get("epoch" if curve.unit == "epoch" else "step") or 0)
    if spent.seconds > 0 and done > 0:
        each = spent.scaled(1 / done)
        watts = spent.kwh * _JOULES_PER_KWH / spent.seconds
        return Rates(
            seconds=each.seconds,
            kwh=each.kwh,
            pf_days=each.pf_days or None,
            basis=f"By the ledger of this run: {each.seconds:.3g} s a {curve.unit} at {watts:.0f} W.",
        )
    planned = 0 if plan is None else plan.epochs if curve.unit == "epoch" else plan.steps
    if plan is None or planned < 1 or plan.seconds <= 0:
        return Rates()
    return Rates(
        seconds=plan.seconds / planned,
        kwh=plan.seconds / planned * budget.assumed_watts / _JOULES_PER_KWH,
        pf_days=plan.pf_days / planned or None,
        basis=f"By the plan of this run, which the ledger does not confirm: {plan.seconds / planned:.3g} s a "
        f"{curve.unit} at {budget.assumed_watts:g} W.",
    )


# ---------------------------------------------------------------- what more would buy


def _purchases(found: Forecast, rates: Rates, larger: float) -> tuple[Purchase, ...]:
    unit = found.unit
    bought = [_reached("half of what is left above c", found, found.halving, rates)]
    if found.target is not None:
        bought.append(_reached(f"a loss of {found.target:g}", found, found.target_at, rates, note=found.target_note))
    again = Span(value=found.last_step, low=found.last_step, high=found.last_step)
    bought.append(
        _priced(
            "twice the data",
            again,
            rates,
            loss=found.twice.loss,
            note=f"Twice the data in as many epochs is twice the {unit}s. The law knows steps, not data: its loss "
            "holds if each step brings images not seen before, and is too good if they repeat.",
        )
    )
    scaled = Rates.model_validate(
        rates.model_dump()
        | {name: _times(getattr(rates, name), larger) for name in ("seconds", "kwh", "pf_days", "money")}
    )
    bought.append(
        _priced(
            f"a base {larger:g} times as large",
            again,
            scaled,
            note=f"As many {unit}s as so far, each with {larger:g} times the operations at the same utilisation. Which "
            "loss it reaches, no curve of this base can tell.",
        )
    )
    return tuple(bought)


def _reached(what: str, found: Forecast, at: Span | None, rates: Rates, *, note: str = "") -> Purchase:
    """Return what the further steps until ``at`` cost, or that the curve does not tell them."""
    steps = None if at is None else _further(at, found.last_step)
    if steps is None or not _tells(steps):
        return Purchase(what=what, note=note or f"The curve does not tell how many {found.unit}s that takes.")
    return _priced(what, steps, rates, note=note)


def _priced(what: str, steps: Span, rates: Rates, *, loss: Span | None = None, note: str = "") -> Purchase:
    costs = {name: _scaled(steps, getattr(rates, name)) for name in ("seconds", "kwh", "pf_days", "money")}
    return Purchase(what=what, loss=loss, steps=steps, note=note, **costs)


def _further(at: Span, last: float) -> Span:
    """Return the steps after the last one until ``at``."""
    value = None if at.value is None else max(at.value - last, 0.0)
    return Span(value=value, low=max(at.low - last, 0.0), high=None if at.high is None else max(at.high - last, 0.0))


def _tells(steps: Span) -> bool:
    """Whether anything is known of the number of steps."""
    return steps.value is not None or steps.low > 0 or steps.high is not None


def _scaled(span: Span, factor: float | None) -> Span | None:
    if factor is None:
        return None
    return Span(value=_times(span.value, factor), low=span.low * factor, high=_times(span.high, factor))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
