"""Alerts: who is told what, and the person who acknowledges one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as FromPath

from clinic_ai.control.alert_views import AckOrder, CriticalView
from clinic_ai.control.asking import Anyone, Content, Having, needs
from clinic_ai.control.pages import AlertPage
from clinic_ai.control.paging import Before, Limit, page_of
from clinic_ai.control.people import Person, stands_for_nobody, user_exists
from clinic_ai.control.services import Services
from clinic_ai.control.views import DoneView, Role
from clinic_ai.errors import Conflict, NotAllowed
from clinic_ai.store import alerts, critical
from clinic_ai.store.critical import URGENCY

router = APIRouter(tags=["alerts"])

AlertNumber = Annotated[int, FromPath(ge=0, le=2**63 - 1)]


@router.get("/v1/alerts")
def get_alerts(services: Having, limit: Limit = 100, before: Before = None) -> AlertPage:
    """Return the alerts nobody acknowledged: about critical findings first, not saying what was found; then the newest.

    A page goes on after an alert that is still open; else the list is read from its beginning.
    """
    with services.database.read() as connection:
        found = alerts.open_alerts(connection)
    rows, goes_on = page_of(found, limit, before, lambda alert: str(alert.alert_id))
    return AlertPage(alerts=rows, next_before=goes_on)


@router.get("/v1/alerts/critical")
def get_critical(services: Having, person: Content) -> list[CriticalView]:  # noqa: ARG001 - the role
    """Return the open alerts about critical findings with what was found, the most urgent first."""
    with services.database.read() as connection:
        found = critical.open_critical(connection)
    return [
        CriticalView(
            alert_id=alert.alert_id,
            study_id=alert.study_id,
            what=alert.what.partition(":")[2],
            category=alert.category,
            act_within=URGENCY[alert.category],
            raised_at=alert.raised_at,
            notices=alert.notices,
            next_at=alert.next_at,
            escalated=alert.escalated,
        )
        for alert in found
    ]


@router.post("/v1/alerts/{alert_id}/acknowledge")
def acknowledge(
    alert_id: AlertNumber, services: Having, person: Anyone, request: Request, order: AckOrder | None = None
) -> DoneView:
    """Close an alert in the name of the person who asks; one about a critical finding, of a clinician."""
    order = order or AckOrder()
    with services.database.read() as connection:
        is_critical = critical.is_critical(connection, alert_id)
    if is_critical:
        needs(Role.CLINICIAN)(request)
    name = _name_of(services, person, order.reviewer, is_critical=is_critical)
    with services.database.write() as connection:
        alerts.acknowledge(connection, alert_id, name, told_to=order.told_to)
    told = f" It was told to {order.told_to}." if order.told_to else ""
    return DoneView(sentence=f"Alert {alert_id} is acknowledged by {name}.{told}")


def _name_of(services: Services, person: Person, reviewer: str | None, *, is_critical: bool) -> str:
    """Return who acknowledges it, with the Unix user. Raise NotAllowed or Conflict if that is no named person."""
    listed = services.settings().review.reviewers
    if reviewer is not None:
        if reviewer not in listed:
            raise NotAllowed(
                f"{reviewer} is not a name of [review] reviewers in clinic.toml.",
                remedy=f"Give one of: {'; '.join(listed)}." if listed else "An administrator lists names there.",
            )
        return f"{reviewer} ({person.name})"
    if is_critical and not user_exists(person.name):
        raise Conflict(
            f"The user {person.uid} has no name, and a critical finding is acknowledged by a named person.",
            remedy="Acknowledge it as a Unix user with a name.",
        )
    if is_critical and stands_for_nobody(person.uid) and person.name not in listed:
        raise NotAllowed(
            f"{person.name} is no named person here, and a critical finding is acknowledged by one.",
            remedy="Acknowledge it as a Unix user of your own who is a clinician in [control] of clinic.toml; or list "
            "names under [review] reviewers there, reload, and give yours with --as.",
        )
    return person.name
