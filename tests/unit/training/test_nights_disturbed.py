"""Nights in which something is wrong with database, settings or trainer: what is paused, charged and gone on with.

Clock and sensors are set by the test; the runs, their children and SQLite are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nights import Simulation, labelled_folder, settings_of, simulated
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from tiny_learner import write_model

from clinic_ai.domain import RunState
from clinic_ai.home import Home
from clinic_ai.store import expenses
from clinic_ai.store.expenses import Expense

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled_folder(tmp_path / "labelled")


@pytest.fixture
def night(home: Home) -> Iterator[Simulation]:
    """Return the evening before a night without limits but for the window."""
    with simulated(home) as simulation:
        yield simulation


def test_a_run_whose_first_row_cannot_be_entered_makes_way_and_is_charged_all_the_same(
    night: Simulation, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, failed = expenses.add_expense, []

    def once_full(connection: Connection, expense: Expense) -> int:
        if not failed:
            failed.append(expense)
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return enter(connection, expense)

    night.tick(HOUR)
    run_id = night.start(folder, paced=5)
    monkeypatch.setattr(expenses, "add_expense", once_full)
    with pytest.raises(OperationalError):
        night.tick(1.0)
    night.tick(1.0)
    night.at_step(run_id, 5)
    night.tick(60.0)
    night.study_waits = True
    night.tick(1.0)
    assert night.get(run_id).pause_code == "study"
    assert night.processes() == []
    assert sum(row.spent.seconds for row in night.ledger()) >= 60.0


def test_a_run_of_the_night_does_not_go_on_by_day_when_the_windows_are_taken_out(
    night: Simulation, folder: Path
) -> None:
    night.tick(HOUR)
    run_id = night.start(folder, paced=5)
    with night.school.database.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET origin = 'night'")
    night.tick(1.0)
    night.at_step(run_id, 5)
    night.settings = settings_of(window=())
    night.tick(1.0)
    run = night.get(run_id)
    assert (run.state, run.pause_code) == (RunState.PAUSED, "window")
    assert "there is none any more" in run.error
    night.tick(1.0)
    assert not night.works(run_id)
    night.school.runs.resume(run_id, "ada", at_once=True)
    night.tick(1.0)
    assert night.works(run_id)


@pytest.mark.parametrize(("lie", "code"), [({"plan_disk_mb": 190_000}, "disk"), ({"plan_memory_mb": 11_500}, "memory")])
def test_a_run_that_turns_out_to_need_more_than_there_is_waits_for_it(
    night: Simulation, folder: Path, lie: dict[str, int], code: str
) -> None:
    night.tick(HOUR)
    run_id = night.start(folder, paced=5, **lie)
    night.tick(1.0)
    night.until(run_id, lambda run: run.plan is not None)
    night.tick(1.0)
    run = night.get(run_id)
    assert (run.state, run.pause_code) == (RunState.PAUSED, code)
    assert "the run needs" in run.error
    night.sensors.set(disk_free_mb=500_000, memory_available_mb=64_000)
    night.tick(60.0)
    night.at_step(run_id, 5)


def test_no_run_begins_beside_a_model_that_is_examined(
    night: Simulation, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, seen = night.start(folder, paced=5), []

    def examine(*_: object) -> None:
        night.tick(1.0)
        seen.append(night.works(run_id))

    write_model(folder.parent / "model", 1.0)
    night.school.registry.import_directory(folder.parent / "model", "ada")
    monkeypatch.setattr(night.school.runs.work, "examine_again", examine)
    night.clock.go(HOUR)
    night.school.runs.examine("tiny", "scalar", "1")
    assert seen == [False]
    night.tick(1.0)
    assert night.works(run_id)
