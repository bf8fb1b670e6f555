"""Alerts: raised in the transaction of what they are about, open until a named person acknowledges them."""

from __future__ import annotations

import time

from sqlalchemy import Connection, func, insert, select, update

from clinic_ai.domain import Alert
from clinic_ai.errors import NotFound
from clinic_ai.store import critical
from clinic_ai.store.audit import record
from clinic_ai.store.digests import ROW, alert_digest
from clinic_ai.store.tables import alerts
from clinic_ai.store.vouched_alerts import WITHDRAWN


def raise_alert(connection: Connection, code: str, subject: str, sentence: str, remedy: str) -> None:
    """Raise an alert, or count it if one of this code and subject is open."""
    now = time.time()
    # The name of a file may be no text, and is no reason to lose an alert.
    subject, sentence, remedy = (
        text.encode(errors="backslashreplace").decode() for text in (subject, sentence, remedy)
    )
    same = (alerts.c.code == code) & (alerts.c.subject == subject) & alerts.c.acknowledged_at.is_(None)
    counted = connection.execute(
        update(alerts).where(same).values(count=alerts.c.count + 1, last_at=now, sentence=sentence, remedy=remedy)
    )
    if counted.rowcount:
        return
    made = connection.execute(
        insert(alerts).values(code=code, subject=subject, sentence=sentence, remedy=remedy, first_at=now, last_at=now)
    )
    (alert_id,) = made.inserted_primary_key or (0,)
    details = {"code": code, "alert": alert_id, ROW: alert_digest(connection, alert_id)}
    record(connection, actor="clinic-ai", action="alert.raised", subject=subject, details=details)


def restate(connection: Connection, code: str, subject: str, sentence: str) -> None:
    """Say in other words what an open alert is about; one that was acknowledged stays closed."""
    same = (alerts.c.code == code) & (alerts.c.subject == subject) & alerts.c.acknowledged_at.is_(None)
    connection.execute(update(alerts).where(same).values(sentence=sentence))


def count_open(connection: Connection) -> tuple[int, int]:
    """Return how many alerts nobody acknowledged yet, and how many of these are about critical findings."""
    urgent = func.count().filter(alerts.c.code == critical.CODE)
    row = connection.execute(select(func.count(), urgent).where(alerts.c.acknowledged_at.is_(None))).one()
    return row[0], row[1]


def open_alerts(connection: Connection, limit: int | None = None) -> list[Alert]:
    """Return the alerts nobody acknowledged yet, or the first ``limit``: about critical findings, then the newest."""
    order = (alerts.c.code == critical.CODE).desc(), alerts.c.last_at.desc(), alerts.c.alert_id.desc()
    query = select(alerts).where(alerts.c.acknowledged_at.is_(None)).order_by(*order).limit(limit)
    return [
        Alert(
            alert_id=row.alert_id,
            code=row.code,
            subject=row.subject,
            sentence=row.sentence,
            remedy=row.remedy,
            count=row.count,
            first_at=row.first_at,
            last_at=row.last_at,
        )
        for row in connection.execute(query)
    ]


def is_open(connection: Connection, code: str, subject: str) -> bool:
    """Return whether an alert of this code and subject waits for somebody."""
    same = (alerts.c.code == code) & (alerts.c.subject == subject) & alerts.c.acknowledged_at.is_(None)
    return connection.execute(select(alerts.c.alert_id).where(same)).first() is not None


def acknowledge(connection: Connection, alert_id: int, by: str, *, told_to: str = "") -> None:
    """Close an alert in the name of a person, who may say to whom it was told.

    Raise NotFound if no open alert has this number.
    """
    now = time.time()
    closed = connection.execute(
        update(alerts)
        .where(alerts.c.alert_id == alert_id, alerts.c.acknowledged_at.is_(None))
        .values(acknowledged_by=by, acknowledged_at=now)
    )
    if not closed.rowcount:
        raise NotFound(f"There is no open alert {alert_id}.", remedy="`clinic-ai alert list` shows the open ones.")
    critical.close(connection, alert_id, told_to, now)
    details = {"at": now, **({"told_to": told_to} if told_to else {})}
    record(connection, actor=by, action="alert.acknowledged", subject=f"alert {alert_id}", details=details)


def withdraw(connection: Connection, code: str, subject: str) -> None:
    """Close an alert whose cause is gone; one about a critical finding only a person closes."""
    if code == critical.CODE:
        raise ValueError("An alert about a critical finding is closed by a person.")
    now = time.time()
    same = (alerts.c.code == code) & (alerts.c.subject == subject) & alerts.c.acknowledged_at.is_(None)
    for alert_id in connection.execute(select(alerts.c.alert_id).where(same)).scalars().all():
        closed = update(alerts).where(alerts.c.alert_id == alert_id)
        connection.execute(closed.values(acknowledged_by=WITHDRAWN, acknowledged_at=now))
        details = {"alert": alert_id, "code": code, "at": now}
        record(connection, actor="clinic-ai", action="alert.withdrawn", subject=subject, details=details)
