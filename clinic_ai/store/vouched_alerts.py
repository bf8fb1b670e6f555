"""Alerts as the audit tells of them: raised, and closed by whom; rows of earlier versions do not name them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from clinic_ai.store.digests import ROW, alert_digest
from clinic_ai.store.raw import Value, raw, values
from clinic_ai.store.tables import alerts, critical_alerts
from clinic_ai.store.vouched import Change, details_of

WITHDRAWN = "clinic-ai: the cause is gone"
"""Who acknowledges an alert whose cause is gone."""
_NULL = Value("null", None)


@dataclass
class _Told:
    """What the audit says about one alert; 0: no row tells when it was raised, or closed."""

    raised: int = 0
    digest: object = None
    critical: bool = False
    closed: int = 0
    by: str = ""
    details: dict[str, object] = field(default_factory=dict)


@dataclass
class _Found:
    """What stands in the tables about one alert."""

    by: Value
    at: Value
    told_to: Value = _NULL
    critical: bool = False


def compare_alerts(connection: Connection) -> list[Change]:
    """Return the alerts that are gone, not what was raised, or not acknowledged by whom the audit says."""
    told, found = _told(connection), _found(connection)
    changes = []
    for number in sorted({*told, *found}):
        about = told.get(number, _Told())
        here = found.get(number)
        if here is None:
            changes.append(Change(about.raised or about.closed, f"Alert {number} is gone."))
        elif about.digest is not None and alert_digest(connection, number) != about.digest:
            changes.append(Change(about.raised, f"Alert {number} is not what was raised."))
        elif about.critical and not here.critical:
            changes.append(Change(about.raised, f"What was critical about alert {number} is gone."))
        elif problem := _of_closing(number, about, here):
            changes.append(Change(about.closed or None, problem))
    return changes


def _told(connection: Connection) -> dict[int, _Told]:
    told: dict[int, _Told] = {}
    actions = ("alert.raised", "alert.acknowledged", "alert.withdrawn", "critical.found")
    for entry, details in details_of(connection, *actions):
        number = details.get("alert")
        if entry.action == "alert.acknowledged":
            word = entry.subject.removeprefix("alert ")
            number = int(word) if word.isascii() and word.isdecimal() else None
        if not isinstance(number, int):
            continue  # rows of earlier versions do not say which alert was raised
        about = told.setdefault(number, _Told())
        if entry.action == "alert.raised":
            about.raised, about.digest = entry.seq, details.get(ROW)
        elif entry.action == "critical.found":
            about.raised, about.critical = about.raised or entry.seq, True
        else:
            by = WITHDRAWN if entry.action == "alert.withdrawn" else entry.actor
            about.closed, about.by, about.details = entry.seq, by, details
    return told


def _found(connection: Connection) -> dict[int, _Found]:
    found = {}
    for row in connection.execute(raw(alerts, "alert_id", "acknowledged_by", "acknowledged_at")):
        number, by, at = values(row)
        found[int(number.content or 0)] = _Found(by, at)
    for row in connection.execute(raw(critical_alerts, "alert_id", "told_to")):
        number, told_to = values(row)
        about = found.get(int(number.content or 0))
        if about is not None:
            about.told_to, about.critical = told_to, True
    return found


def _of_closing(number: int, told: _Told, found: _Found) -> str:
    """Return what is wrong with who acknowledged an alert, nothing if all is well."""
    if told.closed:
        if found.by.text() != told.by or ("at" in told.details and found.at.content != told.details["at"]):
            return f"Alert {number} was closed by {told.by}; that is not what stands there now."
        if found.critical and found.told_to.text() != told.details.get("told_to", ""):
            return f"To whom alert {number} was told is not what was said."
        return ""
    # Earlier versions withdrew alerts without a row of the audit.
    before = told.digest is None and found.by.text() == WITHDRAWN
    if (found.by.kind, found.at.kind) != ("null", "null") and not before:
        return f"Alert {number} is closed by {found.by.shown()}; no row of the audit says so."
    return ""
