"""The ledger of training, and what a run is said to cost by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from clinic_ai.domain import PauseCode, RunState, Spent
from clinic_ai.store import expenses as store
from clinic_ai.store import runs
from clinic_ai.store.database import Database
from clinic_ai.store.expenses import Expense, Experience, Peaks
from clinic_ai.store.runs import RunPlan
from clinic_ai.store.tables import datasets
from clinic_ai.store.tables import runs as runs_table
from clinic_ai.training.estimates import REMEMBERED_RUNS, estimate

PLAN = RunPlan(steps=100, epochs=2, memory_mb=1000, seconds=600.0, pf_days=0.01, disk_mb=50)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "clinic.db")
    made.open()
    with made.write() as connection:
        row = {"dataset_id": "D-1", "plugin": "xray", "digest": "0" * 64, "document": "{}", "created_at": 1.0}
        connection.execute(datasets.insert().values(**row))
    yield made
    made.close()


def expense(run_id: str = "R-1", kind: str = "work", **given_: object) -> Expense:
    row = {"plugin": "xray", "began_at": 10.0, "ended_at": 20.0, "night": "2026-06-10", "year": 2026}
    return Expense.model_validate({**row, "run_id": run_id, "kind": kind, **given_})


def test_what_was_entered_is_read_again(database: Database) -> None:
    row = expense(
        kind="pause",
        code=PauseCode.HEAT.value,
        sentence="The GPU has 91 °C.",
        spent=Spent(seconds=10, kwh=0.5, pf_days=0.1, money=0.2),
        peaks=Peaks(hottest_c=91.0, watts=300.0, steps=7),
        device="cuda",
    )
    with database.write() as connection:
        store.add_expense(connection, row)
    with database.read() as connection:
        assert store.list_expenses(connection) == [row]
        assert store.list_expenses(connection, since=20.1) == []


def test_nights_years_and_runs_are_summed(database: Database) -> None:
    with database.write() as connection:
        for run_id, night, year, kwh in (
            ("R-1", "2026-12-31", 2026, 1.0),
            ("R-1", "2026-12-31", 2027, 2.0),  # after midnight
            ("R-2", "2026-12-30", 2026, 4.0),
        ):
            spent = Spent(seconds=kwh, kwh=kwh, pf_days=kwh / 4, money=kwh / 2)
            store.add_expense(connection, expense(run_id, night=night, year=year, spent=spent))
        store.add_expense(connection, expense("R-2", "fail", night="2026-12-30", year=2026))
    with database.read() as connection:
        assert store.spent_in_night(connection, "2026-12-31") == Spent(seconds=3, kwh=3, pf_days=0.75, money=1.5)
        assert store.spent_in_year(connection, 2026).kwh == 5
        assert store.of_run(connection, "R-1").kwh == 3
        assert store.of_run(connection, "R-9") == Spent()


def finished(database: Database, at: float, seconds: float, *, plan: bool = True, state: str = "FINISHED") -> str:
    with database.write() as connection:
        run_id = runs.add_run(connection, "xray", "D-1", {}, "anna")
        if plan:
            runs.save_plan(connection, run_id, PLAN)
        values = {"state": RunState[state].value, "finished_at": at}
        connection.execute(update(runs_table).where(runs_table.c.run_id == run_id).values(**values))
        for peak, part in ((200, 0.25), (300, 0.75)):
            spent = Spent(seconds=seconds * part, kwh=seconds * part * 100 / 3.6e6)
            peaks = Peaks(disk_mb=peak, memory_mb=800, steps=10)
            store.add_expense(connection, expense(run_id, spent=spent, peaks=peaks, device="cuda"))
    return run_id


def test_experience_is_of_finished_runs_with_a_plan_the_newest_first(database: Database) -> None:
    first, second = finished(database, 1.0, 600.0), finished(database, 2.0, 900.0)
    finished(database, 3.0, 1.0, plan=False)
    finished(database, 4.0, 1.0, state="FAILED")
    with database.read() as connection:
        found = store.experiences(connection, "xray", 5)
        assert [run.run_id for run in found] == [second, first]
        assert [run.run_id for run in store.experiences(connection, "xray", 1)] == [second]
        assert store.experiences(connection, "ct", 5) == []
    assert found[0].spent.seconds == 900
    assert found[0].peaks == Peaks(disk_mb=300, memory_mb=800, steps=20)
    assert found[0].device == "cuda"
    assert found[0].plan.steps == 100


# ---------------------------------------------------------------- estimates


def run(seconds: float, *, watts: float = 100.0, disk_mb: int | None = None, pf_days: float = 0.0) -> Experience:
    spent = Spent(seconds=seconds, kwh=seconds * watts / 3.6e6, pf_days=pf_days)
    return Experience(run_id="R", plan=PLAN, spent=spent, peaks=Peaks(disk_mb=disk_mb), device="cpu")


def test_without_earlier_runs_an_estimate_is_the_plan() -> None:
    found = estimate(PLAN, [], watts=60.0, price_per_kwh=0.5)
    assert (found.seconds, found.pf_days, found.disk_mb, found.memory_mb) == (600.0, 0.01, 50, 1000)
    assert found.kwh == pytest.approx(0.01)
    assert found.money == pytest.approx(0.005)
    assert found.learned_from == 0
    assert found.plan == PLAN


def test_it_learns_from_what_earlier_runs_really_cost() -> None:
    earlier = [run(1200, watts=200, disk_mb=75, pf_days=0.02), run(1800, watts=200), run(1500, watts=200)]
    found = estimate(PLAN, earlier, watts=60.0, price_per_kwh=0.3)
    assert found.seconds == pytest.approx(1500)
    assert found.kwh == pytest.approx(1500 * 200 / 3.6e6)
    assert found.disk_mb == 75
    assert found.pf_days == pytest.approx(0.02), "of the run that counted"
    assert found.learned_from == 3


@given(st.lists(st.floats(500, 700), min_size=5, max_size=REMEMBERED_RUNS), st.lists(st.floats(0.001, 1e9), max_size=2))
def test_one_or_two_odd_runs_among_many_do_not_spoil_it(usual: list[float], odd: list[float]) -> None:
    found = estimate(PLAN, [run(seconds) for seconds in (*usual, *odd)], watts=1.0, price_per_kwh=0.0)
    assert min(usual) * (1 - 1e-9) <= found.seconds <= max(usual) * (1 + 1e-9)
    assert found.seconds == pytest.approx(median([*usual, *odd]))
    assert found.kwh == pytest.approx(found.seconds * 100 / 3.6e6)


def test_a_plan_of_nothing_is_no_teacher() -> None:
    nothing = run(100).model_copy(update={"plan": RunPlan(steps=1, epochs=1, memory_mb=1, seconds=0, pf_days=0)})
    assert estimate(PLAN, [nothing], watts=1.0, price_per_kwh=0.0).seconds == 600
