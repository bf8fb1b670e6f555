"""A study that is sent again after retention removed its originals gets them back."""

from __future__ import annotations

from sqlalchemy import Connection

from clinic_ai.domain import StudyState
from clinic_ai.store import alerts, originals, studies
from clinic_ai.store.objects import ObjectStore

LACKING = "originals_removed"
"""Code of what a version waits for, and of its alert."""


def restore(connection: Connection, objects: ObjectStore, study_id: str) -> None:
    """Note that the originals of a study are back, once all of them are; a version that waited for them goes on.

    Call it after objects of the study were stored, in the transaction that says so.
    """
    if originals.removed_at(connection, study_id) is None:
        return
    if not all(map(objects.has, originals.hashes_of(connection, study_id))):
        return
    originals.note_restored(connection, study_id)
    alerts.withdraw(connection, LACKING, study_id)
    newest = studies.get_study(connection, study_id)
    if newest.state is StudyState.UNROUTED and newest.wait is not None and newest.wait.code == LACKING:
        studies.move_study(connection, study_id, newest.version, "reroute", actor="ingest", wait=None)
