"""What a run would bring if it went on, by its history and its ledger: real store, real child."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import known_curves
import pytest

from clinic_ai.domain import Spent
from clinic_ai.errors import InputError, NotFound
from clinic_ai.forecasting import ForecastWish, Rates
from clinic_ai.home import Home
from clinic_ai.processes import Crew
from clinic_ai.settings import TrainingBudget
from clinic_ai.store.database import Database
from clinic_ai.training.loss_curves import HISTORY
from clinic_ai.training.scaling import Forecasts, rates_of

BUDGET = TrainingBudget(price_per_kwh=0.5, currency="CHF", assumed_watts=100.0)


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    opened = Database(home.database)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def forecasts(home: Home, database: Database) -> Iterator[Forecasts]:
    crew = Crew()
    yield Forecasts(home, database, crew, lambda: BUDGET)
    crew.close()


def test_what_more_would_cost_is_told_from_the_ledger_of_the_run(forecasts: Forecasts, database: Database) -> None:
    curve = known_curves.losses(120)
    steps = 120 * known_curves.STEPS_PER_EPOCH
    # 6,000 steps: 3 s each at 360 W
    spent = Spent(seconds=3.0 * steps, kwh=3.0 * steps * 360 / 3.6e6, pf_days=6e-4, money=9.0)
    run_id = known_curves.add_run(database, curve, spent=spent)
    found = forecasts.of_run(run_id, ForecastWish(target=0.34, larger=3.0))
    forecast, rates = found.forecast, found.rates
    assert (forecast.name, forecast.unit) == (f"run {run_id}", "step")
    assert forecast.last_step == 119.5 * known_curves.STEPS_PER_EPOCH
    assert forecast.identifiable, forecast.reasons
    assert forecast.fit.c.low < 0.3 < forecast.fit.c.high
    assert (rates.seconds, rates.kwh, rates.pf_days) == (pytest.approx(3), pytest.approx(3e-4), pytest.approx(1e-7))
    assert rates.money == pytest.approx(1.5e-4)  # at the price of today
    assert rates.basis == "By the ledger of this run: 3 s a step at 360 W. A kWh costs 0.50 CHF."
    half, target, twice, larger = found.purchases
    # b = 0.5: half of what is left takes four times the steps, three times as many further ones
    assert half.steps.low < 3 * forecast.last_step < half.steps.high
    for bought in (half, target):
        assert bought.seconds.low == pytest.approx(3 * bought.steps.low)
        assert bought.kwh.value == pytest.approx(3e-4 * bought.steps.value)
        assert bought.pf_days.high == pytest.approx(1e-7 * bought.steps.high)
        assert bought.money.low == pytest.approx(1.5e-4 * bought.steps.low)
    assert target.steps.low < (4 / 0.04) ** 2 - forecast.last_step < target.steps.high
    assert twice.steps.value == forecast.last_step
    assert twice.loss == forecast.twice.loss
    assert "knows steps, not data" in twice.note
    assert larger.seconds.value == pytest.approx(3 * 3 * forecast.last_step)
    assert larger.loss is None


def test_a_run_at_work_is_told_from_what_its_trainer_wrote_aside_and_its_plan(
    forecasts: Forecasts, database: Database, home: Home
) -> None:
    curve = known_curves.losses(60)
    run_id = known_curves.add_run(database, curve, finished=False, epochs=200)
    with pytest.raises(InputError, match="has no loss curve yet: it is RUNNING"):
        forecasts.of_run(run_id, ForecastWish())
    (home.runs / run_id).mkdir(parents=True)
    (home.runs / run_id / HISTORY).write_text(known_curves.as_csv(curve))
    found = forecasts.of_run(run_id, ForecastWish())
    assert found.forecast.fit.points == 60
    assert found.forecast.last_step == 59.5 * known_curves.STEPS_PER_EPOCH
    assert "By the plan of this run, which the ledger does not confirm: 2 s a step at 100 W." in found.rates.basis
    assert found.rates.pf_days == pytest.approx(1e-6)


def test_no_link_is_followed_to_a_history(forecasts: Forecasts, database: Database, home: Home, tmp_path: Path) -> None:
    run_id = known_curves.add_run(database, known_curves.losses(60), finished=False)
    (home.runs / run_id).mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text(known_curves.as_csv(known_curves.losses(60)))
    (home.runs / run_id / HISTORY).symlink_to(elsewhere)
    with pytest.raises(InputError, match="cannot be read safely"):
        forecasts.of_run(run_id, ForecastWish())


def test_what_a_curve_does_not_tell_is_a_sentence_of_the_child(forecasts: Forecasts, database: Database) -> None:
    run_id = known_curves.add_run(database, known_curves.losses(12))
    with pytest.raises(InputError) as refused:
        forecasts.of_run(run_id, ForecastWish())
    assert refused.value.message == "The loss curve has 12 points; a forecast needs 20 at least."
    with pytest.raises(NotFound):
        forecasts.of_run("R-none", ForecastWish())


def test_a_run_that_is_not_identifiable_gets_ranges_or_nothing(forecasts: Forecasts, database: Database) -> None:
    run_id = known_curves.add_run(database, known_curves.losses(30, noise=0.2))
    found = forecasts.of_run(run_id, ForecastWish(target=0.31))
    assert not found.forecast.identifiable
    half, target, twice, _ = found.purchases
    for bought in (half, target):
        assert bought.steps is None or bought.steps.value is None
        assert bought.money is None or bought.money.value is None
    assert half.steps is not None or "does not tell how many steps" in half.note
    assert twice.loss is not None
    assert twice.loss.value is None


def test_what_a_person_says_counts_before_the_ledger() -> None:
    known = Rates(seconds=2.0, kwh=2e-4, pf_days=1e-7, basis="Known.")
    assert rates_of(ForecastWish(), BUDGET, known=known).kwh == 2e-4
    slower = rates_of(ForecastWish(seconds_per_step=4.0), BUDGET, known=known)
    assert (slower.seconds, slower.kwh, slower.pf_days) == (4.0, pytest.approx(4e-4), 1e-7)
    hungry = rates_of(ForecastWish(watts=720.0), BUDGET, known=known)
    assert hungry.kwh == pytest.approx(4e-4)
    # peak PFLOP/s × utilisation × days: the DGX-1 of the notes, half used, one day a step
    peak = rates_of(ForecastWish(seconds_per_step=86400.0, pflops=0.1256, utilisation=0.5), BUDGET)
    assert peak.pf_days == pytest.approx(0.0628)
    assert peak.kwh == pytest.approx(2.4)
    assert peak.money == pytest.approx(1.2)
    assert "Power: 100 W, assumed" in peak.basis


def test_without_a_time_of_a_step_nothing_has_a_price() -> None:
    rates = rates_of(ForecastWish(watts=100.0), BUDGET)
    assert (rates.seconds, rates.kwh, rates.money) == (None, None, None)
    assert "--seconds-per-step" in rates.basis
    with pytest.raises(InputError, match="only one of the first two"):
        rates_of(ForecastWish(pflops=1.0), BUDGET)
