"""The job table: leases, retries, waits and what follows, on a real database."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from execution_stage import CT, MODEL, Stage
from sqlalchemy import event, insert, update
from sqlalchemy.exc import OperationalError

from clinic_ai.contract import Condition
from clinic_ai.domain import (
    CloseCode,
    JobKind,
    JobState,
    StudyFacts,
    StudyState,
)
from clinic_ai.errors import ChildDied, ChildRefused, ClinicError, Conflict, HomeError, InputError
from clinic_ai.execution import MAX_INTERRUPTIONS
from clinic_ai.settings import Settings
from clinic_ai.settings.model import ExecutionSettings
from clinic_ai.store import alerts, artefacts, jobs, studies, tables
from clinic_ai.store.audit import first_break
from clinic_ai.waiting import memory_in_use, no_model
from clinic_ai.wire import DISK_FULL


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "clinic.db")


def test_a_closed_study_is_analysed_and_reported(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    analyse, report = stage.jobs(study_id)
    assert (analyse.kind, report.kind) == (JobKind.ANALYSE, JobKind.REPORT)
    assert analyse.models == (MODEL,)
    assert analyse.policy_hash == "b" * 64
    assert analyse.rule
    with stage.database.read() as connection:
        assert first_break(connection) is None


def test_a_study_nobody_claims_is_kept_and_can_be_routed_later(stage: Stage) -> None:
    study_id = stage.close_study("MR")
    stage.work()
    assert stage.state(study_id) is StudyState.UNROUTED
    assert stage.wait(study_id) == "no_rule"
    stage.manifests = {"echo": CT.model_copy(update={"claims": (Condition(modality=("MR",)),)})}
    assert study_id in stage.execution.retry(study_id, "tech")
    stage.work()
    assert stage.state(study_id) is StudyState.DONE


def test_a_failure_that_may_pass_is_tried_again(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [ChildDied("it died"), ChildDied("it died again")]
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert [job.attempt for job in stage.analyse.ran] == [1, 2, 3]


def test_attempts_come_to_an_end_with_an_alert(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [ChildDied(f"death {n}") for n in range(3)]
    stage.work()
    assert stage.state(study_id) is StudyState.FAILED
    assert stage.wait(study_id) == "failed"
    with stage.database.read() as connection:
        assert [alert.subject for alert in alerts.open_alerts(connection)] == [study_id]
    stage.execution.retry(study_id, "tech")
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    with stage.database.read() as connection:
        assert not alerts.open_alerts(connection)


@pytest.mark.parametrize(
    "error",
    [InputError("odd", "The image is odd."), ChildRefused("odd", "It is odd.", retryable=False)],
    ids=["input", "refusal"],
)
def test_a_failure_of_the_input_is_not_repeated(stage: Stage, error: ClinicError) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [error]
    stage.work()
    assert stage.state(study_id) is StudyState.FAILED
    assert len(stage.analyse.ran) == 1


def test_a_full_disk_costs_nobody_an_end(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [HomeError("The disk is full."), OSError(errno.ENOSPC, "full")] * 5
    stage.analyse.failures.append(ChildRefused(DISK_FULL, "The disk is full.", retryable=True))
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert {job.attempt for job in stage.analyse.ran} == {1}


@pytest.mark.parametrize("error", [KeyError("Jane Doe"), OSError(errno.EMFILE, "Too many open files")])
def test_what_nobody_foresaw_costs_an_attempt_and_leaves_no_lease(stage: Stage, error: Exception) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [error]
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert [job.attempt for job in stage.analyse.ran] == [1, 2]
    stage.execution.retry(study_id, "dr")
    stage.analyse.failures = [error] * 3
    stage.work()
    assert stage.state(study_id) is StudyState.FAILED
    assert all("Jane" not in job.error for job in stage.jobs(study_id, 2))


def test_a_job_whose_end_cannot_be_recorded_returns_to_the_queue(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.execution.route_closed()

    with stage.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit_pages(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    def fill_the_disk() -> None:
        """Let the database grow no more, as on a full disk, and the analysis be larger than what is left."""
        stage.database.close()
        event.listen(stage.database._engine, "connect", limit_pages)

    stage.analyse.during = fill_the_disk
    stage.analyse.failures = [ChildDied("x" * 100_000)]
    with pytest.raises(OperationalError, match="full"):
        stage.execution.step(JobKind.ANALYSE)
    [job] = stage.jobs(study_id)
    assert job.state is JobState.LEASED
    event.remove(stage.database._engine, "connect", limit_pages)
    stage.database.close()
    stage.analyse.during = lambda: None
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert [job.attempt for job in stage.analyse.ran] == [1, 1]


def test_one_study_that_cannot_be_routed_keeps_no_other_waiting(stage: Stage) -> None:
    poison, sound = stage.close_study(priority=1), stage.close_study()
    with stage.database.write() as connection:
        connection.execute(
            insert(tables.jobs).values(job_id="x", kind="?", study_id=poison, version=1, state="?", created_at=0.0)
        )
        version = studies.open_next_version(connection, poison)
        studies.close_version(
            connection, poison, version, facts=StudyFacts(), code=CloseCode.QUIET, reason="late", actor="test"
        )
    with pytest.raises(ValueError, match="valid JobKind"):
        stage.execution.route_closed()
    assert stage.state(sound) is StudyState.ROUTED


def test_a_plugin_does_one_job_at_a_time_and_another_learns_of_it(stage: Stage) -> None:
    other = CT.model_copy(update={"name": "other", "claims": (Condition(modality=("MR",)),)})
    stage.manifests = {"echo": CT, "other": other}
    for modality in ("CT", "CT", "MR"):
        stage.close_study(modality)
    stage.execution.route_closed()

    def meanwhile() -> None:
        stage.analyse.during = lambda: None
        assert stage.execution.step(JobKind.ANALYSE)
        assert not stage.execution.step(JobKind.ANALYSE)  # the second CT has to wait for the first

    stage.analyse.during = meanwhile
    stage.execution.step(JobKind.ANALYSE)
    assert [job.plugin for job in stage.analyse.ran] == ["echo", "other"]
    assert stage.analyse.beside[:2] == [set(), {"echo"}]


def test_a_study_says_what_it_waits_for_as_long_as_one_of_its_plugins_waits(stage: Stage) -> None:
    stage.manifests = {"echo": CT, "other": CT.model_copy(update={"name": "other"})}
    stage.analyse.wait = {"echo": no_model("echo")}
    study_id = stage.close_study()
    stage.work()
    assert [job.plugin for job in stage.analyse.ran] == ["other"]
    assert stage.state(study_id) is StudyState.ROUTED
    assert stage.wait(study_id) == "no_model"
    with stage.database.read() as connection:
        assert [(a.code, a.subject) for a in alerts.open_alerts(connection)] == [("plugin_waits", "echo")]
    stage.analyse.wait = {}
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    with stage.database.read() as connection:
        assert not alerts.open_alerts(connection)


def test_what_passes_by_itself_raises_no_alert(stage: Stage) -> None:
    stage.analyse.wait = {"echo": memory_in_use("echo", 300)}
    study_id = stage.close_study()
    stage.work()
    assert stage.wait(study_id) == "memory_in_use"
    with stage.database.read() as connection:
        assert not alerts.open_alerts(connection)


def test_stopping_fails_no_job_even_if_it_wanted_a_child_of_a_closed_crew(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.execution.route_closed()
    stage.analyse.failures = [Conflict("The appliance is stopping.")]
    stage.analyse.during = stage.execution.ask_to_stop
    stage.execution.step(JobKind.ANALYSE)
    [job] = stage.jobs(study_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_a_clock_set_back_holds_no_job_up(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.failures = [ChildDied("it died")]
    stage.execution.route_closed()
    stage.execution.step(JobKind.ANALYSE)
    with stage.database.write() as connection:
        connection.execute(update(tables.jobs).values(not_before=time.time() + 1e6))
    stage.work()
    assert stage.state(study_id) is StudyState.DONE


def test_a_failed_attempt_for_a_superseded_version_is_the_last(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.work()
    stage.execution.retry(study_id, "dr")
    stage.execution.route_closed()
    stage.analyse.failures = [ChildDied("it died")]

    def supersede() -> None:
        stage.execution.reroute(study_id, "dr")

    stage.analyse.during = supersede
    stage.execution.step(JobKind.ANALYSE)
    [job] = stage.jobs(study_id, 2)
    assert job.state is JobState.CANCELLED


def test_what_was_done_under_other_rules_has_no_say_after_a_retry(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.report.failures = [InputError("odd", "It is odd.")]
    stage.work()
    assert stage.state(study_id) is StudyState.FAILED
    stage.manifests = {"other": CT.model_copy(update={"name": "other"})}
    stage.execution.retry(study_id, "dr")
    stage.work()
    with stage.database.read() as connection:
        newest = studies.get_study(connection, study_id)
        spoke = [analysis.plugin for _, analysis in jobs.analyses_of(connection, study_id, newest.version)]
    assert (newest.state, spoke) == (StudyState.DONE, ["other"])


def test_max_parallel_jobs_follows_the_settings(stage: Stage) -> None:
    other = CT.model_copy(update={"name": "other"})
    stage.manifests = {"echo": CT, "other": other}
    met = threading.Event()
    both = threading.Barrier(2, timeout=20, action=met.set)

    def meet() -> None:
        both.wait()

    stage.analyse.during = meet
    stage.execution.start()
    try:
        stage.settings = Settings(execution=ExecutionSettings(max_parallel_jobs=2))
        stage.execution.follow_settings()
        stage.close_study()
        stage.execution.wake()
        assert met.wait(20), "the two plugins of a study did not run at the same time"
    finally:
        stage.execution.stop(20.0, kill=both.abort)


def test_a_missing_model_is_said_and_costs_no_attempt(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.wait = {"echo": no_model("echo")}
    stage.work()
    assert stage.wait(study_id) == "no_model"
    assert not stage.analyse.ran
    stage.analyse.wait = {}
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert stage.analyse.ran[0].attempt == 1
    assert stage.wait(study_id) == ""


def test_a_rule_naming_an_absent_plugin_makes_the_study_wait(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.execution.route_closed()
    stage.analyse.wait = {"echo": no_model("echo")}
    stage.work()
    assert stage.state(study_id) is StudyState.ROUTED


def test_a_dead_daemons_leases_return_to_the_queue_without_costing_an_attempt(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.execution.route_closed()
    for boot in range(5):
        with stage.database.write() as connection:
            job = jobs.next_due(connection, JobKind.ANALYSE, time.time(), ["echo"])
            assert job is not None
            jobs.lease(connection, job, f"boot {boot}", (MODEL,), "b" * 64)
        stage.execution = stage.boot(f"boot {boot + 1}")
        stage.execution.recover()
        [job] = stage.jobs(study_id)
        assert (job.state, job.attempt, job.interruptions) == (JobState.QUEUED, 0, boot + 1)
    stage.work()
    assert stage.state(study_id) is StudyState.DONE


def test_a_job_that_takes_the_machine_down_again_and_again_is_given_up(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.execution.route_closed()
    for boot in range(MAX_INTERRUPTIONS + 1):
        with stage.database.write() as connection:
            job = jobs.next_due(connection, JobKind.ANALYSE, time.time(), ["echo"])
            assert job is not None
            jobs.lease(connection, job, f"boot {boot}", (), "")
        stage.execution = stage.boot(f"boot {boot + 1}")
        stage.execution.recover()
    assert stage.state(study_id) is StudyState.FAILED


def test_a_result_of_a_superseded_version_does_not_go_out(stage: Stage) -> None:
    study_id = stage.close_study()

    def late_instance() -> None:
        with stage.database.write() as connection:
            version = studies.open_next_version(connection, study_id)
            facts = StudyFacts(modalities=("CT",), slices=2)
            studies.close_version(
                connection, study_id, version, facts=facts, code=CloseCode.QUIET, reason="late", actor="test"
            )
        stage.analyse.during = lambda: None

    stage.analyse.during = late_instance
    stage.work()
    with stage.database.read() as connection:
        versions = {s.version: s.state for s in studies.versions_of(connection, study_id)}
        assert versions == {1: StudyState.SUPERSEDED, 2: StudyState.DONE}
        assert [a.version for a in artefacts.artefacts_of(connection, study_id)] == [2]
