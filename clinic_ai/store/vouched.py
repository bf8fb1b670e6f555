"""What other tables hold that the audit vouches for: verdicts, analyses, decisions of persons, and states.

A row of the audit names the SHA-256 of what was written with it. Rows of earlier versions name less; that counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select

from clinic_ai.store.audit import KEY, Entry, whole_rows
from clinic_ai.store.digests import FILES, ROW, artefact_digest, files_digest, review_digest
from clinic_ai.store.raw import Value, raw, values
from clinic_ai.store.tables import analyses, artefacts, deliveries, reviews


@dataclass(frozen=True)
class Change:
    """Something that is not what row ``seq`` of the audit says, None if no row says it."""

    seq: int | None
    sentence: str


def compare(connection: Connection) -> tuple[int, list[Change]]:
    """Return how many documents the audit vouches for, and what is gone or not what was written."""
    known, changes = 0, []
    for compared in (_analyses, _artefacts, _reviews):
        number, found = compared(connection)
        known += number
        changes += found
    return known, [*changes, *_deliveries(connection)]


@dataclass
class _Told:
    """What the audit says about one thing: the last row about it counts."""

    seq: int
    study: str
    state: str = ""
    details: dict[str, object] | None = None


@dataclass(frozen=True)
class _Found:
    """What stands in the table about one artefact; ``verdict`` is the SHA-256 of that."""

    state: Value
    verdict: str
    signed_by: Value
    review_id: Value


def _analyses(connection: Connection) -> tuple[int, list[Change]]:
    query = raw(analyses, "job_id", "document")
    present = {job.shown(): _sha256(document) for job, document in map(values, _streamed(connection, query))}
    known, changes = 0, []
    for entry, details in details_of(connection, "analysis.%"):
        if KEY not in details:
            continue
        known += 1
        name = str(details.get("job", ""))
        what = f"The analysis of job {name} of study {entry.subject}"
        if name not in present:
            changes.append(Change(entry.seq, f"{what} is gone."))
        elif present[name] != details[KEY]:
            changes.append(Change(entry.seq, f"{what} is not what was decided."))
    return known, changes


def _streamed(connection: Connection, query: Select[Any]) -> Iterable[Row[Any]]:
    """Return the rows of a query, few at a time: all documents of years do not fit into memory."""
    return connection.execute(query.execution_options(yield_per=100))


def _sha256(value: Value) -> str:
    """Return the hash of a text, nothing of what is none."""
    return (
        hashlib.sha256(value.content).hexdigest() if value.kind == "text" and isinstance(value.content, bytes) else ""
    )


def _artefacts(connection: Connection) -> tuple[int, list[Change]]:
    """Compare verdict, row, files and state of each artefact with the rows about it."""
    told: dict[str, _Told] = {}
    for entry, details in details_of(connection, "artefact.%"):
        name = details.get("artefact")
        if not isinstance(name, str):
            continue
        before = told.get(name)
        born = before.details if before is not None else details
        told[name] = _Told(entry.seq, entry.subject, entry.action.removeprefix("artefact.").upper(), born)
        replaced = told.get(str(details.get("replaces", "")))
        if replaced is not None:
            replaced.seq, replaced.state = entry.seq, "SUPERSEDED"
    known = 0
    changes: list[Change] = []
    present: dict[str, _Found] = {}
    query = raw(artefacts, "artefact_id", "study_id", "state", "verdict", "signed_by", "review_id")
    for row in _streamed(connection, query):
        named, study, state, verdict, signed_by, review_id = values(row)
        name = named.shown()
        present[name] = _Found(state, _sha256(verdict), signed_by, review_id)
        if name not in told:
            words = f"Artefact {name} of study {study.shown()} stands in no row of the audit."
            if state.text() == "FINAL":
                words = f"Artefact {name} of study {study.shown()} is FINAL; no sign-off in the audit says so."
            changes.append(Change(None, words))
    for name, about in told.items():
        details = about.details or {}
        known += KEY in details
        problem = _of_artefact(connection, name, about, details, present.get(name))
        if problem:
            changes.append(Change(about.seq, problem))
    return known, changes


def _of_artefact(
    connection: Connection, name: str, told: _Told, details: dict[str, object], found: _Found | None
) -> str:
    """Return what is wrong with an artefact that the audit tells of, nothing if all is well."""
    what = f"artefact {name} of study {told.study}"
    if found is None:
        return f"The decision about {what} is gone."
    state = found.state
    if state.text() == "FINAL" and (
        told.state != "FINAL"
        or (found.signed_by.text(), found.review_id.text()) != (details.get("signed_by"), details.get("review"))
    ):
        return f"The state of {what} is FINAL; no sign-off in the audit says so."
    problem = ""
    if KEY in details and found.verdict != details[KEY]:
        problem = f"The decision about {what} is not what was decided."
    elif state.text() != told.state:
        problem = f"The state of {what} is {state.shown()}; the audit says {told.state}."
    elif ROW in details and artefact_digest(connection, name) != details[ROW]:
        problem = f"The row of {what} is not what was written."
    elif FILES in details and files_digest(connection, name) != details[FILES]:
        problem = f"The list of files of {what} is not what was written."
    return problem


def _reviews(connection: Connection) -> tuple[int, list[Change]]:
    """Compare each decision of a person, and the consent to learn from it, with the rows about it."""
    told: dict[str, _Told] = {}
    for entry, details in details_of(connection, "review.%"):
        name = details.get("review")
        if not isinstance(name, str):
            continue
        if entry.action == "review.consent":
            if name in told:
                told[name].seq, (told[name].details or {})["consent"] = entry.seq, details.get("to")
            continue
        told[name] = _Told(entry.seq, entry.subject, entry.action.removeprefix("review."), details)
    changes, present = [], {}
    query = raw(reviews, "review_id", "artefact_id", "study_id", "version", "decision", "reviewer", "digest", "consent")
    for row in connection.execute(query):
        named, *rest = values(row)
        present[named.shown()] = rest
        if named.shown() not in told:
            words = f"Decision {named.shown()} of study {rest[1].shown()} stands in no row of the audit."
            changes.append(Change(None, words))
    for name, about in told.items():
        details, found = about.details or {}, present.get(name)
        if found is None:
            changes.append(Change(about.seq, f"Decision {name} of study {about.study} is gone."))
            continue
        wanted = [details.get("artefact"), about.study, details.get("version"), about.state]
        wanted += [details.get("reviewer"), details.get("shown")]
        if [_plain(value) for value in found[:-1]] != wanted or (
            ROW in details and review_digest(connection, name) != details[ROW]
        ):
            changes.append(Change(about.seq, f"Decision {name} of study {about.study} is not what was decided."))
        elif _plain(found[-1]) != int(bool(details.get("consent"))):
            words = f"Whether may be learned from decision {name} of study {about.study} is not what was said last."
            changes.append(Change(about.seq, words))
    return len(told), changes


def _plain(value: Value) -> object:
    return value.content if value.kind == "integer" else value.text()


def _deliveries(connection: Connection) -> Iterator[Change]:
    """Yield the deliveries that were made or given up and are not in that state."""
    query = raw(deliveries, "delivery_id", "state")
    present = {name.shown(): state for name, state in map(values, connection.execute(query))}
    allowed = {"delivery.sent": {"SENT", "RECEIPTED"}, "delivery.given_up": {"FAILED"}}
    for entry, details in details_of(connection, *allowed):
        name = details.get("delivery")
        if not isinstance(name, str):
            continue
        state = present.get(name)
        if state is None:
            yield Change(entry.seq, f"Delivery {name} of study {entry.subject} is gone.")
        elif state.text() not in allowed[entry.action]:
            yield Change(
                entry.seq, f"Delivery {name} of study {entry.subject} is {state.shown()}; it was {entry.action}."
            )


def details_of(connection: Connection, *actions: str) -> Iterator[tuple[Entry, dict[str, object]]]:
    """Yield the rows whose action is like one of these, with their details."""
    for entry in whole_rows(connection, *actions):
        try:
            found = json.loads(entry.details)
        except ValueError:
            continue  # the chain says that this row was changed
        if isinstance(found, dict):
            yield entry, found
