"""Examines the audit of a home: its chain, its heads, and the documents whose hashes it holds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clinic_ai.heads.head import IN_DATABASE, Check, heads, lost, misfits
from clinic_ai.heads.keys import is_signed, public_key
from clinic_ai.home import Home
from clinic_ai.store import audit, vouched, vouched_alerts
from clinic_ai.store.database import Damaged, Database, integrity_problems

RESTORE = (
    "Stop the daemon, keep a copy of the home as evidence, compare with the newest file of backups/ and with exports "
    "of the audit that are kept elsewhere; then restore that backup."
)
LOST = (
    "Compare with exports of the audit that are kept elsewhere. If a restored backup or a lost disk explains it, start "
    "the daemon: it signs again where one head is left. Where none is, note why, move state/audit out of the home and "
    "start again: a new key is made, and an alert says so."
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


def examine(home: Home, database: Database, check: Check = is_signed, now: float | None = None) -> Examined:
    """Read the whole audit and all that it vouches for; takes seconds for a million rows.

    ``now`` is UTC seconds, None: those of the clock.
    """
    found: list[Finding] = []
    public = public_key(home)
    if public is None:
        found.append(Finding(None, "The home has no key that signs the audit.", "Start the daemon; it makes one."))
    rows = signed = documents = 0
    try:
        for words in integrity_problems(database)[:5]:
            found.append(Finding(None, f"The database is damaged: {words}.", RESTORE))
        with database.read() as connection:
            kept = heads(home, connection)
            newest = audit.newest(connection)
            rows = 0 if newest is None else newest.seq
            broken = audit.chain_break(connection)
            if broken is not None:
                found.append(Finding(broken.seq, broken.sentence, RESTORE))
            for one in kept:
                wrong = misfits(connection, [one], public, check)
                found += [Finding(it.seq, it.sentence, f"{RESTORE} {_kept(it.kept)}".strip()) for it in wrong]
                if one.head is not None and not wrong:
                    signed = max(signed, one.head.seq)
            gone = lost(connection, kept, time.time() if now is None else now) if public is not None else ""
            if gone:
                found.append(Finding(None, gone, LOST))
            documents, changed = vouched.compare(connection)
            changed += vouched_alerts.compare_alerts(connection)
            found += [Finding(change.seq, change.sentence, RESTORE) for change in changed]
    except Damaged:
        found.append(Finding(None, "The database is damaged: not all of it can be read.", RESTORE))
    return Examined(rows, signed, documents, tuple(found))


def _kept(name: str) -> str:
    if not name or name == IN_DATABASE:
        return ""
    return f"If a restored backup explains it, note that and move state/audit/{name} out of the home."
