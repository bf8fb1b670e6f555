"""What people and rules order: again, elsewhere, sooner; on a real database."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from execution_stage import CT, Stage
from sqlalchemy import update

from clinic_ai.contract import Condition
from clinic_ai.domain import (
    JobKind,
    JobState,
    PatientIdentity,
    StudyFacts,
    StudyState,
)
from clinic_ai.errors import Conflict
from clinic_ai.settings import RoutingRule, RoutingSettings
from clinic_ai.store import artefacts, studies, tables
from clinic_ai.store.audit import first_break
from clinic_ai.waiting import no_model


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "clinic.db")


def test_a_done_study_tried_again_becomes_a_new_version(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.work()
    assert "version 2" in stage.execution.retry(study_id, "dr")
    stage.work()
    with stage.database.read() as connection:
        newest = studies.get_study(connection, study_id)
        assert (newest.version, newest.state) == (2, StudyState.DONE)
        assert "dr" in newest.closed_reason
        assert [a.state.value for a in artefacts.artefacts_of(connection, study_id)] == ["SUPERSEDED", "PRELIMINARY"]


def test_rerouting_cancels_what_waits_and_asks_the_rules_again(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.wait = {"echo": no_model("echo")}
    stage.work()
    stage.manifests = {"other": CT.model_copy(update={"name": "other"})}
    stage.execution.reroute(study_id, "tech")
    stage.work()
    assert stage.state(study_id) is StudyState.DONE
    assert [(job.plugin, job.state) for job in stage.jobs(study_id, 1)] == [("echo", JobState.CANCELLED)]
    assert [(job.plugin, job.state) for job in stage.jobs(study_id, 2)][:1] == [("other", JobState.DONE)]


def test_a_study_whose_result_waits_to_be_delivered_is_rerouted_as_a_new_version(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.work()
    with stage.database.write() as connection:
        [made] = artefacts.artefacts_of(connection, study_id)
        artefacts.add_delivery(connection, made.artefact_id, "outbox")
        connection.execute(update(tables.studies).values(state="ROUTED"))
    stage.execution.reroute(study_id, "tech")
    stage.work()
    with stage.database.read() as connection:
        assert [a.version for a in artefacts.artefacts_of(connection, study_id)] == [1, 2]


def test_hurrying_a_study_hurries_its_delivery(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.work()
    with stage.database.write() as connection:
        [made] = artefacts.artefacts_of(connection, study_id)
        artefacts.add_delivery(connection, made.artefact_id, "outbox")
        connection.execute(update(tables.deliveries).values(not_before=time.time() + 100))
        connection.execute(update(tables.studies).values(state="ROUTED"))
    stage.execution.retry(study_id, "tech")
    with stage.database.read() as connection:
        assert artefacts.next_delivery(connection, time.time()) is not None


def test_an_arriving_study_cannot_be_tried_again(stage: Stage) -> None:
    with stage.database.write() as connection:
        study_id = studies.open_study(
            connection,
            grouping_key="1.2",
            study_instance_uid="1.2",
            pseudonym="P",
            patient_key="k",
            source="inbox",
            facts=StudyFacts(),
            identity=PatientIdentity(),
        )
    with pytest.raises(Conflict):
        stage.execution.retry(study_id, "tech")


def order_of(stage: Stage, kind: JobKind) -> list[str]:
    return [job.study_id for job in (stage.analyse if kind is JobKind.ANALYSE else stage.report).ran]


def test_the_urgent_are_routed_analysed_and_reported_first(stage: Stage) -> None:
    calm, urgent, less = (stage.close_study(priority=priority) for priority in (0, 50, 10))
    stage.execution.route_closed()
    while stage.execution.step(JobKind.ANALYSE):
        pass
    while stage.execution.step(JobKind.REPORT):
        pass
    assert order_of(stage, JobKind.ANALYSE) == order_of(stage, JobKind.REPORT) == [urgent, less, calm]


def test_a_person_lets_a_study_overtake_others_that_wait(stage: Stage) -> None:
    first, second, third = (stage.close_study() for _ in range(3))
    stage.execution.route_closed()
    assert "priority 80 now, 0 before" in stage.execution.prioritise(third, 80, "anna")
    stage.execution.prioritise(first, -100, "anna")
    stage.work()
    assert order_of(stage, JobKind.ANALYSE) == [third, second, first]
    with stage.database.read() as connection:
        study = studies.get_study(connection, third)
        assert (study.urgency.ordered, study.urgency.ordered_by) == (80, "anna")
        assert first_break(connection) is None


def test_a_rule_that_makes_an_analysis_urgent_makes_its_report_so(stage: Stage) -> None:
    rule = RoutingRule(name="bleeding", plugins=("echo",), priority=60, when=Condition(modality=("CT",)))
    stage.settings = stage.settings.model_copy(update={"routing": RoutingSettings(rule=(rule,))})
    study_id = stage.close_study(priority=10)
    stage.work()
    assert [job.priority for job in stage.jobs(study_id)] == [70, 70]


def test_what_a_person_ordered_while_the_analysis_ran_holds_for_the_report(stage: Stage) -> None:
    study_id = stage.close_study()
    stage.analyse.during = lambda: stage.execution.prioritise(study_id, 90, "anna") and None
    stage.work()
    assert [(job.kind, job.priority) for job in stage.jobs(study_id)] == [
        (JobKind.ANALYSE, 90),
        (JobKind.REPORT, 90),
    ]
