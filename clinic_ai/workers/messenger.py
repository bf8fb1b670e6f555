"""The child that carries a notice outside: it speaks to servers of the named networks alone, and reads their answers.

Whatever a server says, it is this child that has to hear it: the daemon kills it when the time or the memory is over.
"""

from __future__ import annotations

from clinic_ai.confinement import confine

if __name__ == "__main__":  # the limits come before the libraries that speak to strangers
    CHANNEL, _ = confine()

import email
import email.policy
import ipaddress
import os
import smtplib
import socket
import ssl
import stat
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path

import httpx

from clinic_ai.critical.errand import EMAIL, WEBHOOK, Errand, Taken
from clinic_ai.errors import ClinicError
from clinic_ai.settings import NotifySettings
from clinic_ai.wire import Call, Method, serve

MAX_SECRET_BYTES = 64 * 1024


def carry(errand: Errand, _call: Call) -> Taken:
    """Carry a notice outside. Raise ClinicError if the server did not take it."""
    _SENDERS[errand.channel](errand)
    return Taken()


def ready(_task: Taken, _call: Call) -> Taken:
    """Say that what is needed is loaded: from now on the time counts that the server takes."""
    return Taken()


# ------------------------------------------------------------ webhook


def _post(errand: Errand) -> None:
    settings, home = errand.settings, Path(errand.home)
    webhook = settings.webhook
    try:
        url = httpx.URL(webhook.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = _address(url.host, port, settings)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "clinic-ai",
            "Content-Type": "application/json",
        }
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
                content=errand.words.encode(),
                headers=headers,
                extensions={"sni_hostname": url.host},
            ) as answer,
        ):
            if not answer.is_success:  # its body is nobody's business: it is not read
                raise ClinicError(f"The webhook {url.host} answered {answer.status_code}.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ClinicError(f"The webhook did not take the notice: {_why(error)}.") from error


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


def _mail(errand: Errand) -> None:
    home, to = Path(errand.home), errand.settings.email
    settings = errand.settings
    try:
        context = _context(home, to.ca)
        server: _Pinned | _PinnedTls
        if to.tls == "tls":
            server = _PinnedTls(timeout=settings.timeout_s, local_hostname="clinic-ai", context=context)
        else:
            server = _Pinned(timeout=settings.timeout_s, local_hostname="clinic-ai")
        server.checked = _address(to.host, to.port, settings)
        server._host = to.host  # smtplib sets it only if it connects at once
        server.connect(to.host, to.port)
        with server:
            if to.tls == "starttls":
                server.starttls(context=context)
            if to.user:
                server.login(to.user, _secret(home, to.password_file))
            message = email.message_from_string(errand.words, EmailMessage, policy=email.policy.default)
            refused = server.send_message(message, to_addrs=errand.to)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise ClinicError(f"The mail server did not take the notice: {_why(error)}.") from error
    if refused:
        raise ClinicError(f"The mail server refused {len(refused)} of the addresses.")


# ------------------------------------------------------------ both


def _address(host: str, port: int, settings: NotifySettings) -> str:
    """Return the address of a server. Raise ClinicError if any it has is outside ``notify.networks``."""
    networks = [ipaddress.ip_network(network, strict=False) for network in settings.networks]
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if not any(ipaddress.ip_address(address.partition("%")[0]) in network for network in networks):
            raise ClinicError(f"The server {host} is not in the networks of notify.networks; it was not spoken to.")
    return found[0]


def _why(error: BaseException) -> str:
    """Return what went wrong in words of this machine; what a server said is left out."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted, {cause.verify_message.rstrip('.')}"
        if isinstance(cause, OSError) and not isinstance(cause, smtplib.SMTPException) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _context(home: Path, ca: str) -> ssl.SSLContext:
    if not ca:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=home / ca)
    except OSError as error:  # also of ssl, where it holds no certificate
        why = error.strerror or "it holds no certificate"
        raise ClinicError(f"{home / ca}, which [notify] names, cannot be used: {why}.", remedy=_SECRETS) from error


def _secret(home: Path, file: str) -> str:
    """Return what a file of clinic.toml holds. Raise ClinicError, naming it, if it is none."""
    path = home / file
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ClinicError(f"{path}, which [notify] names, is no regular file.", remedy=_SECRETS)
            return stream.read(MAX_SECRET_BYTES).decode().strip()
    except OSError as error:
        raise ClinicError(
            f"{path}, which [notify] names, cannot be read: {error.strerror}.", remedy=_SECRETS
        ) from error
    except UnicodeDecodeError as error:
        raise ClinicError(f"{path}, which [notify] names, holds no text.", remedy=_SECRETS) from error


_SECRETS = "Name the right file in [notify] of clinic.toml, and let the service read it."
_SENDERS: Mapping[str, Callable[[Errand], None]] = {WEBHOOK: _post, EMAIL: _mail}

if __name__ == "__main__":
    serve(CHANNEL, {"ready": Method(Taken, ready), "carry": Method(Errand, carry)})
