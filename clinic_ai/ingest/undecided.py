"""What waits for a person: files in quarantine, told as one alert for a source or a study and not one for each file."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from clinic_ai.domain import FileDecision
from clinic_ai.ingest.assemble import OTHER_PATIENT, SAME_UID
from clinic_ai.store import alerts, ledger
from clinic_ai.store.ledger import LedgerEntry

QUARANTINED = "files_quarantined"
"""Code of the alert about files of a source that could not be used."""
CONFLICT = "files_in_conflict"
"""Code of the alert about files that contradict a study."""
CONFLICTS = frozenset({SAME_UID, OTHER_PATIENT})

_CHOICES: dict[str, tuple[FileDecision, ...]] = {
    SAME_UID: (FileDecision.REPLACE, FileDecision.BOTH),
    OTHER_PATIENT: (FileDecision.OWN_STUDY,),
}


def choices_of(code: str) -> tuple[FileDecision, ...]:
    """Return how a file quarantined for this reason may be accepted; discarding it is always possible."""
    return _CHOICES.get(code, (FileDecision.AGAIN,))


def raise_alerts(connection: Connection, sources: Collection[str], studies: Collection[str]) -> None:
    """Raise the alerts about sources and studies of which files were just quarantined."""
    for code, subject, count in _counts(connection, sources, studies):
        if count:
            alerts.raise_alert(connection, code, subject, _sentence(code, subject, count), _remedy(code, subject))


def settle_alerts(connection: Connection, entries: Collection[LedgerEntry]) -> None:
    """Withdraw the alerts that are settled after these files were decided about, and correct the others."""
    sources = {entry.source for entry in entries}
    studies = {entry.study_id for entry in entries if entry.study_id is not None}
    for code, subject, count in _counts(connection, sources, studies):
        if count:
            alerts.restate(connection, code, subject, _sentence(code, subject, count))
        else:
            alerts.withdraw(connection, code, subject)


def _counts(connection: Connection, sources: Collection[str], studies: Collection[str]) -> list[tuple[str, str, int]]:
    by_source, by_study = dict.fromkeys(sources, 0), dict.fromkeys(studies, 0)
    for source, study_id, reason, count in ledger.undecided_counts(connection):
        if reason in CONFLICTS and study_id is not None:
            if study_id in by_study:
                by_study[study_id] += count
        elif source in by_source:
            by_source[source] += count
    return [
        *((QUARANTINED, source, count) for source, count in sorted(by_source.items())),
        *((CONFLICT, study_id, count) for study_id, count in sorted(by_study.items())),
    ]


def _sentence(code: str, subject: str, count: int) -> str:
    files = "1 file" if count == 1 else f"{count} files"
    waits = "waits" if count == 1 else "wait"
    if code == CONFLICT:
        return f"{files} that contradict{'s' if count == 1 else ''} study {subject} {waits} for a decision."
    return f"{files} from {subject} could not be used and {waits} in quarantine for a decision."


def _remedy(code: str, subject: str) -> str:
    if code == CONFLICT:
        return f"See `clinic-ai file list --quarantined --study {subject}`; a clinician accepts or discards them."
    return f"See `clinic-ai file list --quarantined --source {subject}`; then accept or discard each."
