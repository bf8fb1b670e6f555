"""The ways out for notices: a webhook and e-mail. Each sends fixed words, to servers of the named networks alone."""

from __future__ import annotations

import ipaddress
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from clinic_ai.errors import ClinicError
from clinic_ai.settings import EmailSettings, NotifySettings
from clinic_ai.store.critical import URGENCY, Notice, sentence

WEBHOOK = "webhook"
EMAIL = "email"


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


def send(channel: str, settings: NotifySettings, home: Path, notice: Notice) -> None:
    """Send a notice by a channel. Raise NotSent if the server did not take it."""
    _SENDERS[channel](settings, home, notice)


# ------------------------------------------------------------ webhook


def _post(settings: NotifySettings, home: Path, notice: Notice) -> None:
    import httpx

    webhook = settings.webhook
    try:
        url = httpx.URL(webhook.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = _address(url.host, port, settings)
        headers = {"Host": url.netloc.decode("ascii"), "User-Agent": "clinic-ai"}
        if webhook.token_file:
            headers["Authorization"] = f"Bearer {_secret(home, webhook.token_file)}"
        with (
            # Neither a proxy of the environment nor a redirection may lead it elsewhere.
            httpx.Client(
                trust_env=False,
                follow_redirects=False,
                timeout=settings.timeout_s,
                verify=_context(home, webhook.ca),
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=address),
                json=payload(notice),
                headers=headers,
                extensions={"sni_hostname": url.host},
            ) as answer,
        ):
            if not answer.is_success:  # its body is nobody's business: it is not read
                raise NotSent(f"The webhook {url.host} answered {answer.status_code}.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise NotSent(f"The webhook did not take the notice ({type(error).__name__}).") from error


# ------------------------------------------------------------ e-mail


class _Pinned(smtplib.SMTP):
    """A connection to the address that was checked, whatever the name would resolve to a moment later."""

    checked = ""
    _host: str

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - smtplib's signature
        return socket.create_connection((self.checked, port), timeout)


class _PinnedTls(smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""

    checked = ""
    _host: str

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = socket.create_connection((self.checked, port), timeout)
        return self.context.wrap_socket(plain, server_hostname=host)


def _mail(settings: NotifySettings, home: Path, notice: Notice) -> None:
    email = settings.email
    try:
        context = _context(home, email.ca)
        server: _Pinned | _PinnedTls
        if email.tls == "tls":
            server = _PinnedTls(timeout=settings.timeout_s, local_hostname="clinic-ai", context=context)
        else:
            server = _Pinned(timeout=settings.timeout_s, local_hostname="clinic-ai")
        server.checked = _address(email.host, email.port, settings)
        server._host = email.host  # smtplib sets it only if it connects at once
        server.connect(email.host, email.port)
        with server:
            if email.tls == "starttls":
                server.starttls(context=context)
            if email.user:
                server.login(email.user, _secret(home, email.password_file))
            message = mail(email, notice)
            refused = server.send_message(message, to_addrs=_recipients(email, notice))
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotSent(f"The mail server did not take the notice ({type(error).__name__}).") from error
    if refused:
        raise NotSent(f"The mail server refused {len(refused)} of the addresses.")


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


# ------------------------------------------------------------ both


def _address(host: str, port: int, settings: NotifySettings) -> str:
    """Return the address of a server. Raise NotSent if any it has is outside ``notify.networks``."""
    networks = [ipaddress.ip_network(network, strict=False) for network in settings.networks]
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if not any(ipaddress.ip_address(address.partition("%")[0]) in network for network in networks):
            raise NotSent(f"The server {host} is not in the networks of notify.networks; it was not spoken to.")
    return found[0]


def _context(home: Path, ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(home / ca) if ca else None)


def _secret(home: Path, file: str) -> str:
    return (home / file).read_text(encoding="utf-8").strip()


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


_SENDERS: Mapping[str, Callable[[NotifySettings, Path, Notice], Any]] = {WEBHOOK: _post, EMAIL: _mail}
