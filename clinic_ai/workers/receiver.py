"""The receiver child: a DICOM storage SCP that writes what arrives, as it arrives, and decodes none of it.

An object is answered with success when its bytes and its name are on the disk. pynetdicom writes each into a
file with a name of our own while it comes; nothing a sender says becomes part of a path. Methods: ``listen``
once, then ``attend`` again and again.
"""

from __future__ import annotations

from clinic_ai import confinement

if __name__ == "__main__":
    CHANNEL, _ = confinement.confine()  # before anything that talks to the network is imported

import errno
import ipaddress
import logging
import os
import secrets
import socket
import ssl
import struct
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from clinic_ai.errors import InputError
from clinic_ai.tasks import AssociationEnd, AttendReport, AttendTask, Caller, Listening, ListenTask, Peer, Refusal
from clinic_ai.wire import Call, Method, serve

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
ARRIVING = ".arriving"
"""Folder of what is not whole yet, in the folder of the peers; no peer has a name with a leading dot."""
LEFTOVER_S = 300.0
"""An arriving file that has not grown for this many time-outs' worth of seconds belongs to no association."""
REFUSALS = 50
"""Different callers that one report names; the others count as one."""
HEADER_BYTES = 6
"""Length of what every PDU begins with: type, a reserved byte, and four bytes of length."""
LARGEST_PDU = 4 << 20
"""Longer ones are taken for an attack on our memory: data come in pieces of network.max_pdu, at most 1 MiB."""
GATHER_S = 0.25
"""How long a report waits for more once there is something to tell."""

_NOT_CALLED = (0x01, 0x01, 0x07)  # rejected for good, by the service user: called AE title not recognised
_NOT_KNOWN = (0x01, 0x01, 0x03)  # the same: calling AE title not recognised

# Object by object into a file: memory stays flat however large an object is, and nothing is decoded.
_config.STORE_RECV_CHUNKED_DATASET = True
# Private and future kinds of objects are taken too; what is of no use is for ingest to say, with a reason.
_config.UNRESTRICTED_STORAGE_SERVICE = True
_config.LOG_HANDLER_LEVEL = "none"


@dataclass
class _Open:
    """What is known of an association that was let in."""

    caller: Caller
    stored: int = 0
    refused: int = 0


def _acknowledge(connection: socket.socket) -> None:
    """Acknowledge what has come at once, which the kernel would else delay by up to 40 ms.

    Senders such as DCMTK leave Nagle's algorithm on: they hold back an object's data until the command before it has
    been acknowledged, so the delay would cost every object as much. It has to be asked for again and again.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Prompt(socket.socket):
    """A connection that acknowledges each PDU when its header is read, and reads its body in one go.

    pynetdicom asks for 4 KiB at a time, and with several associations each of these calls hands Python's one lock
    around. Never more than the PDU is read ahead, so that waiting for the next one sees what there is.
    """

    _header = b""
    _body = b""
    _given = 0
    """How much of the body was handed out."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if len(self._header) < HEADER_BYTES:
            data = super().recv(min(bufsize, HEADER_BYTES - len(self._header)), flags)
            self._header += data
            _acknowledge(self)
            return data
        if self._given == len(self._body):
            left = _body_length(self._header) - self._given
            self._body += super().recv(left, flags | socket.MSG_WAITALL)
        data = self._body[self._given : self._given + bufsize]
        self._given += len(data)
        if self._given == _body_length(self._header):
            self._header, self._body, self._given = b"", b"", 0
        return data


def _body_length(header: bytes) -> int:
    """Return the length that the header of a PDU announces. Raise OSError if no sane sender would send as much."""
    length = int.from_bytes(header[2:HEADER_BYTES], "big")
    if length > LARGEST_PDU:
        raise OSError(errno.EMSGSIZE, "a PDU of absurd length was announced")
    return length


class _PromptTLS(ssl.SSLSocket):
    """The same under TLS."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        data = super().recv(buflen, flags)
        if buflen <= HEADER_BYTES:
            _acknowledge(self)
        return data


class _Server(ThreadedAssociationServer):
    """Lets only machines in that some peer may call from, and never waits for one of them."""

    receiver: Receiver

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted, address = self.socket.accept()  # type: ignore[union-attr]
        client: socket.socket = _Prompt(fileno=accepted.detach())
        # Answers are small and the sender waits for each: Nagle's algorithm would hold them back.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Else a sender that stops half-way keeps its thread for ever. Not settimeout, which polls before each read.
        silence = struct.pack("ll", *divmod(int(self.receiver.task.timeout_s * 1_000_000), 1_000_000))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)
        if self.ssl_context is not None:
            # The handshake comes with the first read, in the thread of the association and not in this one.
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def verify_request(self, _: object, client_address: Any) -> bool:
        """Turn away unknown machines before a byte of theirs is read."""
        return self.receiver.may_connect(str(client_address[0]))

    def handle_error(self, *_: object) -> None:
        """Stay quiet: a connection that broke off is nothing to print."""


class Receiver:
    """Listens, and remembers what there is to report. Handlers run in the threads of their associations."""

    task: ListenTask

    def __init__(self) -> None:
        self._folder = Path()
        self._arriving = Path()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._open: dict[Association, _Open] = {}
        self._opened: list[Caller] = []
        self._refused: Counter[tuple[Caller, str]] = Counter()
        self._stored = self._no_room = 0
        self._swept_at = time.monotonic()

    def listen(self, task: ListenTask, _: Call) -> Listening:
        """Start to listen. Raise InputError if the port or the TLS files cannot be used."""
        self.task = task
        self._folder = Path(task.folder)
        self._arriving = self._folder / ARRIVING
        tempfile.tempdir = str(self._arriving)  # where pynetdicom makes its files
        ae = AE(task.ae_title)
        ae.maximum_pdu_size = task.max_pdu
        ae.maximum_associations = task.max_associations
        ae.network_timeout = ae.dimse_timeout = task.timeout_s
        ae.acse_timeout = min(30.0, task.timeout_s)
        ae.add_supported_context(Verification)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            server = cast(
                _Server,
                ae.make_server(
                    (task.bind, task.port), evt_handlers=handlers, ssl_context=_tls(task), server_class=_Server
                ),
            )
        except OSError as error:
            raise _cannot_listen(task, error) from error
        server.receiver = self
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Listening(port=server.server_address[1])

    def attend(self, task: AttendTask, _: Call) -> AttendReport:
        """Wait for news and tell them."""
        if self._news.wait(task.wait_s):
            time.sleep(GATHER_S)
        self._sweep()
        with self._lock:
            self._news.clear()
            ended = [association for association in self._open if not association.is_alive()]
            report = AttendReport(
                opened=tuple(self._opened),
                ended=tuple(_end(association, self._open.pop(association)) for association in ended),
                refusals=tuple(Refusal(caller=c, reason=why, count=n) for (c, why), n in self._refused.items()),
                stored=self._stored,
                no_room=self._no_room,
                open=len(self._open),
            )
            self._opened, self._refused = [], Counter()
            self._stored = self._no_room = 0
        return report

    def may_connect(self, address: str) -> bool:
        """Return whether some peer may call from this address; remember it if not."""
        if any(_calls_from(peer, address) for peer in self.task.peers):
            return True
        self._refuse(Caller(ae_title="", address=address), "unknown_address")
        return False

    # ------------------------------------------------------------ in the threads of associations

    def _requested(self, event: Event) -> None:
        association = event.assoc
        request: Any = association.requestor.primitive
        title, address = str(request.calling_ae_title).strip(), str(association.requestor.address)
        peer = next((p for p in self.task.peers if p.ae_title == title and _calls_from(p, address)), None)
        caller = Caller(ae_title=_printable(title), address=address, peer=peer.name if peer else "")
        if str(request.called_ae_title).strip() != self.task.ae_title:
            self._reject(association, caller, "wrong_called_title", _NOT_CALLED)
        elif peer is None:
            self._reject(association, caller, "unknown_peer", _NOT_KNOWN)
        else:
            with self._lock:
                self._open[association] = _Open(caller)

    def _reject(self, association: Association, caller: Caller, reason: str, answer: tuple[int, int, int]) -> None:
        self._refuse(caller, reason)
        association.acse.send_reject(*answer)
        association.kill()

    def _accepted(self, event: Event) -> None:
        with self._lock:
            self._opened.append(self._open[event.assoc].caller)
        self._news.set()

    def _rejected(self, event: Event) -> None:
        """Note what pynetdicom itself refused: more associations than are allowed."""
        with self._lock:
            known = self._open.pop(event.assoc, None)
        if known is not None:
            self._refuse(known.caller, "too_many")

    def _refuse(self, caller: Caller, reason: str) -> None:
        with self._lock:
            if len(self._refused) >= REFUSALS and (caller, reason) not in self._refused:
                caller, reason = Caller(ae_title="", address=""), "others"
            self._refused[caller, reason] += 1
        self._news.set()

    def _store(self, event: Event) -> int:
        """Make an object durable under a name of our own; return the status to answer."""
        with self._lock:
            known = self._open[event.assoc]
        try:
            room = self._has_room()
            if room:
                _keep(event.dataset_path, self._folder / known.caller.peer)
        except OSError:
            room = False  # no disk takes it now; pynetdicom removes the file
        with self._lock:
            known.stored += room
            known.refused += not room
            self._stored += room
            self._no_room += not room
        self._news.set()
        return SUCCESS if room else OUT_OF_RESOURCES

    def _has_room(self) -> bool:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize >= self.task.reserve_bytes

    def _sweep(self) -> None:
        """Remove what associations that broke off have left; while one sends, its file grows."""
        if time.monotonic() - self._swept_at < LEFTOVER_S:
            return
        self._swept_at = time.monotonic()
        before = time.time() - self.task.timeout_s - LEFTOVER_S
        for place in self._arriving.iterdir():
            try:
                if place.stat().st_mtime < before:
                    place.unlink()
            except FileNotFoundError:
                pass  # it arrived meanwhile


def _keep(path: Path, folder: Path) -> None:
    """Move a whole file into the folder of its peer, durably: bytes first, then the name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.rename(folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}.dcm")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end(association: Association, known: _Open) -> AssociationEnd:
    return AssociationEnd(
        caller=known.caller, released=association.is_released, stored=known.stored, refused=known.refused
    )


def _calls_from(peer: Peer, address: str) -> bool:
    if peer.host == "*":
        return True
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found) in ipaddress.ip_network(peer.host, strict=False)


def _printable(title: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in title)[:16]


def _tls(task: ListenTask) -> ssl.SSLContext | None:
    """Return how to speak TLS with senders that have a certificate too, None if it is off. Raise InputError."""
    if not task.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = _PromptTLS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(task.tls_certificate, task.tls_key, password=lambda: b"")
        context.load_verify_locations(task.tls_ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InputError(
            "tls_files",
            "The TLS files of [network] cannot be used.",
            remedy="They must be PEM files that the appliance may read: certificate, its key without a password, "
            "and the authority of the senders.",
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _cannot_listen(task: ListenTask, error: OSError) -> InputError:
    place = f"{task.bind} port {task.port}"
    if error.errno == errno.EADDRINUSE:
        remedy = "End the program that uses the port, or choose another network.port in clinic.toml."
    elif error.errno in {errno.EACCES, errno.EPERM}:
        remedy = "Ports below 1024 need a privilege that the appliance does not have; choose another, such as 11112."
    elif error.errno == errno.EADDRNOTAVAIL:
        remedy = "network.bind in clinic.toml must be an address of this machine, or 0.0.0.0."
    else:
        remedy = "Under systemd the service has no network; docs/connecting-a-pacs.md says how to give it one."
    return InputError("cannot_listen", f"The receiver cannot listen at {place}: {error.strerror}.", remedy=remedy)


def main() -> None:
    """Serve until the daemon closes the channel; whatever is half received then was never acknowledged."""
    # Its messages quote what senders say, which may be personal data; ours go through the reports.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.stack_size(1 << 20)  # two threads for each association, and the usual 8 MiB count as memory used
    receiver = Receiver()
    serve(
        CHANNEL,
        {"listen": Method(ListenTask, receiver.listen), "attend": Method(AttendTask, receiver.attend)},
    )
    os._exit(0)  # threads of associations would keep the process


if __name__ == "__main__":
    main()
