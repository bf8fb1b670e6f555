"""The ways out for notices: a webhook and e-mail. What leaves is put into words here; a child carries it outside.

What a server answers is read by that child alone, which is killed when its time or its memory is over.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from clinic_ai.confinement import Confinement
from clinic_ai.critical.errand import EMAIL, WEBHOOK, Errand, Taken
from clinic_ai.errors import ChildRefused, ClinicError
from clinic_ai.processes import ChildSpec, Crew
from clinic_ai.settings import EmailSettings, NotifySettings
from clinic_ai.store.critical import URGENCY, Notice, sentence

ALTOGETHER = 3
"""How many times ``notify.timeout_s`` a whole notice may take, however busily the server talks."""
START_S = 30.0
_SPEC = ChildSpec(
    kind="messenger",
    name="messenger",
    confinement=Confinement(network=True, data=256 << 20, file_size=1 << 20, open_files=64),
    environment=(("MALLOC_ARENA_MAX", "2"),),
)


class NotSent(ClinicError):
    """A notice did not leave; the message says why, without an answer of the server."""


def payload(notice: Notice) -> dict[str, object]:
    """Return what a notice says, as JSON: ids and numbers of ours and one fixed sentence."""
    return {
        "event": "critical_finding",
        "alert": notice.alert_id,
        "study": notice.study_id,
        "category": notice.category,
        "act_within": URGENCY[notice.category],
        "notice": notice.number,
        "escalated": notice.escalated,
        "raised_at": _utc(notice.raised_at).isoformat(timespec="seconds"),
        "sentence": sentence(notice.study_id, notice.category, escalated=notice.escalated),
        "acknowledge": f"clinic-ai alert ack {notice.alert_id}",
    }


def channels_of(settings: NotifySettings) -> tuple[str, ...]:
    """Return the channels that are switched on."""
    return (WEBHOOK,) * bool(settings.webhook.url) + (EMAIL,) * bool(settings.email.host)


def send(crew: Crew, channel: str, settings: NotifySettings, home: Path, notice: Notice) -> None:
    """Send a notice by a channel. Raise NotSent if the server did not take it, within three times the time-out."""
    to = tuple(_recipients(settings.email, notice)) if channel == EMAIL else ()
    words = mail(settings.email, notice).as_string() if channel == EMAIL else json.dumps(payload(notice))
    errand = Errand(channel=channel, settings=settings, home=str(home), words=words, to=to)
    what = "mail server" if channel == EMAIL else "webhook"
    try:
        child = crew.start(_SPEC)
        try:
            child.call("ready", Taken(), Taken, timeout_s=START_S)
            child.call("carry", errand, Taken, timeout_s=ALTOGETHER * settings.timeout_s)
        finally:
            child.kill()
    except ChildRefused as error:
        raise NotSent(error.message, remedy=error.remedy) from error
    except ClinicError as error:
        raise NotSent(f"The {what} did not take the notice: {error.message}") from error
    except OSError as error:
        raise NotSent(f"The child that carries notices cannot be started: {error.strerror}.") from error


def mail(email: EmailSettings, notice: Notice) -> EmailMessage:
    """Return a notice as a message."""
    words = payload(notice)
    message = EmailMessage()
    late = ", nobody has acknowledged it" if notice.escalated else ""
    message["Subject"] = f"Critical finding, category {notice.category}, study {notice.study_id}{late}"
    message["From"] = email.sender
    message["To"] = ", ".join(_recipients(email, notice))
    message["Date"] = format_datetime(_utc(time.time()))
    message["Message-ID"] = f"<alert-{notice.alert_id}-{notice.number}-{notice.attempt}.{notice.study_id}@clinic-ai>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"{words['sentence']}\n\nRaised at {words['raised_at']}; this is notice {notice.number}.\n"
        f"What it is stands in the appliance, for clinicians: clinic-ai alert list --critical\n"
        f"It repeats until a person acknowledges it: {words['acknowledge']}\n"
    )
    return message


def _recipients(email: EmailSettings, notice: Notice) -> list[str]:
    return list(dict.fromkeys((*email.to, *notice.escalate_to)))


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
