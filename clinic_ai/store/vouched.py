"""Documents in other tables that the audit vouches for by their SHA-256: decisions of the guard, and analyses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from clinic_ai.store.audit import KEY, document_digest
from clinic_ai.store.tables import analyses, artefacts, audit


@dataclass(frozen=True)
class Change:
    """A document that is not what row ``seq`` of the audit says, None if no row says it."""

    seq: int | None
    sentence: str


def compare(connection: Connection) -> tuple[int, list[Change]]:
    """Return how many documents the audit vouches for, and those that are gone or not what was written."""
    known, signed = 0, {}
    changes: list[Change] = []
    for what, key, prefix, documents in _KINDS:
        present: dict[str, str] = {row[0]: row[1] for row in connection.execute(documents)}
        rows = select(audit.c.seq, audit.c.action, audit.c.subject, audit.c.details)
        for row in connection.execute(rows.where(audit.c.action.like(f"{prefix}%")).order_by(audit.c.seq)):
            details = _details(row.details)
            if row.action == "artefact.final":
                signed[str(details.get("artefact"))] = str(details.get("signed_by"))
            if KEY not in details:
                continue
            known += 1
            name = str(details.get(key, ""))
            text = present.get(name)
            if text is None:
                changes.append(Change(row.seq, f"{what} {name} of study {row.subject} is gone."))
            elif document_digest(text) != details[KEY]:
                changes.append(Change(row.seq, f"{what} {name} of study {row.subject} is not what was decided."))
    return known, changes + _unsigned(connection, signed)


def _unsigned(connection: Connection, signed: dict[str, str]) -> list[Change]:
    """Return the FINAL artefacts whose signature is not the one that the audit tells of."""
    query = select(artefacts.c.artefact_id, artefacts.c.signed_by, artefacts.c.study_id)
    return [
        Change(None, f"Artefact {row.artefact_id} of study {row.study_id} is FINAL; no sign-off in the audit says so.")
        for row in connection.execute(query.where(artefacts.c.state == "FINAL"))
        if signed.get(row.artefact_id) != row.signed_by
    ]


def _details(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}  # the chain says that this row was changed
    return found if isinstance(found, dict) else {}


_KINDS: tuple[tuple[str, str, str, Any], ...] = (
    ("The decision about artefact", "artefact", "artefact.", select(artefacts.c.artefact_id, artefacts.c.verdict)),
    ("The analysis of job", "job", "analysis.", select(analyses.c.job_id, analyses.c.document)),
)
