"""Examines the audit of a home: its chain, its heads, and the documents whose hashes it holds."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_ai.heads.head import Check, heads
from clinic_ai.heads.keys import is_signed, public_key
from clinic_ai.home import Home
from clinic_ai.store import audit, vouched
from clinic_ai.store.database import Database, integrity_problems

RESTORE = (
    "Stop the daemon, keep a copy of the home as evidence, compare with the newest file of backups/ and with exports "
    "of the audit that are kept elsewhere; then restore that backup."
)


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written; ``seq`` is the row of the audit, None if it is no row."""

    seq: int | None
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Examined:
    """What an examination found. ``signed`` is the number of the row that the newest good head vouches for."""

    rows: int
    signed: int
    documents: int
    findings: tuple[Finding, ...]


def examine(home: Home, database: Database, check: Check = is_signed) -> Examined:
    """Read the whole audit and all that it vouches for; takes seconds for a million rows."""
    found = [Finding(None, f"The database is damaged: {words}.", RESTORE) for words in integrity_problems(database)[:5]]
    signed, public = 0, public_key(home)
    if public is None:
        found.append(Finding(None, "The home has no key that signs the audit.", "Start the daemon; it makes one."))
    with database.read() as connection:
        newest = audit.newest(connection)
        broken = audit.chain_break(connection)
        if broken is not None:
            found.append(Finding(broken.seq, broken.sentence, RESTORE))
        for place, head in heads(home):
            if head is None or not head.holds(public, check):
                words = f"The signed head {place.name} was changed or is not of this home's key."
                found.append(Finding(None, words, RESTORE))
            elif newest is None or head.seq > newest.seq:
                there = 0 if newest is None else newest.seq
                words = f"The audit ends with row {there}, and {place.name} vouches for row {head.seq}: it was cut off."
                found.append(Finding(there + 1, words, f"{RESTORE} {_kept(place.name)}"))
            elif audit.hash_at(connection, head.seq) != head.hash:
                words = f"Row {head.seq} of the audit is not the one of {place.name}: the log was written anew."
                found.append(Finding(head.seq, words, f"{RESTORE} {_kept(place.name)}"))
            else:
                signed = max(signed, head.seq)
        documents, changed = vouched.compare(connection)
    found += [Finding(change.seq, change.sentence, RESTORE) for change in changed]
    return Examined(0 if newest is None else newest.seq, signed, documents, tuple(found))


def _kept(name: str) -> str:
    return f"If a restored backup explains it, note that and move state/audit/{name} out of the home."
