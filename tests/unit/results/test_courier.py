"""The courier: what leaves, what waits, what is not sent, on a real database and a real outbox."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import update

from clinic_ai.domain import (
    ArtefactState,
    Audience,
    CloseCode,
    Delivery,
    DeliveryState,
    GuardAction,
    GuardVerdict,
    JobKind,
    PatientIdentity,
    StoredFile,
    StudyFacts,
    StudyState,
)
from clinic_ai.results.courier import ALERT_AFTER, LONGEST_PAUSE_S, Courier
from clinic_ai.store import alerts, artefacts, jobs, studies, tables
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore


class Clinic:
    """A home with studies whose reports are released, and a courier."""

    def __init__(self, home: Path) -> None:
        self.database = Database(home / "clinic.db")
        self.database.open()
        self.objects = ObjectStore(home / "objects")
        self.outbox = home / "outbox"
        self.outbox.mkdir()
        self.courier = Courier(self.database, self.objects, lambda: self.outbox)

    def release(self, text: bytes = b"{}") -> str:
        """Return a study whose result is ready."""
        sha256, size = self.objects.write_bytes(text)
        with self.database.write() as connection:
            study_id = studies.open_study(
                connection,
                grouping_key=f"1.2.{time.monotonic_ns()}",
                study_instance_uid="1.2",
                pseudonym="P-A",
                patient_key="k",
                source="inbox",
                facts=StudyFacts(),
                identity=PatientIdentity(),
            )
            studies.close_version(
                connection, study_id, 1, facts=StudyFacts(), code=CloseCode.QUIET, reason="a test", actor="test"
            )
            studies.move_study(connection, study_id, 1, "route", actor="test")
            job_id = jobs.add_job(connection, kind=JobKind.REPORT, study_id=study_id, version=1)
            file = StoredFile(name="result.json", sha256=sha256, size_bytes=size, media_type="application/json")
            jobs.save_files(connection, job_id, [file])
            verdict = GuardVerdict(
                audience=Audience.CLINICIAN,
                action=GuardAction.ALLOW,
                decisions=(),
                released=(),
                policy_hash="b" * 64,
                policy_name="p",
            )
            artefact_id, _ = artefacts.add_artefact(connection, jobs.get_job(connection, job_id), verdict)
            artefacts.add_delivery(connection, artefact_id, "outbox")
        return study_id

    def delivery(self, study_id: str) -> Delivery:
        with self.database.read() as connection:
            [artefact] = artefacts.artefacts_of(connection, study_id)
        [delivery] = artefact.deliveries
        return delivery

    def state(self, study_id: str) -> StudyState:
        with self.database.read() as connection:
            return studies.get_study(connection, study_id).state

    def alerts(self) -> list[str]:
        with self.database.read() as connection:
            return [alert.code for alert in alerts.open_alerts(connection)]

    def set_deliveries(self, **values: object) -> None:
        with self.database.write() as connection:
            connection.execute(update(tables.deliveries).values(**values))


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def test_a_delivery_finishes_its_study_and_withdraws_what_was_said_of_it(clinic: Clinic) -> None:
    study_id = clinic.release()
    with clinic.database.write() as connection:
        alerts.raise_alert(connection, "job_failed", study_id, "An earlier version failed.", "")
    assert clinic.courier.step()
    assert not clinic.courier.step()
    assert (clinic.outbox / study_id / "v1" / "result.json").read_bytes() == b"{}"
    assert clinic.delivery(study_id).state is DeliveryState.SENT
    assert clinic.state(study_id) is StudyState.DONE
    assert not clinic.alerts()


def test_a_result_superseded_before_it_left_is_not_called_sent(clinic: Clinic) -> None:
    study_id = clinic.release()
    with clinic.database.write() as connection:
        connection.execute(update(tables.artefacts).values(state=ArtefactState.SUPERSEDED.value))
    assert clinic.courier.step()
    assert not clinic.courier.step()
    delivery = clinic.delivery(study_id)
    assert (delivery.state, delivery.place) == (DeliveryState.FAILED, "")
    assert "SUPERSEDED" in delivery.error
    assert not list(clinic.outbox.iterdir())


def test_a_delivery_that_fails_waits_and_lets_the_next_pass(clinic: Clinic) -> None:
    stuck, sound = clinic.release(), clinic.release()
    (clinic.outbox / stuck).write_bytes(b"in the way")
    clinic.courier.step()
    clinic.courier.step()
    assert clinic.delivery(stuck).state is DeliveryState.PENDING
    assert clinic.delivery(sound).state is DeliveryState.SENT
    for _ in range(ALERT_AFTER):
        clinic.set_deliveries(not_before=0.0)
        clinic.courier.step()
    assert clinic.alerts() == ["undelivered"]
    (clinic.outbox / stuck).unlink()
    clinic.set_deliveries(not_before=0.0)
    clinic.courier.step()
    assert not clinic.alerts()
    assert clinic.state(stuck) is StudyState.DONE


def test_what_nobody_foresaw_postpones_one_delivery(clinic: Clinic) -> None:
    study_id = clinic.release()
    outbox, clinic.outbox = clinic.outbox, Path("\ud800")  # no name any file system takes
    assert clinic.courier.step()
    assert not clinic.courier.step(), "it is put off, not tried again and again"
    assert "UnicodeEncodeError" in clinic.delivery(study_id).error
    clinic.outbox = outbox
    clinic.set_deliveries(not_before=0.0)
    assert clinic.courier.step()
    assert clinic.state(study_id) is StudyState.DONE


def test_a_clock_set_back_holds_no_delivery_up(clinic: Clinic) -> None:
    study_id = clinic.release()
    clinic.set_deliveries(not_before=time.time() + LONGEST_PAUSE_S + 1000)
    assert clinic.courier.step()
    assert clinic.state(study_id) is StudyState.DONE
