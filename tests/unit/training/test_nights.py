"""Simulated nights: what pauses a run, what lets it go on, and what the ledger says of it.

Clock and sensors are set by the test; the runs, their children and SQLite are real. A run of the tiny plugin makes as
many steps as it is allowed to, and holds then.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_learner
from nights import EVENING as BEFORE_THE_WINDOW
from nights import WATTS, SetClock, Simulation, labelled_folder, settings_of, simulated
from school import open_school

from clinic_ai.domain import RunState
from clinic_ai.errors import Conflict
from clinic_ai.hardware import GpuReading
from clinic_ai.home import Home, init_home
from clinic_ai.settings import TrainingBudget
from clinic_ai.store import runs as store
from clinic_ai.training import runs as module

MINUTE, HOUR = 60.0, 3600.0
KWH_A_MINUTE = WATTS * MINUTE / 3.6e6


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Path]:
    """Return a home that has frozen a labelled folder once, and the folder."""
    place = tmp_path_factory.mktemp("taught")
    home, folder = init_home(place / "home"), labelled_folder(place / "labelled")
    school = open_school(home)
    school.runs.datasets.freeze(tiny_learner.manifest(), folder, "ada")
    school.close()
    return home, folder


@pytest.fixture
def home(taught: tuple[Home, Path], tmp_path: Path) -> Home:
    return Home(shutil.copytree(taught[0].path, tmp_path / "home", symlinks=True))


@pytest.fixture
def folder(taught: tuple[Home, Path]) -> Path:
    return taught[1]


@pytest.fixture
def night(home: Home) -> Iterator[Simulation]:
    """Return the evening before a night without limits but for the window."""
    with simulated(home) as simulation:
        yield simulation


def at_work(night: Simulation, folder: Path, **recipe: float | int | str) -> str:
    """Return a run in the open window that holds at its fifth step, or where its recipe says."""
    night.tick(HOUR)
    recipe = {"paced": 5, **recipe}
    run_id = night.start(folder, **recipe)
    night.tick(1.0)
    night.at_step(run_id, int(recipe["paced"]))
    return run_id


def paused(night: Simulation, run_id: str) -> str:
    """Return why a run is paused, having seen that nothing of it is left."""
    run = night.get(run_id)
    assert run.state is RunState.PAUSED, (run.state, run.error)
    assert night.processes() == []
    return run.pause_code


class TestWindow:
    def test_a_run_waits_for_the_window_pauses_at_its_end_and_goes_on_the_next_night(
        self, night: Simulation, folder: Path
    ) -> None:
        run_id = night.start(folder, paced=5)
        night.tick()
        run = night.get(run_id)
        assert (run.state, run.pause_code) == (RunState.PLANNED, "window")
        assert "the next opens on Monday 22:00" in run.error
        night.tick(HOUR)
        night.at_step(run_id, 5)
        night.tick(7.5 * HOUR)
        assert night.get(run_id).state is RunState.RUNNING
        night.tick(HOUR)
        assert paused(night, run_id) == "window"
        assert "the next opens on Tuesday 22:00" in night.get(run_id).error
        night.tick(12 * HOUR)
        assert paused(night, run_id) == "window"
        night.tick(4 * HOUR)
        night.allow(run_id, 10)
        assert night.finish(run_id) == night.undisturbed(run_id)
        assert night.kinds() == ["refuse window", "pause window", "finish"]

    def test_a_person_may_decide_not_to_wait(self, night: Simulation, folder: Path) -> None:
        run_id = night.start(folder, at_once=True, paced=5)
        night.tick(1.0)
        night.at_step(run_id, 5)
        night.tick(14 * HOUR)
        assert night.get(run_id).state is RunState.RUNNING
        assert night.works(run_id)

    def test_one_that_waits_goes_on_at_once_when_a_person_says_so(self, night: Simulation, folder: Path) -> None:
        run_id = at_work(night, folder)
        night.tick(9 * HOUR)
        assert paused(night, run_id) == "window"
        night.school.runs.resume(run_id, "ada", at_once=True)
        night.tick(1.0)
        assert night.works(run_id)

    def test_one_that_has_not_begun_need_not_wait_either_when_a_person_says_so(
        self, night: Simulation, folder: Path
    ) -> None:
        run_id = night.start(folder, paced=5)
        night.tick(1.0)
        assert night.get(run_id).pause_code == "window"
        with pytest.raises(Conflict):
            night.school.runs.resume(run_id, "ada")
        night.school.runs.resume(run_id, "ada", at_once=True)
        assert night.get(run_id).error == ""
        night.tick(1.0)
        assert night.works(run_id)

    def test_studies_of_the_day_leave_no_rows_of_a_run_that_waits_for_its_window(
        self, night: Simulation, folder: Path
    ) -> None:
        night.start(folder)
        for _ in range(5):
            for waits in (False, True):
                night.study_waits = waits
                night.tick(61.0)
        assert night.kinds() == ["refuse window"]

    def test_without_windows_runs_begin_at_once(self, home: Home, folder: Path) -> None:
        with simulated(home, settings_of(window=())) as night:
            run_id = night.start(folder)
            night.tick(1.0)
            assert night.works(run_id)

    def test_what_a_person_paused_or_stopped_stays_so(self, night: Simulation, folder: Path) -> None:
        run_id = at_work(night, folder)
        night.school.runs.pause(run_id, "ada")
        night.tick()
        night.tick()
        assert paused(night, run_id) == "person"
        night.school.runs.resume(run_id, "ada")
        night.tick()
        night.school.runs.stop(run_id, "ada")
        night.tick()
        night.tick()
        assert night.get(run_id).state is RunState.STOPPED
        assert night.kinds() == ["pause person", "pause person"]

    def test_a_run_that_waits_can_be_stopped(self, night: Simulation, folder: Path) -> None:
        run_id = night.start(folder)
        night.tick()
        night.school.runs.stop(run_id, "ada")
        night.tick(2 * HOUR)
        assert night.get(run_id).state is RunState.STOPPED
        assert night.school.runs.at_work is None


class TestMachine:
    def test_heat_pauses_and_only_cooling_below_the_lower_limit_lets_it_go_on(
        self, night: Simulation, folder: Path
    ) -> None:
        run_id = at_work(night, folder)
        night.sensors.set(temperature_c=84.9)
        night.tick()
        assert night.get(run_id).state is RunState.RUNNING
        night.sensors.set(temperature_c=85.0)
        night.tick()
        assert paused(night, run_id) == "heat"
        assert "85 °C" in night.get(run_id).error
        for celsius in (84.0, 80.0, 75.0):
            night.sensors.set(temperature_c=celsius)
            night.tick()
            assert paused(night, run_id) == "heat", celsius
        night.sensors.set(temperature_c=74.9)
        night.tick()
        night.allow(run_id, 8)
        assert night.get(run_id).error == ""
        assert night.finish(run_id) == night.undisturbed(run_id)
        assert night.kinds() == ["pause heat", "finish"]

    @pytest.mark.parametrize(
        ("wrong", "right", "code"),
        [
            ({"disk_free_mb": 51_199}, {"disk_free_mb": 60_000}, "disk"),
            ({"memory_available_mb": 1023}, {"memory_available_mb": 9000}, "memory"),
            ({"on_mains": False}, {"on_mains": True}, "battery"),
        ],
    )
    def test_what_the_machine_lacks_pauses_until_it_is_back(
        self, night: Simulation, folder: Path, wrong: dict[str, object], right: dict[str, object], code: str
    ) -> None:
        run_id = at_work(night, folder)
        night.sensors.set(**wrong)
        night.tick()
        assert paused(night, run_id) == code
        second = night.start(folder)
        night.tick()
        assert night.get(second).pause_code == code
        assert night.get(second).state is RunState.PLANNED
        night.sensors.set(**right)
        night.tick()
        assert night.get(second).state is RunState.PLANNED, "the older one first"
        assert night.works(run_id)
        assert night.kinds() == [f"pause {code}", f"refuse {code}"]

    def test_a_machine_that_cannot_be_read_trains_nothing(self, night: Simulation, folder: Path) -> None:
        run_id = at_work(night, folder)
        night.sensors.lost = True
        night.tick()
        assert paused(night, run_id) == "sensors"
        assert "clinic-ai doctor" in night.get(run_id).error
        night.tick()
        assert paused(night, run_id) == "sensors"
        night.sensors.lost = False
        night.tick()
        assert night.works(run_id)

    def test_a_gpu_that_does_nothing_has_stalled_and_waits_for_a_person(self, home: Home, folder: Path) -> None:
        gpu = GpuReading(index=0, name="T4", memory_mb=16000, memory_used_mb=500, use_percent=90.0, power_w=70.0)
        with simulated(home) as night:
            night.sensors.set(gpus=(gpu,))
            run_id = at_work(night, folder)
            night.sensors.set(gpus=(gpu.model_copy(update={"use_percent": 0.0}),))
            for _ in range(5):
                night.tick(59.0)
            assert night.get(run_id).state is RunState.RUNNING
            night.tick(59.0)
            night.tick(59.0)
            assert paused(night, run_id) == "stalled"
            night.tick(HOUR)
            assert paused(night, run_id) == "stalled"
            assert {row.device for row in night.ledger()} == {"cuda"}

    def test_a_trainer_that_dies_for_want_of_memory_fails_with_its_row(self, night: Simulation, folder: Path) -> None:
        night.tick(HOUR)
        run_id = night.start(folder, die_at=3)
        night.tick(1.0)
        run = night.end(run_id)
        assert run.state is RunState.FAILED
        assert night.kinds() == ["fail"]
        assert "SIGKILL" in night.ledger()[-1].sentence

    def test_progress_says_how_the_machine_fares(self, night: Simulation, folder: Path) -> None:
        run_id = at_work(night, folder)
        night.tick()
        run = night.until(run_id, lambda run: bool(run.progress and run.progress["temperature_c"]))
        assert run.progress is not None
        assert (run.progress["temperature_c"], run.progress["power_w"]) == (55.0, WATTS)
        assert run.progress["memory_mb"] > 5


class TestPatients:
    def test_a_burst_of_studies_pauses_once_and_quiet_lets_it_go_on(self, night: Simulation, folder: Path) -> None:
        run_id = at_work(night, folder)
        night.study_waits = True
        night.tick(0.1)
        assert paused(night, run_id) == "study"
        assert "patients come first" in night.get(run_id).error
        for _ in range(5):
            night.study_waits = True
            night.tick(10.0)
            night.study_waits = False
            night.tick(30.0)
            assert paused(night, run_id) == "study"
        night.tick(29.0)
        assert paused(night, run_id) == "study"
        night.tick(2.0)
        assert night.finish(run_id) == night.undisturbed(run_id)
        assert night.kinds() == ["pause study", "finish"]

    def test_one_that_does_not_listen_is_killed_after_its_grace_and_loses_nothing_whole(
        self, home: Home, folder: Path
    ) -> None:
        with simulated(home, settings_of(grace_s=0.2)) as night:
            run_id = at_work(night, folder, deaf=True)
            night.study_waits = True
            night.tick(0.1)
            assert paused(night, run_id) == "study"
            night.study_waits = False
            night.tick(61.0)
            assert night.finish(run_id) == night.undisturbed(run_id)

    def test_a_study_that_comes_while_a_run_is_paused_for_the_window_has_not_to_wait_longer(
        self, home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "STOP_GRACE_S", 600.0)  # the test would time out
        with simulated(home, settings_of(grace_s=0.2)) as night:
            run_id = at_work(night, folder, deaf=True)
            running = night.school.runs.at_work
            assert running is not None
            running.wish, running.why, running.code = "pause", "The window closed.", module.PauseCode.WINDOW
            night.night.make_way()
            night.school.runs.interrupt(module.PauseCode.WINDOW, "", 600.0)
            assert paused(night, run_id) == "window"

    def test_nothing_begins_while_a_study_waits(self, night: Simulation, folder: Path) -> None:
        night.tick(HOUR)
        night.study_waits = True
        run_id = night.start(folder)
        night.tick()
        assert (night.get(run_id).state, night.get(run_id).pause_code) == (RunState.PLANNED, "study")
        night.study_waits = False
        night.tick(59.0)
        assert night.get(run_id).state is RunState.PLANNED
        night.tick(2.0)
        assert night.works(run_id)


class TestBudget:
    @pytest.mark.parametrize(
        ("key", "limit", "code"),
        [
            ("kwh_per_night", 100 * KWH_A_MINUTE, "night_energy"),
            ("kwh_per_year", 100 * KWH_A_MINUTE, "year_energy"),
            ("money_per_year", 100 * KWH_A_MINUTE * 0.30, "year_money"),
        ],
    )
    def test_no_budget_is_overshot_and_none_is_left_unused(
        self, home: Home, folder: Path, key: str, limit: float, code: str
    ) -> None:
        with simulated(home, settings_of(TrainingBudget(**{key: limit}))) as night:  # type: ignore[arg-type]
            run_id = at_work(night, folder)
            ticks = 0
            while night.get(run_id).state is RunState.RUNNING:
                night.tick()
                ticks += 1
                assert ticks < 200
            assert paused(night, run_id) == code
            spent = sum(row.spent.money if "money" in key else row.spent.kwh for row in night.ledger())
            assert 0.98 * limit <= spent <= limit * 1.000001
            night.tick()
            assert paused(night, run_id) == code
            night.tick(24 * HOUR)
            if code == "night_energy":
                assert night.works(run_id)
            else:
                assert paused(night, run_id) == code

    def test_a_new_year_has_a_new_budget(self, home: Home, folder: Path) -> None:
        settings = settings_of(TrainingBudget(kwh_per_year=60 * KWH_A_MINUTE))
        with simulated(home, settings, clock=SetClock(BEFORE_THE_WINDOW + 37 * 24 * HOUR)) as night:  # 30 December
            run_id = at_work(night, folder)
            for _ in range(70):
                night.tick()
            assert paused(night, run_id) == "year_energy"
            night.tick(23 * HOUR)
            assert paused(night, run_id) == "year_energy", "31 December"
            night.tick(2 * HOUR)
            assert night.clock.now() > 1798761600.0, "2027"
            assert night.works(run_id)
            assert {row.year for row in night.ledger()} == {2026, 2027}

    def test_computation_is_charged_by_what_the_trainer_counts_and_stops_at_the_limit(
        self, home: Home, folder: Path
    ) -> None:
        with simulated(home, settings_of(TrainingBudget(pf_days_per_year=1.0))) as night:
            run_id = at_work(night, folder, paced=1, pf_days_a_step=0.1)
            steps = 1
            while night.get(run_id).state is RunState.RUNNING:
                night.tick()
                if night.get(run_id).state is RunState.RUNNING:
                    steps += 1
                    night.allow(run_id, steps)
            assert paused(night, run_id) == "year_compute"
            spent = sum(row.spent.pf_days for row in night.ledger())
            assert spent == pytest.approx(steps * 0.1)
            assert 0.9 <= spent <= 1.0

    def test_a_budget_smaller_than_one_step_is_said_in_a_sentence(self, home: Home, folder: Path) -> None:
        with simulated(home, settings_of(TrainingBudget(kwh_per_year=1e-9))) as night:
            night.tick(HOUR)
            run_id = night.start(folder, paced=5)
            night.tick(1.0)
            run = night.get(run_id)
            assert (run.state, run.pause_code) == (RunState.PLANNED, "year_energy")
            assert "(training.budget.kwh_per_year)" in run.error

    def test_what_was_spent_survives_a_crash_to_within_a_few_seconds(self, night: Simulation, folder: Path) -> None:
        at_work(night, folder)
        for _ in range(60):
            night.tick(1.0)
        kept = sum(row.spent.seconds for row in night.ledger())
        assert 54.0 <= kept <= 61.0


class TestClock:
    def test_a_clock_that_jumps_costs_nothing_and_the_window_counts_again(
        self, night: Simulation, folder: Path
    ) -> None:
        run_id = at_work(night, folder)
        night.tick()
        night.clock.jump(10 * 365 * 24 * HOUR)
        night.tick()
        before = sum(row.spent.seconds for row in night.ledger())
        assert before <= 130.0
        night.clock.jump(-20 * 365 * 24 * HOUR)
        night.tick()
        night.clock.jump(10 * 365 * 24 * HOUR)
        night.tick()
        night.tick()
        assert night.get(run_id).state is RunState.RUNNING
        assert night.works(run_id)
        assert sum(row.spent.seconds for row in night.ledger()) <= 400.0

    def test_the_ledger_begins_a_new_row_at_noon(self, home: Home, folder: Path) -> None:
        with simulated(home, settings_of(window=())) as night:
            run_id = at_work(night, folder)
            for _ in range(15):
                night.tick(HOUR)
            assert night.works(run_id)
            nights = [row.night for row in night.ledger() if row.kind == "work"]
            assert nights == ["2026-11-23", "2026-11-24"]


class TestRestart:
    def test_what_a_lost_daemon_left_goes_on_by_itself_in_the_window(self, home: Home, folder: Path) -> None:
        with simulated(home) as night:
            run_id = at_work(night, folder)
            clock = night.clock
        with simulated(home, clock=clock) as night:
            assert paused(night, run_id) == "restart"
            night.tick(1.0)
            assert night.works(run_id)
            assert night.kinds() == ["pause restart"]

    def test_power_that_fails_is_a_restart(self, home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with simulated(home) as night:
            run_id = at_work(night, folder)
            with night.school.database.write() as connection:
                connection.execute(store.runs.update().values(lease_owner="a daemon that is gone"))
            (pid,) = night.processes()
            night.school.crew.close()
            assert pid not in night.processes()
            run = night.end(run_id)
            assert run.state is RunState.FAILED
        with simulated(home, clock=night.clock) as again:
            with again.school.database.write() as connection:
                connection.execute(store.runs.update().values(state="RUNNING", lease_owner="a daemon that is gone"))
            again.school.runs.recover()
            assert paused(again, run_id) == "restart"
            again.tick()
            again.finish(run_id)


def test_where_nothing_is_planned_a_step_reads_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated(home) as night:
        night.tick()

        def never(*_: object) -> None:
            raise AssertionError("somebody asked the database")

        monkeypatch.setattr(night.school.database, "read", never)
        monkeypatch.setattr(night.school.database, "write", never)
        for _ in range(100):
            night.tick(HOUR)
        assert night.sensors.reads == 0
