"""Training runs in real children: stopped, paused, killed and gone on with, to the same weight bit for bit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny_learner
from school import School, open_school, tiny_png
from sqlalchemy import Connection
from tiny_learner import read_weight, write_model

from clinic_ai import states
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import ModelState, RunState
from clinic_ai.errors import Conflict, DatasetError, NotFound
from clinic_ai.home import Home
from clinic_ai.store import audit
from clinic_ai.store import runs as store
from clinic_ai.store.runs import RunResult, RunView
from clinic_ai.training import runs as module
from clinic_ai.training.work import NICE

UNDER_WAY = (RunState.PLANNED, RunState.RUNNING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labelled folder of twenty patients."""
    directory = tmp_path / "labelled"
    directory.mkdir()
    rows = ["file,patient_id,pneumonia"]
    for number in range(20):
        (directory / f"{number}.png").write_bytes(tiny_png(str(number)))
        rows.append(f"{number}.png,P{number},{number % 2}")
    (directory / "labels.csv").write_text("\n".join(rows) + "\n")
    return directory


def until(school: School, run_id: str, ready: Callable[[RunView], bool]) -> RunView:
    """Wait until the stored run is as wanted."""
    deadline = time.monotonic() + 30
    while not ready(run := school.runs.get(run_id)):
        assert time.monotonic() < deadline, run
        time.sleep(0.02)
    return run


def at_step(number: int) -> Callable[[RunView], bool]:
    return lambda run: run.progress is not None and run.progress["step"] >= number


def finish(school: School, run_id: str) -> tuple[RunView, float]:
    """Wait for the end of a run that must finish; return it and the weight it learned."""
    run = school.runs.wait(run_id, 60)
    assert run.state is RunState.FINISHED, run.error
    candidate = RunResult.model_validate(run.result).candidate
    assert candidate is not None
    return run, read_weight(Path(school.registry.loaded(candidate).directory))


def trainers(school: School) -> list[int]:
    return [child.pid for child in school.crew.living() if child.spec.kind == "trainer"]


def undisturbed(school: School, folder: Path) -> float:
    return finish(school, school.runs.start("tiny", folder, {}, "ada"))[1]


class TestFinished:
    def test_the_result_is_a_candidate_with_scores_and_nothing_is_promoted(self, school: School, folder: Path) -> None:
        run_id = school.runs.start("tiny", folder, {"steps": 7}, "ada")
        run, weight = finish(school, run_id)
        assert run.plan is not None
        assert run.plan["steps"] == 20
        assert run.progress is not None
        assert run.progress["step"] == 7
        result = RunResult.model_validate(run.result)
        assert result.scores is not None
        assert result.scores.values == {"weight": weight}
        assert 0 < weight < 1
        (model,) = school.registry.list_models()
        assert (model.state, model.version, model.imported_by) == (ModelState.CANDIDATE, run_id, f"run {run_id}")
        assert school.registry.active("tiny") == ()
        assert trainers(school) == []
        with school.database.read() as connection:
            assert audit.first_break(connection) is None
        with pytest.raises(Conflict, match="was never held against the model in use"):
            school.registry.promote("tiny", model.name, model.version, "ada")
        assert school.registry.active("tiny") == ()

    def test_runs_go_one_at_a_time_in_order(self, school: School, folder: Path) -> None:
        first = school.runs.start("tiny", folder, {"hold_at": 3}, "ada")
        second = school.runs.start("tiny", folder, {}, "ada")
        third = school.runs.start("tiny", folder, {}, "ada")
        until(school, first, at_step(3))
        assert len(trainers(school)) == 1
        assert [school.runs.get(r).state for r in (first, second, third)] == [RunState.RUNNING, *UNDER_WAY[:1] * 2]
        school.runs.stop(third, "ada")
        assert school.runs.get(third).state is RunState.STOPPED
        school.runs.stop(first, "ada")
        finish(school, second)
        assert [run.run_id for run in school.runs.list_runs()] == [third, second, first]

    def test_the_child_is_nice_and_has_no_network(self, school: School, folder: Path) -> None:
        run_id = school.runs.start("tiny", folder, {"hold_at": 1}, "ada")
        until(school, run_id, at_step(1))
        (pid,) = trainers(school)
        assert psutil.Process(pid).nice() >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        limits = Path(f"/proc/{pid}/limits").read_text()
        (data,) = [line.split() for line in limits.splitlines() if line.startswith("Max data size")]
        assert int(data[3]) == school.runs.settings.max_memory_mb << 20
        assert school.runs.work.spec(school.manifests["tiny"]).confinement.network is False
        school.runs.stop(run_id, "ada")


class TestStopAndResume:
    def test_a_stopped_run_goes_on_to_the_same_weight(self, school: School, folder: Path) -> None:
        expected = undisturbed(school, folder)
        run_id = school.runs.start("tiny", folder, {"hold_at": 5}, "ada")
        until(school, run_id, at_step(5))
        school.runs.stop(run_id, "ada")
        stopped = school.runs.get(run_id)
        assert stopped.state is RunState.STOPPED
        assert trainers(school) == []
        school.runs.resume(run_id, "ada")
        run, weight = finish(school, run_id)
        assert weight == expected
        assert run.started_at == stopped.started_at

    def test_a_paused_run_has_no_process(self, school: School, folder: Path) -> None:
        expected = undisturbed(school, folder)
        run_id = school.runs.start("tiny", folder, {"hold_at": 5}, "ada")
        until(school, run_id, at_step(5))
        school.runs.pause(run_id, "bob")
        run = school.runs.get(run_id)
        assert (run.state, run.error) == (RunState.PAUSED, "Paused by bob.")
        assert trainers(school) == []
        with pytest.raises(Conflict, match="only a running one can be paused"):
            school.runs.pause(run_id, "bob")
        school.runs.resume(run_id, "ada")
        run, weight = finish(school, run_id)
        assert (weight, run.error) == (expected, "")

    def test_one_that_does_not_stop_is_killed(
        self, school: School, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = undisturbed(school, folder)
        monkeypatch.setattr(module, "STOP_GRACE_S", 0.3)
        run_id = school.runs.start("tiny", folder, {"hold_at": 5, "stubborn": True}, "ada")
        until(school, run_id, at_step(5))
        school.runs.stop(run_id, "ada")
        assert school.runs.get(run_id).state is RunState.STOPPED
        assert trainers(school) == []
        school.runs.resume(run_id, "ada")
        assert finish(school, run_id)[1] == expected

    def test_a_resumed_run_starts_from_the_base_it_was_planned_with(
        self, school: School, folder: Path, tmp_path: Path
    ) -> None:
        for version, weight in (("1", 0.25), ("2", 500.0)):
            write_model(tmp_path / version, weight, version=version)
            school.registry.import_directory(tmp_path / version, "ada")
        school.registry.promote("tiny", "scalar", "1", "ada")
        expected = undisturbed(school, folder)
        run_id = school.runs.start("tiny", folder, {"hold_at": 1}, "ada")
        until(school, run_id, at_step(1))
        school.runs.stop(run_id, "ada")
        (school.home.runs / run_id / "checkpoint.json").unlink()
        school.registry.promote("tiny", "scalar", "2", "ada")
        school.runs.resume(run_id, "ada")
        assert finish(school, run_id)[1] == expected

    def test_what_is_finished_or_unknown_cannot_be_stopped_or_resumed(self, school: School, folder: Path) -> None:
        run_id = school.runs.start("tiny", folder, {}, "ada")
        finish(school, run_id)
        for call in (school.runs.stop, school.runs.resume, school.runs.pause):
            with pytest.raises(Conflict):
                call(run_id, "ada")
            with pytest.raises(NotFound, match="no training run R-none"):
                call("R-none", "ada")
        assert school.runs.get(run_id).state is RunState.FINISHED


class TestFailure:
    def test_a_child_killed_in_the_middle_fails_the_run_which_goes_on_to_the_same_weight(
        self, school: School, folder: Path
    ) -> None:
        expected = undisturbed(school, folder)
        for step in (1, 9, 20):
            run_id = school.runs.start("tiny", folder, {"die_at": step}, "ada")
            run = school.runs.wait(run_id, 60)
            assert run.state is RunState.FAILED
            assert "was killed by SIGKILL. Its checkpoints are kept" in run.error
            school.runs.resume(run_id, "ada")
            assert finish(school, run_id)[1] == expected

    def test_the_kernel_or_a_person_kills_it_from_outside(self, school: School, folder: Path) -> None:
        run_id = school.runs.start("tiny", folder, {"hold_at": 5}, "ada")
        until(school, run_id, at_step(5))
        os.kill(trainers(school)[0], signal.SIGKILL)
        assert "SIGKILL" in school.runs.wait(run_id, 30).error
        after = school.runs.start("tiny", folder, {}, "ada")
        finish(school, after)

    @pytest.mark.parametrize(
        ("recipe", "slot"),
        [
            ({}, "main"),
            ({"tier": "intensive"}, "second"),
            ({"tier": "other"}, "main"),
            ({"slot": "second"}, "second"),
            ({"tier": "shipped"}, "third"),
            ({"condition": "cardiomegaly"}, "second"),
        ],
    )
    def test_it_starts_from_the_active_model_of_its_tier_or_slot_or_from_a_spare_one(
        self, school: School, folder: Path, tmp_path: Path, recipe: dict[str, int | str | bool], slot: str
    ) -> None:
        said = {"scalar": ("main", "fast", "pneumonia"), "vector": ("second", "intensive", "cardiomegaly")}
        for name, (where, tier, condition) in said.items():
            write_model(tmp_path / name, 1.0, name=name, slot=where, tier=tier, condition=condition)
            school.registry.import_directory(tmp_path / name, "ada")
            school.registry.promote("tiny", name, "1", "ada")
        write_model(tmp_path / "spare", 1.0, name="spare", slot="third", tier="shipped", reference=True)
        school.registry.import_directory(tmp_path / "spare", "ada")
        run = school.runs.wait(school.runs.start("tiny", folder, recipe, "ada"), 60)
        assert run.plan is not None
        assert run.plan["base"]["slot"] == slot

    @pytest.mark.parametrize(
        ("recipe", "reason"),
        [
            ({"rubbish_at": 3}, "reported progress that is none"),
            ({"pf_days_a_step": -1.0}, "reported progress that is none"),
            ({"pf_days_a_step": 1e300}, "reported progress that is none"),
            ({"plan_steps": 10**400}, "does not have the promised shape (steps:"),
            ({"plan_seconds": -1.0}, "does not have the promised shape (seconds:"),
            ({"plan_disk_mb": -1}, "does not have the promised shape (disk_mb:"),
            ({"elsewhere": True}, "not in its run directory"),
            ({"clinical": True}, "calls itself a reference model or fit for clinical use"),
            ({"slot": "none"}, "is active in the slot none"),
            ({"plugin": "xray"}, "made a model for xray: xray/trained/"),
        ],
    )
    def test_a_trainer_that_lies_fails_with_its_reason(
        self, school: School, folder: Path, recipe: dict[str, int | str | bool], reason: str
    ) -> None:
        run = school.runs.wait(school.runs.start("tiny", folder, recipe, "ada"), 30)
        assert run.state is RunState.FAILED
        assert reason in run.error
        assert school.registry.list_models() == []
        assert trainers(school) == []

    def test_what_the_trainer_refuses_to_plan_fails_in_its_words(self, school: School, tmp_path: Path) -> None:
        folder = tmp_path / "two"
        folder.mkdir()
        for number in range(2):
            (folder / f"{number}.png").write_bytes(tiny_png(str(number)))
        (folder / "labels.csv").write_text("file,patient_id,pneumonia\n0.png,A,1\n1.png,B,0\n")
        run = school.runs.wait(school.runs.start("tiny", folder, {}, "ada"), 30)
        assert (run.state, run.error) == (RunState.FAILED, "Two images are too few. Label more.")
        assert run.plan is None

    def test_a_dataset_damaged_meanwhile_fails_the_run(self, school: School, folder: Path) -> None:
        first = school.runs.start("tiny", folder, {"hold_at": 1}, "ada")
        second = school.runs.start("tiny", folder, {}, "ada")
        until(school, first, at_step(1))
        next(p for p in (school.home.datasets / "objects").rglob("*") if p.is_file()).unlink()
        school.runs.stop(first, "ada")
        run = school.runs.wait(second, 30)
        assert run.state is RunState.FAILED
        assert "is damaged: 1 of 20 images" in run.error

    def test_what_cannot_be_started_is_refused_at_once(self, school: School, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no plugin gout"):
            school.runs.start("gout", folder, {}, "ada")
        with pytest.raises(DatasetError, match="not a folder"):
            school.runs.start("tiny", tmp_path / "nowhere", {}, "ada")
        untaught: PluginManifest = tiny_learner.manifest().model_copy(update={"trainer": None})
        school.manifests["tiny"] = untaught
        with pytest.raises(Conflict, match="cannot learn"):
            school.runs.start("tiny", folder, {}, "ada")
        assert school.runs.list_runs() == []


class TestDaemon:
    def test_a_clean_end_pauses_the_run_and_leaves_the_planned_ones(self, home: Home, folder: Path) -> None:
        school = open_school(home)
        held = school.runs.start("tiny", folder, {"hold_at": 5}, "ada")
        planned = school.runs.start("tiny", folder, {}, "ada")
        until(school, held, at_step(5))
        school.close()
        again = open_school(home)
        assert again.runs.get(held).state is RunState.PAUSED
        assert f"clinic-ai train resume {held}" in again.runs.get(held).error
        assert again.runs.get(planned).state is RunState.PLANNED
        again.runs.recover()
        _, expected = finish(again, planned)
        assert again.runs.get(held).state is RunState.PAUSED, "it goes on only when asked"
        again.runs.resume(held, "ada")
        assert finish(again, held)[1] == expected
        again.close()

    def test_a_killed_daemon_takes_its_trainer_with_it_and_the_run_can_go_on(
        self, home: Home, folder: Path, school: School
    ) -> None:
        expected = undisturbed(school, folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "training_daemon", str(home.path), str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        until(school, run_id, at_step(5))
        (trainer,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        process.stdout.close()
        psutil.wait_procs([trainer], timeout=10)
        assert not trainer.is_running()
        assert school.runs.get(run_id).state is RunState.RUNNING
        school.runs.recover()
        run = school.runs.get(run_id)
        assert run.state is RunState.PAUSED
        assert "The appliance ended during this run" in run.error
        school.runs.resume(run_id, "ada")
        assert finish(school, run_id)[1] == expected


def test_the_store_moves_a_run_by_the_table_or_not_at_all(school: School, folder: Path) -> None:
    dataset = school.runs.datasets.freeze(tiny_learner.manifest(), folder, "ada")
    moves: dict[str, Callable[[Connection, str], None]] = {
        "start": lambda c, run_id: store.begin(c, run_id, "me"),
        "pause": lambda c, run_id: store.pause(c, run_id, "why", "ada"),
        "resume": lambda c, run_id: store.resume(c, run_id, "ada"),
        **{
            event: lambda c, run_id, event=event: store.end(c, run_id, event, actor="ada")  # type: ignore[misc]
            for event in ("finish", "stop", "fail")
        },
    }
    assert set(moves) == {event for _, event in states.RUN}
    for state, (event, move) in itertools.product(RunState, moves.items()):
        with school.database.write() as connection:
            run_id = store.add_run(connection, "tiny", dataset.dataset_id, {}, "ada")
            connection.execute(store.runs.update().where(store.runs.c.run_id == run_id).values(state=state.value))
        rows = _audit_rows(school)
        if (state, event) in states.RUN:
            with school.database.write() as connection:
                move(connection, run_id)
            assert school.runs.get(run_id).state is states.RUN[(state, event)]
            assert _audit_rows(school) == rows + 1
        else:
            with pytest.raises(Conflict), school.database.write() as connection:
                move(connection, run_id)
            assert school.runs.get(run_id).state is state, (state, event)
            assert _audit_rows(school) == rows


def _audit_rows(school: School) -> int:
    with school.database.read() as connection:
        return len(connection.execute(audit.audit.select()).all())
