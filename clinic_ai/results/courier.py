"""Carries out recorded deliveries, one after the other, until each has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy import Connection

from clinic_ai.domain import Artefact, ArtefactState, Delivery, StudyState
from clinic_ai.errors import ClinicError
from clinic_ai.lanes import places
from clinic_ai.results.delivery import write_outbox
from clinic_ai.store import alerts, artefacts, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.waiting import undelivered

log = structlog.get_logger()

LONGEST_PAUSE_S = 300.0
ALERT_AFTER = 3
"""Attempts that may fail before a person is told."""

DELIVERABLE = {ArtefactState.PRELIMINARY, ArtefactState.FINAL}
"""Only what the guard released or a person signed leaves the appliance, whatever the deliveries table says."""


class Courier:
    """Delivers released artefacts to the outbox. A delivery that fails is tried again for as long as it takes."""

    def __init__(self, database: Database, objects: ObjectStore, outbox: Callable[[], Path]) -> None:
        self._database = database
        self._objects = objects
        self._outbox = outbox

    def step(self) -> bool:
        """Carry out the delivery that is due; return whether there was one."""
        with self._database.read() as connection:
            due = artefacts.next_delivery(connection, time.time(), longest_s=LONGEST_PAUSE_S)
        if due is None:
            return False
        delivery, artefact = due
        if artefact.state not in DELIVERABLE:
            self._give_up(delivery, artefact)
            return True
        try:
            place = self._deliver(artefact)
        except ClinicError as error:
            self._postpone(delivery, artefact, error.message)
        except Exception as error:  # noqa: BLE001 - delivery boundary: what stops one must not stop those behind it
            # Not the text of a foreign error: it may hold personal data.
            log.error("delivery.broke", study=artefact.study_id, error=type(error).__name__, at=places(error))
            self._postpone(
                delivery, artefact, f"An error that nobody foresaw ended the attempt ({type(error).__name__})."
            )
        else:
            self._done(delivery, artefact, place)
        return True

    def _deliver(self, artefact: Artefact) -> str:
        files = [(file.name, self._objects.path(file.sha256)) for file in artefact.files]
        return str(write_outbox(self._outbox(), artefact.study_id, artefact.version, files, revision=artefact.revision))

    def _give_up(self, delivery: Delivery, artefact: Artefact) -> None:
        with self._database.write() as connection:
            reason = f"The result is {artefact.state.value} and was not delivered."
            artefacts.give_up(connection, delivery, artefact.study_id, reason)
            alerts.withdraw(connection, "undelivered", artefact.study_id)
            self._finish_study(connection, artefact)  # a person may have rejected it before it arrived
        log.info("delivery.given_up", study=artefact.study_id, version=artefact.version, target=delivery.target)

    def _done(self, delivery: Delivery, artefact: Artefact, place: str) -> None:
        with self._database.write() as connection:
            artefacts.mark_sent(connection, delivery, artefact.study_id, place)
            alerts.withdraw(connection, "undelivered", artefact.study_id)
            self._finish_study(connection, artefact)
        log.info("delivery.sent", study=artefact.study_id, version=artefact.version, target=delivery.target)

    def _finish_study(self, connection: Connection, artefact: Artefact) -> None:
        study = studies.get_study(connection, artefact.study_id, artefact.version)
        still = artefacts.pending_deliveries(connection, artefact.study_id, artefact.version)
        if study.state is StudyState.ROUTED and not still:
            studies.move_study(connection, artefact.study_id, artefact.version, "finish", actor="clinic-ai", wait=None)
            alerts.withdraw(connection, "job_failed", artefact.study_id)

    def _postpone(self, delivery: Delivery, artefact: Artefact, why: str) -> None:
        pause = min(LONGEST_PAUSE_S, 2.0 ** min(delivery.attempt + 1, 8))
        wait = undelivered(delivery.target, why, pause)
        with self._database.write() as connection:
            artefacts.postpone(connection, delivery, why, time.time() + pause)
            studies.set_wait(connection, artefact.study_id, artefact.version, wait)
            if delivery.attempt + 1 >= ALERT_AFTER:
                alerts.raise_alert(connection, "undelivered", artefact.study_id, wait.sentence, wait.remedy)
        log.warning("delivery.failed", study=artefact.study_id, target=delivery.target, error=why)
