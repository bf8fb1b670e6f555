"""After a crash: where are the bytes of every file that was on its way, and what follows from that.

A pending row of the ledger says only that something was begun. Where the bytes lie says how far it got: in the
spool (go on), in the quarantine (judge it again), in the object store (go on), or still in the inbox (nothing
happened).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from clinic_ai.domain import Fate, FileDecision
from clinic_ai.errors import HomeError
from clinic_ai.ingest import decisions, undecided
from clinic_ai.ingest.assemble import NOT_KEPT
from clinic_ai.ingest.filing import Claim
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.ingest.spool import Spool
from clinic_ai.ingest.watch import Entry, Inbox
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import LedgerEntry, Outcome, Sighting
from clinic_ai.store.objects import ObjectStore, is_full

log = structlog.get_logger()

ORPHAN_SOURCE = "recovered"
"""Source of files found in the spool that no row of the ledger knows, such as after restoring an old backup."""


def recover(
    *,
    spool: Spool,
    quarantine: Quarantine,
    database: Database,
    objects: ObjectStore,
    inboxes: Sequence[Inbox],
    offline: Collection[str] = (),
) -> list[Claim]:
    """Bring ledger and disk together; return the files in the spool that are to be filed.

    ``inboxes`` are those that are there; of the sources that are ``offline`` nobody can say what lies in them.
    """
    spool.sweep()
    with database.read() as connection:
        pending = ledger.pending(connection)
    found = _Found()
    for row in pending:
        _find(row, found, inboxes, offline, spool=spool, quarantine=quarantine, objects=objects)
    _write(found, pending, database)
    decisions.tidy(database=database, quarantine=quarantine)
    _empty_spool_of_finished(spool.numbers(), spool, quarantine, database, objects)
    claims = found.claims + _adopt_orphans(spool, database)
    if pending or claims:
        log.info("ingest.recovered", begun=len(pending), to_file=len(claims), never_taken=len(found.untouched))
    return claims


def look_again(
    claims: Sequence[Claim], *, spool: Spool, quarantine: Quarantine, database: Database, objects: ObjectStore
) -> tuple[list[Claim], bool]:
    """Return those of ``claims`` that can be filed now, and whether there was no room to take others back.

    That is, after people accepted them, or after filing some of them failed half-way. It may leave all that a crash
    may leave: a file in the quarantine of which the ledger does not say so, or one in the spool whose fate is written.
    Those for which there was no room stay CLAIMED where they are; doing it again goes on.
    """
    with database.read() as connection:
        rows = ledger.get_files(connection, [claim.file_id for claim in claims])
    pending = [row for row in rows.values() if row.fate.pending]
    found = _Found()
    for row in pending:
        _find(row, found, (), (), spool=spool, quarantine=quarantine, objects=objects)
    _write(found, pending, database)
    _empty_spool_of_finished(rows.keys() & spool.numbers(), spool, quarantine, database, objects)
    there = {claim.file_id for claim in found.claims}
    return [claim for claim in claims if claim.file_id in there], found.full


@dataclass
class _Found:
    """What is to be filed, what nobody touched yet, the fates of others, and whether some did not fit on the disk."""

    claims: list[Claim] = field(default_factory=list)
    untouched: list[int] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    full: bool = False


def _find(
    row: LedgerEntry,
    found: _Found,
    inboxes: Sequence[Inbox],
    offline: Collection[str],
    *,
    spool: Spool,
    quarantine: Quarantine,
    objects: ObjectStore,
) -> None:
    """Look where the bytes of a file are that is on its way, and take them back to the spool.

    One for which there is no room there is left CLAIMED; each pass of the intake tries it again.
    """
    try:
        _take_back(row, found, inboxes, offline, spool=spool, quarantine=quarantine, objects=objects)
    except HomeError as error:
        log.warning("ingest.not_recovered", file=row.file_id, sentence=error.message)
        found.full = True


def _take_back(
    row: LedgerEntry,
    found: _Found,
    inboxes: Sequence[Inbox],
    offline: Collection[str],
    *,
    spool: Spool,
    quarantine: Quarantine,
    objects: ObjectStore,
) -> None:
    """Do what ``_find`` says. Raise HomeError if the disk is full."""
    inbox = _inbox_of(row, inboxes)
    stored = row.sha256 is not None and objects.has(row.sha256)
    if not row.decision and spool.path(row.file_id).exists():
        quarantine.remove(row.file_id, row.seen_at)
        if inbox is not None and row.fate is Fate.CLAIMING:
            spool.finish_move(row.file_id, _entry(row, inbox))
        found.claims.append(claim_of(row, inbox))
    elif row.decision or quarantine.holds(row.file_id, row.seen_at):
        # Put there before the crash, or accepted by a person: judging it again says which.
        there, untaken = decisions.bring_back([row], spool=spool, quarantine=quarantine)
        if stored and any(outcome.fate is Fate.VANISHED for outcome in untaken):
            _link(row, spool, objects)
            there, untaken = [row], []
        found.claims.extend(claim_of(back, inbox) for back in there)
        found.outcomes.extend(untaken)
    elif stored:
        _link(row, spool, objects)
        found.claims.append(claim_of(row, inbox))
    elif row.fate is Fate.CLAIMING and inbox is not None and _lies_in(inbox, row):
        found.untouched.append(row.file_id)
    elif row.fate is Fate.CLAIMING and row.source in offline:
        found.untouched.append(row.file_id)  # nowhere here, so it lies where it lay, and is seen again
    elif row.fate is Fate.CLAIMING and row.source == ORPHAN_SOURCE and spool.sets_aside(row.name):
        found.untouched.append(row.file_id)  # set aside, it was not given its number any more; it gets another one
    else:
        found.outcomes.append(Outcome(row.file_id, Fate.VANISHED, "gone", "It was gone before it could be taken."))


def _link(row: LedgerEntry, spool: Spool, objects: ObjectStore) -> None:
    """Let the stored bytes of a file lie in the spool again. Raise HomeError if the disk is full."""
    try:
        os.link(objects.path(row.sha256 or ""), spool.path(row.file_id))
    except OSError as error:
        if not is_full(error):
            raise
        raise HomeError(
            f"The disk of {spool.root} is full; a file that is stored already cannot be filed to its end.",
            remedy="Free space on that disk; the appliance goes on by itself.",
        ) from error


def _write(found: _Found, pending: Sequence[LedgerEntry], database: Database) -> None:
    with database.write() as connection:
        ledger.abandon(connection, found.untouched)
        ledger.decide(connection, found.outcomes)
        put_away = {outcome.file_id for outcome in found.outcomes if outcome.fate is Fate.QUARANTINED}
        undecided.raise_alerts(connection, {row.source for row in pending if row.file_id in put_away}, ())


def _inbox_of(row: LedgerEntry, inboxes: Sequence[Inbox]) -> Inbox | None:
    """Return the inbox that a file lies in; if it lies in none, one of its source."""
    same = [inbox for inbox in inboxes if inbox.source == row.source]
    if len(same) < 2:
        return same[0] if same else None
    return next((inbox for inbox in same if _lies_in(inbox, row)), same[0])


def _lies_in(inbox: Inbox, row: LedgerEntry) -> bool:
    return os.path.lexists(os.path.join(os.fsencode(inbox.root), row.raw_name))  # noqa: PTH118


def _empty_spool_of_finished(
    numbers: Collection[int], spool: Spool, quarantine: Quarantine, database: Database, objects: ObjectStore
) -> None:
    """Remove from the spool what is safely elsewhere: the crash came between the commit and the removal."""
    for number in numbers:
        with database.read() as connection:
            rows = ledger.list_files(connection, limit=1, before=number + 1)
        if not rows or rows[0].file_id != number:
            continue
        row = rows[0]
        kept = row.fate in {Fate.STORED, Fate.DUPLICATE} and row.sha256 is not None and objects.has(row.sha256)
        kept = kept or row.reason_code in NOT_KEPT
        if kept or (row.fate is Fate.QUARANTINED and quarantine.holds(number, row.seen_at)):
            spool.path(number).unlink()


def _adopt_orphans(spool: Spool, database: Database) -> list[Claim]:
    """Give a new number to whatever lies in the spool without a pending row of its own: no byte is thrown away."""
    with database.read() as connection:
        known = {row.file_id for row in ledger.pending(connection)}
    claims = []
    for place in spool.orphans(known):
        status = place.stat()
        sighting = Sighting(ORPHAN_SOURCE, place.name, os.fsencode(place.name), status.st_size, status.st_mtime_ns)
        with database.write() as connection:
            (number,) = ledger.begin_claims(connection, [sighting])
            row = ledger.get_file(connection, number)
        place.rename(spool.path(number))
        claims.append(claim_of(row, None))
    return claims


def claim_of(row: LedgerEntry, inbox: Inbox | None) -> Claim:
    """Return a file of the spool as it is to be filed; ``inbox`` is the one it came from, if that is still known."""
    return Claim(
        file_id=row.file_id,
        source=row.source,
        name=row.name,
        size_bytes=row.size_bytes,
        seen_at=row.seen_at,
        modality=inbox.modality if inbox else "",
        body_part=inbox.body_part if inbox else "",
        priority=inbox.priority if inbox else 0,
        owner=inbox.owner if inbox else "",
        decision=FileDecision(row.decision) if row.decision else None,
        judged=row.sha256 or "" if row.decision else "",
    )


def _entry(row: LedgerEntry, inbox: Inbox) -> Entry:
    return Entry(inbox, row.raw_name, row.size_bytes, row.mtime_ns, 0)
