"""What is trained by itself: due entries, those that are not, wrong ones, missed nights, and what is told of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_learner
from nights import Simulation, labelled_folder, settings_of, simulated
from school import open_school

from clinic_ai.domain import RunState
from clinic_ai.home import Home, init_home
from clinic_ai.settings import TrainingBudget, TrainingPlanEntry
from clinic_ai.settings.training import recipe_value
from clinic_ai.store import alerts

HOUR, DAY = 3600.0, 86400.0
ENTRY = TrainingPlanEntry(plugin="tiny", sources=("labels",), min_new=10, every_days=7, recipe=("paced=5", "x=0.5"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home with twenty labelled images that it has frozen once."""
    home = init_home(tmp_path_factory.mktemp("taught") / "home")
    school = open_school(home)
    school.runs.datasets.freeze(tiny_learner.manifest(), labelled_folder(home.labels / "tiny"), "ada")
    school.close()
    return home


@pytest.fixture
def home(taught: Home, tmp_path: Path) -> Home:
    return Home(shutil.copytree(taught.path, tmp_path / "home", symlinks=True))


@pytest.fixture
def night(home: Home) -> Iterator[Simulation]:
    with simulated(home, settings_of(plan=(ENTRY,))) as simulation:
        yield simulation


def planned(night: Simulation) -> list[str]:
    return [run.run_id for run in night.school.runs.list_runs() if run.origin == "night"]


def told(night: Simulation) -> list[tuple[str, str]]:
    with night.school.database.read() as connection:
        return [(alert.subject, alert.sentence) for alert in alerts.open_alerts(connection)]


def why(night: Simulation, name: str = "tiny") -> tuple[bool, str]:
    (found,) = [row for row in night.night.tonight().expected if row.name == name]
    return found.due, found.sentence


def settle(night: Simulation, ticks: int = 3) -> None:
    for _ in range(ticks):
        night.tick(61.0)


class TestDue:
    def test_what_is_due_is_gathered_and_trained_in_the_window_by_its_recipe(self, night: Simulation) -> None:
        settle(night)
        assert planned(night) == [], "before the window"
        assert why(night) == (True, "20 labelled images are new; a run needs 10.")
        night.tick(HOUR)
        (run_id,) = planned(night)
        night.tick(1.0)
        run = night.at_step(run_id, 5)
        assert (run.origin, run.plan_key, run.recipe) == ("night", "tiny", {"paced": 5, "x": 0.5})
        assert why(night) == (False, f"Its run {run_id} is RUNNING.")
        night.finish(run_id)
        settle(night)
        assert planned(night) == [run_id], "not twice"

    def test_it_waits_for_its_days_and_then_for_new_labels(self, night: Simulation, home: Home) -> None:
        night.tick(HOUR)
        (run_id,) = planned(night)
        night.tick(1.0)
        night.finish(run_id)
        night.tick(DAY)
        assert why(night) == (False, "Its last run began 1 night ago; 7 have to lie between two.")
        labelled_folder(home.labels / "tiny", range(20, 29))
        night.tick(6 * DAY)
        assert planned(night) == [run_id]
        said = f"9 labelled images are new since its run {run_id}, which is FINISHED; a run needs 10 (min_new)."
        assert why(night) == (False, said)
        labelled_folder(home.labels / "tiny", range(29, 30))
        night.tick(61.0)
        assert len(planned(night)) == 2

    def test_a_missed_night_is_made_up_for_once(self, night: Simulation) -> None:
        night.clock.go(30 * DAY)  # the machine was off
        night.tick(61.0)
        assert planned(night) == []
        night.tick(HOUR)
        assert len(planned(night)) == 1
        night.tick(1.0)
        night.finish(planned(night)[0])
        settle(night)
        assert len(planned(night)) == 1

    def test_one_that_failed_is_tried_again_only_with_new_labels(self, home: Home) -> None:
        entry = ENTRY.model_copy(update={"recipe": ("die_at=3",), "every_days": 0.0})
        with simulated(home, settings_of(plan=(entry,))) as night:
            night.tick(HOUR)
            (run_id,) = planned(night)
            night.tick(1.0)
            assert night.end(run_id).state is RunState.FAILED
            ((subject, sentence),) = told(night)
            assert subject == "tiny"
            assert f"{run_id} of tiny failed" in sentence
            settle(night)
            night.tick(DAY)
            assert planned(night) == [run_id]
            assert "0 labelled images are new" in why(night)[1]
            labelled_folder(home.labels / "tiny", range(20, 30))
            night.tick(61.0)
            assert len(planned(night)) == 2

    def test_a_clock_that_was_years_ahead_does_not_keep_it_for_years(self, night: Simulation, home: Home) -> None:
        night.clock.jump(3 * 365 * DAY)
        night.tick(HOUR)
        (run_id,) = planned(night)
        night.tick(1.0)
        night.finish(run_id)
        night.clock.jump(-3 * 365 * DAY)
        settle(night)
        assert planned(night) == [run_id], "nothing is new"
        labelled_folder(home.labels / "tiny", range(20, 30))
        night.tick(61.0)
        assert len(planned(night)) == 2

    def test_nothing_is_gathered_while_a_study_waits(self, night: Simulation) -> None:
        night.study_waits = True
        night.tick(HOUR)
        settle(night)
        assert planned(night) == []
        night.study_waits = False
        night.tick(61.0)
        assert len(planned(night)) == 1


class TestWrong:
    def test_a_wrong_entry_is_one_alert_and_the_night_goes_on_with_the_rest(self, home: Home) -> None:
        contradictory = home.labels / "tiny" / "labels.csv"
        contradictory.write_text(contradictory.read_text() + "0.png,P0,1\n")
        unknown = TrainingPlanEntry(plugin="gout", priority=5)
        with simulated(home, settings_of(plan=(ENTRY, unknown))) as night:
            night.tick(HOUR)
            settle(night, 5)
            assert planned(night) == []
            assert sorted(subject for subject, _ in told(night)) == ["gout", "tiny"]
            assert "There is no plugin gout." in dict(told(night))["gout"]
            assert not why(night)[0]
            contradictory.write_text(contradictory.read_text().replace("0.png,P0,1\n", "", 1))
            night.tick(61.0)
            assert planned(night) == [], "one try a night"
            night.tick(DAY)
            assert len(planned(night)) == 1
            assert [subject for subject, _ in told(night)] == ["gout"]

    def test_one_patient_is_no_dataset(self, home: Home) -> None:
        shutil.rmtree(home.labels / "tiny")
        folder = labelled_folder(home.labels / "tiny")
        table = folder / "labels.csv"
        lines = [line.split(",") for line in table.read_text().splitlines()]
        table.write_text(
            "\n".join(",".join([row[0], "patient_id" if row[1] == "patient_id" else "P1", row[2]]) for row in lines)
        )
        with simulated(home, settings_of(plan=(ENTRY,))) as night:
            night.tick(HOUR)
            settle(night, 5)
            assert planned(night) == []
            ((subject, sentence),) = told(night)
            assert subject == "tiny"
            assert "patient" in sentence
            assert "It was tried this night" in why(night)[1]

    def test_a_run_whose_step_is_larger_than_the_budget_does_not_keep_the_others_waiting(self, home: Home) -> None:
        large = TrainingPlanEntry(
            plugin="tiny", condition="pneumonia", sources=("labels",), priority=5, recipe=("paced=1", "planned_s=1e9")
        )
        with simulated(home, settings_of(TrainingBudget(kwh_per_night=1.0), plan=(ENTRY, large))) as night:
            night.tick(HOUR)
            (first,) = planned(night)
            night.tick(1.0)
            night.at_step(first, 1)
            settle(night, 4)
            run = night.get(first)
            assert (run.state, run.pause_code) == (RunState.PAUSED, "night_energy")
            assert "smaller than one step" in run.error
            (second,) = set(planned(night)) - {first}
            night.at_step(second, 5)

    def test_a_run_that_a_person_has_to_resume_is_told_to_people(self, home: Home) -> None:
        entry = ENTRY.model_copy(update={"recipe": ("hold_at=2",)})
        with simulated(home, settings_of(plan=(entry,))) as night:
            night.tick(HOUR)
            (run_id,) = planned(night)
            night.tick(1.0)
            night.at_step(run_id, 2)
            night.sensors.set(cpu_percent=0.0)
            for _ in range(7):
                night.tick(59.0)
            assert night.get(run_id).pause_code == "stalled"
            ((subject, sentence),) = told(night)
            assert subject == "tiny"
            assert f"{run_id} of tiny does not go on by itself: The processor has done nothing" in sentence
            night.sensors.set(cpu_percent=60.0)
            night.school.runs.resume(run_id, "ada")
            night.tick(1.0)
            night.finish(run_id)
            assert told(night) == []

    def test_with_the_budget_used_up_one_run_is_planned_and_waits(self, home: Home) -> None:
        with simulated(home, settings_of(TrainingBudget(kwh_per_year=1e-6), plan=(ENTRY,))) as night:
            due, sentence = why(night)
            assert not due
            assert sentence.startswith("The budget of a year, 1e-06 kWh (training.budget.kwh_per_year), is smaller")
            night.tick(HOUR)
            settle(night)
            (run_id,) = planned(night)
            assert night.get(run_id).pause_code == "year_energy"


class TestTold:
    def test_the_plan_tells_what_it_will_cost_before_anything_is_frozen(self, night: Simulation) -> None:
        before = night.school.runs.datasets.list_datasets()
        tonight = night.night.tonight()
        (found,) = tonight.expected
        assert found.estimate is not None
        assert (found.estimate.steps, found.estimate.learned_from) == (20, 0)
        assert found.estimate.seconds == 1.0
        assert night.school.runs.datasets.list_datasets() == before
        assert tonight.opens_at == night.clock.now() + HOUR
        assert tonight.closes_at == night.clock.now() + 9 * HOUR

    def test_a_glance_says_the_same_but_asks_no_trainer(self, night: Simulation) -> None:
        asked, glance = night.night.tonight(), night.night.outlook()
        (told,), (seen,) = asked.expected, glance.expected
        assert (seen.name, seen.due, seen.sentence) == (told.name, told.due, told.sentence)
        assert seen.estimate is None
        assert "before its trainer is asked" in seen.untold
        assert (glance.opens_at, glance.closes_at, glance.configured) == (asked.opens_at, asked.closes_at, True)
        assert night.processes() == []

    def test_a_glance_looks_at_the_labels_again_after_a_while(self, night: Simulation, home: Home) -> None:
        before = night.night.outlook().expected
        labelled_folder(home.labels / "tiny", range(20, 50))
        assert night.night.outlook().expected == before
        night.clock.go(31.0)
        (found,) = night.night.outlook().expected
        assert found.sentence.startswith("50 labelled images")

    def test_it_says_that_a_run_will_take_longer_than_it_may(self, home: Home) -> None:
        entry = ENTRY.model_copy(update={"recipe": ("planned_s=7200",)})
        with simulated(home, settings_of(plan=(entry,), max_seconds=3600.0)) as night:
            (found,) = night.night.tonight().expected
            assert found.due
            assert "longer than the 3600 s of training.max_seconds" in found.remedy

    def test_it_learns_from_what_earlier_runs_cost(self, night: Simulation, home: Home) -> None:
        night.tick(HOUR)
        (run_id,) = planned(night)
        night.tick(1.0)
        night.at_step(run_id, 5)
        night.tick(99.0)
        night.finish(run_id)
        labelled_folder(home.labels / "tiny", range(20, 30))
        night.clock.go(7 * DAY)
        (found,) = night.night.tonight().expected
        assert found.estimate is not None
        assert found.estimate.learned_from == 1
        assert 99.0 <= found.estimate.seconds <= 103.0, "the trainer said 1 s"
        spending = night.night.spending()
        (compared,) = spending.compared
        assert (compared.run_id, compared.planned_seconds) == (run_id, 1.0)
        assert compared.spent.seconds == pytest.approx(found.estimate.seconds)
        assert spending.tonight.seconds == 0.0
        assert spending.this_year.seconds == pytest.approx(compared.spent.seconds)
        assert [limit.limit for limit in spending.limits] == [0.0] * 4

    def test_of_a_run_at_work_nothing_else_is_asked_of_trainers(self, night: Simulation) -> None:
        night.tick(HOUR)
        (run_id,) = planned(night)
        night.tick(1.0)
        night.at_step(run_id, 5)
        second = night.start(night.school.home.labels / "tiny")
        rows = {row.name: row for row in night.night.tonight().expected}
        assert rows[run_id].estimate is not None
        assert rows[second].untold == "What it will cost is not asked while a run is at work."
        assert not rows["tiny"].due


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("0.5", 0.5), ("true", True), ("false", False), ("fast", "fast"), ("1e-4", 1e-4)]
)
def test_a_recipe_of_the_settings_is_typed_as_on_the_command_line(text: str, value: float | str) -> None:
    found = recipe_value(text)
    assert (found, type(found)) == (value, type(value))
