"""Takes files out of the inboxes: the intent into the ledger, the bytes into the spool, and what came of it said.

A share that stops answering in the middle keeps its own thread and nothing else: the files stay CLAIMING in the ledger
until it comes back, or until the next start looks where their bytes lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from clinic_ai.arms import Errand
from clinic_ai.domain import Fate
from clinic_ai.ingest.filing import Claim
from clinic_ai.ingest.lookout import PATIENCE_S, Lookout, sighting
from clinic_ai.ingest.spool import Spool, Taken
from clinic_ai.ingest.watch import Entry
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Outcome

CANNOT_TAKE = "The file cannot be taken: it cannot be read, or the appliance may not remove it from its folder."
CANNOT_TAKE_REMEDY = "Let the group of the appliance read the file and write in its folder; it is tried again."

TOO_LARGE_REMEDY = (
    "If it is a scan, free space on the disk of the appliance or raise ingest.max_file_mb in clinic.toml."
)

_Claims = Sequence[tuple[int, Entry]]


@dataclass(frozen=True)
class Batch:
    """What came of taking some files: those in the spool, and whether the disk had no room for others."""

    claims: tuple[Claim, ...] = ()
    full: bool = False


@dataclass(frozen=True)
class _OnTheWay:
    claims: _Claims
    seen_at: float
    errand: Errand[list[Taken]]


class Taking:
    """Takes batches of files, each from one inbox. One thread calls it."""

    def __init__(
        self, *, database: Database, spool: Spool, lookout: Lookout, max_file_bytes: Callable[[], int]
    ) -> None:
        self._database = database
        self._max_file_bytes = max_file_bytes
        self._spool = spool
        self._lookout = lookout
        self._late: list[_OnTheWay] = []

    def take(self, entries: Sequence[Entry]) -> Batch:
        """Take files of one inbox; what does not come back soon, ``collect`` returns later.

        Raise OSError if the spool cannot be used; what is in it by then is ``collect``ed.
        """
        now = time.time()
        with self._database.write() as connection:
            numbers = ledger.begin_claims(connection, [sighting(entry) for entry in entries], seen_at=now)
        claims = list(zip(numbers, entries, strict=True))
        on_the_way = _OnTheWay(claims, now, self._lookout.send(entries[0].inbox, partial(self._spool.take, claims)))
        self._late.append(on_the_way)
        if not on_the_way.errand.wait(on_the_way.errand.started_at + PATIENCE_S):
            return Batch()
        return self._settle(on_the_way)

    @property
    def waits(self) -> bool:
        """Whether some batch has not come back."""
        return bool(self._late)

    def collect(self) -> Iterator[Batch]:
        """Yield what came back meanwhile."""
        for back in [one for one in self._late if one.errand.ended]:
            yield self._settle(back)

    def _settle(self, back: _OnTheWay) -> Batch:
        """Write down what came of a batch; if that cannot be written now, ``collect`` does it later."""
        try:
            results = back.errand.result()
        except OSError:  # the spool could not be synced: what is in it is filed, which syncs it again
            results = [
                Taken.TAKEN if self._spool.path(number).exists() else Taken.NO_SPACE for number, _ in back.claims
            ]
        limit, large = self._max_file_bytes(), list[tuple[int, Entry]]()
        by_result: dict[Taken, list[tuple[int, Entry]]] = {result: [] for result in Taken}
        for claim, result in zip(back.claims, results, strict=True):
            # One that would be quarantined for its size is not worth waiting for room.
            if result is Taken.NO_SPACE and claim[1].size_bytes > limit:
                large.append(claim)
            else:
                by_result[result].append(claim)
        outcomes = [cannot_take(number) for number, _ in by_result[Taken.REFUSED]]
        outcomes += [too_large(number, entry.size_bytes, limit) for number, entry in large]
        by_result[Taken.REFUSED] += large
        self._write_untaken(by_result, outcomes)
        self._late.remove(back)
        self._lookout.taken(entry for result in (Taken.TAKEN, Taken.GONE) for _, entry in by_result[result])
        self._lookout.refused(entry for _, entry in by_result[Taken.REFUSED])
        self._lookout.held_open(entry for _, entry in by_result[Taken.HELD_OPEN])
        taken = tuple(claim_of_entry(number, entry, back.seen_at) for number, entry in by_result[Taken.TAKEN])
        return Batch(taken, bool(by_result[Taken.NO_SPACE]))

    def _write_untaken(self, by_result: dict[Taken, list[tuple[int, Entry]]], outcomes: Sequence[Outcome]) -> None:
        untouched = [
            number
            for result in (Taken.NO_SPACE, Taken.CHANGED, Taken.HELD_OPEN, Taken.OFFLINE)
            for number, _ in by_result[result]
        ]
        gone, refused = by_result[Taken.GONE], by_result[Taken.REFUSED]
        if not (untouched or gone or refused):
            return
        with self._database.write() as connection:
            said = {number for number, entry in refused if ledger.ignored_before(connection, sighting(entry))}
            ledger.abandon(connection, [*untouched, *said])
            ledger.decide(
                connection,
                [Outcome(number, Fate.VANISHED, "gone", "It was gone before it could be taken.") for number, _ in gone]
                + [outcome for outcome in outcomes if outcome.file_id not in said],
            )


def cannot_take(file_id: int) -> Outcome:
    """Return what is said of a file that the file system does not let us take."""
    return Outcome(file_id, Fate.IGNORED, "cannot_take", CANNOT_TAKE, CANNOT_TAKE_REMEDY)


def too_large(file_id: int, size_bytes: int, limit: int) -> Outcome:
    """Return what is said of a file for whose copy there is no room, and that is larger than what is filed at most."""
    sentence = (
        f"The file has {size_bytes >> 20} MiB; this appliance takes at most {limit >> 20} MiB. It stays where it lies, "
        "for there is no room to copy it."
    )
    return Outcome(file_id, Fate.IGNORED, "too_large", sentence, TOO_LARGE_REMEDY)


def claim_of_entry(number: int, entry: Entry, seen_at: float) -> Claim:
    """Return a file of an inbox that is in the spool now."""
    return Claim(
        file_id=number,
        source=entry.inbox.source,
        name=entry.name,
        size_bytes=entry.size_bytes,
        seen_at=seen_at,
        modality=entry.inbox.modality,
        body_part=entry.inbox.body_part,
        priority=entry.inbox.priority,
        owner=entry.inbox.owner,
    )
