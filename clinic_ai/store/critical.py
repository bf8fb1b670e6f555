"""Alerts about critical findings: on record with the result, repeated until a named person acknowledges them.

What was found stands in columns that only clinicians are shown. The words of the alert, which everybody sees, and of
the notices that leave, are fixed: study, category, how often, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from clinic_ai.store.audit import record
from clinic_ai.store.digests import ROW, alert_digest
from clinic_ai.store.tables import alerts, critical_alerts, critical_findings, notices

CODE = "critical_finding"
"""Code of the alerts that only a person closes."""
URGENCY = {1: "minutes", 2: "hours", 3: "days"}
REMEDY = "A clinician looks at it and acknowledges: `clinic-ai alert list --critical`, `clinic-ai alert ack`."


@dataclass(frozen=True)
class Hit:
    """An entry of the clinic's list that a result meets. ``what`` is ``condition:KEY`` or ``term:WORDS``."""

    what: str
    category: int
    waits_s: tuple[float, ...]
    escalate_after: int
    escalate_to: tuple[str, ...]


@dataclass(frozen=True)
class CriticalAlert:
    """An open alert about a critical finding. Times are UTC seconds."""

    alert_id: int
    study_id: str
    what: str
    category: int
    raised_at: float
    notices: int
    next_at: float
    escalated: bool


@dataclass(frozen=True)
class Notice:
    """One message that is to leave by a channel; ``escalate_to`` are the addresses beside the usual ones."""

    notice_id: int
    alert_id: int
    study_id: str
    category: int
    number: int
    raised_at: float
    escalated: bool
    escalate_to: tuple[str, ...]
    attempt: int
    acknowledged: bool


def sentence(study_id: str, category: int, *, escalated: bool = False) -> str:
    """Return the fixed words about a critical finding."""
    late = " Nobody has acknowledged it yet." if escalated else ""
    return (
        f"Study {study_id} has a result of category {category} of the clinic's list of critical findings: "
        f"act within {URGENCY[category]}.{late}"
    )


def raise_alerts(
    connection: Connection, job_id: str, study_id: str, version: int, hits: Iterable[Hit], now: float
) -> None:
    """Put what is critical about a result on record, in the transaction that stores the result.

    What is known of this version is not told again; what an open alert tells of an earlier version joins that one.
    """
    for hit in hits:
        if _known(connection, study_id, version, hit.what):
            continue
        alert_id = _open_alert(connection, study_id, hit.what)
        if alert_id is None:
            alert_id = _new_alert(connection, study_id, hit, now)
        else:
            connection.execute(
                update(critical_alerts).where(critical_alerts.c.alert_id == alert_id).values(next_at=now)
            )
        connection.execute(
            insert(critical_findings).values(
                study_id=study_id, version=version, what=hit.what, alert_id=alert_id, job_id=job_id, found_at=now
            )
        )
        record(
            connection,
            actor="clinic-ai",
            action="critical.found",
            subject=study_id,
            details={"alert": alert_id, "version": version, "category": hit.category, "job": job_id},
        )


def _known(connection: Connection, study_id: str, version: int, what: str) -> bool:
    query = select(critical_findings.c.alert_id).where(
        critical_findings.c.study_id == study_id,
        critical_findings.c.version == version,
        critical_findings.c.what == what,
    )
    return connection.execute(query).first() is not None


def _open_alert(connection: Connection, study_id: str, what: str) -> int | None:
    query = _open(critical_alerts.c.alert_id).where(
        critical_alerts.c.study_id == study_id, critical_alerts.c.what == what
    )
    return connection.execute(query).scalar()


def _new_alert(connection: Connection, study_id: str, hit: Hit, now: float) -> int:
    before = connection.execute(
        select(func.count()).select_from(critical_alerts).where(critical_alerts.c.study_id == study_id)
    ).scalar_one()
    # Each finding has an alert of its own: nobody acknowledges by chance what came after they looked.
    subject = f"{study_id} critical {before + 1}"
    made = connection.execute(
        insert(alerts).values(
            code=CODE,
            subject=subject,
            sentence=sentence(study_id, hit.category),
            remedy=REMEDY,
            first_at=now,
            last_at=now,
        )
    )
    (alert_id,) = made.inserted_primary_key or (0,)
    connection.execute(
        insert(critical_alerts).values(
            alert_id=alert_id,
            study_id=study_id,
            what=hit.what,
            category=hit.category,
            waits_s=json.dumps(hit.waits_s),
            escalate_after=hit.escalate_after,
            escalate_to=json.dumps(hit.escalate_to),
            raised_at=now,
            next_at=now,
        )
    )
    details = {"code": CODE, "alert": alert_id, ROW: alert_digest(connection, alert_id)}
    record(connection, actor="clinic-ai", action="alert.raised", subject=subject, details=details)
    return int(alert_id)


def due(connection: Connection, now: float) -> list[int]:
    """Return the open critical alerts whose next notice is due.

    One that is to wait longer than its longest pause was put off by a clock that has been set back since: it is due.
    """
    query = _open(critical_alerts.c.alert_id, critical_alerts.c.next_at, critical_alerts.c.waits_s)
    return [
        row.alert_id
        for row in connection.execute(query.order_by(critical_alerts.c.category, critical_alerts.c.next_at))
        if row.next_at <= now or row.next_at > now + max(json.loads(row.waits_s))
    ]


def announce(connection: Connection, alert_id: int, now: float, channels: Collection[str]) -> CriticalAlert | None:
    """Count one more notice of an alert, put it into the channels, and say when the next one is due.

    Return None if a person acknowledged it meanwhile.
    """
    row = connection.execute(_open(*critical_alerts.c).where(critical_alerts.c.alert_id == alert_id)).first()
    if row is None:
        return None
    number, waits = row.notices + 1, json.loads(row.waits_s)
    fresh = now + waits[min(number, len(waits)) - 1]
    escalated = 0 < row.escalate_after < number
    connection.execute(
        update(critical_alerts).where(critical_alerts.c.alert_id == alert_id).values(notices=number, next_at=fresh)
    )
    connection.execute(
        update(alerts)
        .where(alerts.c.alert_id == alert_id)
        .values(count=number, last_at=now, sentence=sentence(row.study_id, row.category, escalated=escalated))
    )
    # A newer notice says all that an older one would have said.
    _drop(connection, alert_id, "a newer notice took its place", now)
    for channel in channels:
        connection.execute(
            insert(notices).values(
                alert_id=alert_id, number=number, channel=channel, state="PENDING", created_at=now, not_before=now
            )
        )
    record(
        connection,
        actor="clinic-ai",
        action="alert.escalated" if escalated else "alert.repeated" if number > 1 else "alert.announced",
        subject=row.study_id,
        details={"alert": alert_id, "notice": number, "channels": sorted(channels)},
    )
    return replace(_alert(row), notices=number, next_at=fresh, escalated=escalated)


def open_critical(connection: Connection) -> list[CriticalAlert]:
    """Return the open alerts about critical findings, the most urgent and then the oldest first."""
    query = _open(*critical_alerts.c).order_by(critical_alerts.c.category, critical_alerts.c.raised_at)
    return [_alert(row) for row in connection.execute(query)]


def is_critical(connection: Connection, alert_id: int) -> bool:
    """Return whether an alert is about a critical finding."""
    query = select(critical_alerts.c.alert_id).where(critical_alerts.c.alert_id == alert_id)
    return connection.execute(query).first() is not None


def close(connection: Connection, alert_id: int, told_to: str, now: float) -> None:
    """Note to whom a finding was told, and let no notice of its alert leave any more."""
    connection.execute(update(critical_alerts).where(critical_alerts.c.alert_id == alert_id).values(told_to=told_to))
    _drop(connection, alert_id, "acknowledged", now)


def next_notice(connection: Connection, channel: str, now: float, *, longest_s: float) -> Notice | None:
    """Return the pending notice of a channel that is due: the most urgent, then the oldest."""
    row = connection.execute(
        select(*notices.c, *_OF_ALERT, alerts.c.acknowledged_at)
        .join(critical_alerts, critical_alerts.c.alert_id == notices.c.alert_id)
        .join(alerts, alerts.c.alert_id == notices.c.alert_id)
        .where(
            notices.c.state == "PENDING",
            notices.c.channel == channel,
            or_(notices.c.not_before <= now, notices.c.not_before > now + longest_s),
        )
        .order_by(critical_alerts.c.category, notices.c.notice_id)
        .limit(1)
    ).first()
    if row is None:
        return None
    escalated = 0 < row.escalate_after < row.number
    return Notice(
        notice_id=row.notice_id,
        alert_id=row.alert_id,
        study_id=row.study_id,
        category=row.category,
        number=row.number,
        raised_at=row.raised_at,
        escalated=escalated,
        escalate_to=tuple(json.loads(row.escalate_to)) if escalated else (),
        attempt=row.attempt,
        acknowledged=row.acknowledged_at is not None,
    )


def sent(connection: Connection, notice: Notice, channel: str, now: float) -> None:
    """Record that a notice left."""
    _finish(connection, notice.notice_id, "SENT", "", now)
    record(
        connection,
        actor="clinic-ai",
        action="notice.sent",
        subject=notice.study_id,
        details={"alert": notice.alert_id, "notice": notice.number, "channel": channel},
    )


def drop(connection: Connection, notice: Notice, reason: str, now: float) -> None:
    """Record that a notice will not leave, and why."""
    _finish(connection, notice.notice_id, "DROPPED", reason, now)


def postpone(connection: Connection, notice: Notice, error: str, not_before: float) -> None:
    """Record that a notice could not leave, and when it is tried again."""
    connection.execute(
        update(notices)
        .where(notices.c.notice_id == notice.notice_id)
        .values(attempt=notices.c.attempt + 1, error=error, not_before=not_before)
    )


def oldest_pending(connection: Connection, channel: str) -> float | None:
    """Return since when, in UTC seconds, the oldest notice of a channel waits; None if none does."""
    query = select(func.min(notices.c.created_at)).where(notices.c.state == "PENDING", notices.c.channel == channel)
    return connection.execute(query).scalar()


_OF_ALERT = (
    critical_alerts.c.study_id,
    critical_alerts.c.category,
    critical_alerts.c.raised_at,
    critical_alerts.c.escalate_after,
    critical_alerts.c.escalate_to,
)


def _finish(connection: Connection, notice_id: int, state: str, error: str, now: float) -> None:
    connection.execute(
        update(notices).where(notices.c.notice_id == notice_id).values(state=state, error=error, done_at=now)
    )


def _drop(connection: Connection, alert_id: int, reason: str, now: float) -> None:
    connection.execute(
        update(notices)
        .where(notices.c.alert_id == alert_id, notices.c.state == "PENDING")
        .values(state="DROPPED", error=reason, done_at=now)
    )


def _open(*columns: Any) -> Any:
    return (
        select(*columns)
        .join(alerts, alerts.c.alert_id == critical_alerts.c.alert_id)
        .where(alerts.c.acknowledged_at.is_(None))
    )


def _alert(row: Row[Any]) -> CriticalAlert:
    return CriticalAlert(
        alert_id=row.alert_id,
        study_id=row.study_id,
        what=row.what,
        category=row.category,
        raised_at=row.raised_at,
        notices=row.notices,
        next_at=row.next_at,
        escalated=0 < row.escalate_after < row.notices,
    )
