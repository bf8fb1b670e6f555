"""What people decide about quarantined files, and how it is carried out.

A decision is one transaction, and from then on the ledger and not the place of the bytes says what is to come:
an accepted file is CLAIMED, and ingest takes it out of the quarantine, judges it as the person said and files it; of
a discarded one the bytes are removed after the commit. What a crash interrupts, the next start does again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import structlog
from sqlalchemy import Connection

from clinic_ai.domain import Fate, FileDecision
from clinic_ai.errors import Conflict, HomeError, NotFound
from clinic_ai.ingest import undecided
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.ingest.spool import Spool
from clinic_ai.store import audit, ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import LedgerEntry, Outcome
from clinic_ai.store.objects import is_full

log = structlog.get_logger()

OPTIONS = {
    FileDecision.AGAIN: "",
    FileDecision.REPLACE: "--replace",
    FileDecision.BOTH: "--both",
    FileDecision.OWN_STUDY: "--own-study",
}
"""How the command line says each."""


class Decisions:
    """The decisions of people about quarantined files. ``wake`` lets ingest carry out what was accepted."""

    def __init__(self, *, database: Database, quarantine: Quarantine, wake: Callable[[], None]) -> None:
        self._database = database
        self._quarantine = quarantine
        self._wake = wake

    def accept(self, file_ids: Sequence[int], study_id: str | None, decision: FileDecision, by: str) -> list[int]:
        """Let files out of the quarantine: those named, and those of a study that the decision fits.

        Return their numbers. Raise NotFound or Conflict about the first of which this cannot be said; then
        nothing was decided about any.
        """
        with self._database.write() as connection:
            entries = _chosen(connection, file_ids, study_id, decision)
            for entry in entries:
                self._check(entry, decision)
                ledger.accept(connection, entry, decision, by)
                _record(connection, entry, "accept", decision, by)
            undecided.settle_alerts(connection, entries)
        self._wake()
        return [entry.file_id for entry in entries]

    def discard(self, file_ids: Sequence[int], study_id: str | None, reason: str, by: str) -> list[int]:
        """Remove the bytes of quarantined files: those named, and those that contradict a study.

        ``reason`` stays in the ledger. Return their numbers. Raise NotFound or Conflict as ``accept`` does.
        """
        with self._database.write() as connection:
            entries = _chosen(connection, file_ids, study_id, FileDecision.DISCARD)
            for entry in entries:
                ledger.discard(connection, entry, reason, by)
                _record(connection, entry, "discard", FileDecision.DISCARD, by)
            undecided.settle_alerts(connection, entries)
        for entry in entries:  # not before: bytes without a decision would be bytes lost
            self._quarantine.remove(entry.file_id, entry.seen_at)
        return [entry.file_id for entry in entries]

    def _check(self, entry: LedgerEntry, decision: FileDecision) -> None:
        choices = undecided.choices_of(entry.reason_code)
        if entry.fate is not Fate.QUARANTINED:
            return  # the ledger says so better
        if decision not in choices:
            how = " or ".join(OPTIONS[choice] or "no option" for choice in choices)
            raise Conflict(
                f"File {entry.file_id} was quarantined for “{entry.reason_code}”; it can be accepted with {how}.",
                remedy=f"`clinic-ai file show {entry.file_id}` says what each means. Nothing was written.",
            )
        if not self._quarantine.holds(entry.file_id, entry.seen_at):
            raise NotFound(
                f"The bytes of file {entry.file_id} are not in the quarantine any more; somebody took them away.",
                remedy=f"Put them back as {self._quarantine.file(entry.file_id, entry.seen_at)}, or discard it.",
            )


def bring_back(
    rows: Collection[LedgerEntry], *, spool: Spool, quarantine: Quarantine
) -> tuple[list[LedgerEntry], list[Outcome]]:
    """Take accepted files out of the quarantine; return those that lie in the spool now, and the fates of the others.

    Raise HomeError if the disk is full; doing it again goes on.
    """
    there, outcomes = [], []
    for row in rows:
        try:
            if not spool.path(row.file_id).exists():
                spool.bring_back(row.file_id, quarantine.file(row.file_id, row.seen_at))
            quarantine.remove(row.file_id, row.seen_at)
        except FileNotFoundError:
            outcomes.append(Outcome(row.file_id, Fate.VANISHED, "gone", _GONE))
        except OSError as error:
            if is_full(error):
                raise HomeError(
                    f"The disk of {spool.root} is full; accepted files stay in the quarantine.",
                    remedy="Free space on that disk; the appliance goes on by itself.",
                ) from error
            log.warning("file.not_brought_back", file=row.file_id, error=error.strerror)
            outcomes.append(
                Outcome(row.file_id, Fate.QUARANTINED, "cannot_bring_back", _STUCK, _STUCK_REMEDY, row.study_id)
            )
        else:
            there.append(row)
    return there, outcomes


def tidy(*, database: Database, quarantine: Quarantine) -> None:
    """Remove from the quarantine what a crash left of files that were decided about. Call it before people can."""
    with database.read() as connection:
        rows = ledger.get_files(connection, quarantine.numbers())
    for row in rows.values():
        kept = row.fate in {Fate.STORED, Fate.DUPLICATE} and not quarantine.holds(row.file_id, row.seen_at)
        if kept or row.fate is Fate.DISCARDED:
            quarantine.remove(row.file_id, row.seen_at)


def _chosen(
    connection: Connection, file_ids: Sequence[int], study_id: str | None, decision: FileDecision
) -> list[LedgerEntry]:
    found = ledger.get_files(connection, file_ids)
    for number in file_ids:
        if number not in found:
            raise NotFound(
                f"There is no file number {number}.", remedy="`clinic-ai file list` shows them. Nothing was written."
            )
    if study_id is not None:
        waiting = ledger.undecided(connection, study_id)
        fitting = [
            row
            for row in waiting
            if row.reason_code in undecided.CONFLICTS
            and (decision is FileDecision.DISCARD or decision in undecided.choices_of(row.reason_code))
        ]
        if not fitting:
            raise NotFound(
                f"No file that contradicts study {study_id} waits for this decision.",
                remedy=f"`clinic-ai file list --quarantined --study {study_id}` shows those that wait.",
            )
        found |= {row.file_id: row for row in fitting}
    return [found[number] for number in sorted(found)]


def _record(connection: Connection, entry: LedgerEntry, what: str, decision: FileDecision, by: str) -> None:
    # Not the reason a person typed: the audit is never corrected, and people write names.
    audit.record(
        connection,
        actor=by,
        action=f"file.{what}",
        subject=f"file {entry.file_id}",
        details={
            "decision": decision.value,
            "code": entry.reason_code,
            "sha256": entry.sha256,
            "from": entry.fate.value,
        },
    )


_GONE = "It was accepted, but its bytes were not in the quarantine any more."
_STUCK = "It was accepted, but it could not be taken out of the quarantine."
_STUCK_REMEDY = "Check the owner and the rights of its folder in the quarantine, then accept it again."
