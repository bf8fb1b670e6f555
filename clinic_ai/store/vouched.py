"""What other tables hold that the audit vouches for: verdicts, analyses, decisions of persons, and states.

A row of the audit names the SHA-256 of what was written with it. Rows of earlier versions name less; that counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

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


def _analyses(connection: Connection) -> tuple[int, list[Change]]:
    query = raw(analyses, "job_id", "document")
    present = {job.shown(): document for job, document in map(values, connection.execute(query))}
    known, changes = 0, []
    for entry, details in details_of(connection, "analysis.%"):
        if KEY in details:
            known += 1
            changes += _document(entry.seq, "The analysis of job", details, "job", entry.subject, present)
    return known, changes


def _document(
    seq: int, what: str, details: dict[str, object], key: str, study: str, present: dict[str, Value]
) -> list[Change]:
    name = str(details.get(key, ""))
    found = present.get(name)
    if found is None:
        return [Change(seq, f"{what} {name} of study {study} is gone.")]
    if found.kind != "text" or _sha256(found) != details[KEY]:
        return [Change(seq, f"{what} {name} of study {study} is not what was decided.")]
    return []


def _sha256(value: Value) -> str:
    return hashlib.sha256(value.content).hexdigest() if isinstance(value.content, bytes) else ""


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
    known, changes, present = 0, [], {}
    query = raw(artefacts, "artefact_id", "study_id", "state", "verdict", "signed_by", "review_id")
    for row in connection.execute(query):
        named, study, *rest = values(row)
        name = named.shown()
        present[name] = rest
        if name not in told:
            words = f"Artefact {name} of study {study.shown()} stands in no row of the audit."
            if rest[0].text() == "FINAL":
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
    connection: Connection, name: str, told: _Told, details: dict[str, object], found: list[Value] | None
) -> str:
    """Return what is wrong with an artefact that the audit tells of, nothing if all is well."""
    what = f"artefact {name} of study {told.study}"
    if found is None:
        return f"The decision about {what} is gone."
    state, verdict, signed_by, review_id = found
    if state.text() == "FINAL" and (
        told.state != "FINAL"
        or (signed_by.text(), review_id.text()) != (details.get("signed_by"), details.get("review"))
    ):
        return f"The state of {what} is FINAL; no sign-off in the audit says so."
    problem = ""
    if KEY in details and (verdict.kind != "text" or _sha256(verdict) != details[KEY]):
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
