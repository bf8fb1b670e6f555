"""The receiver child: a DICOM storage SCP that writes what arrives, as it arrives, and decodes none of it.

An object is answered with success when its bytes and its name are on the disk. It is written into a file with a name
of our own while it comes; nothing a sender says becomes part of a path. Methods: ``listen`` once, then ``attend``
again and again.
"""

from __future__ import annotations

from clinic_ai import confinement

if __name__ == "__main__":
    CHANNEL, _ = confinement.confine()  # before anything that talks to the network is imported

import errno
import io
import ipaddress
import logging
import os
import re
import secrets
import socket
import ssl
import struct
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from clinic_ai.errors import InputError
from clinic_ai.tasks import AssociationEnd, AttendReport, AttendTask, Caller, Listening, ListenTask, Peer, Refusal
from clinic_ai.wire import Call, Method, serve
from clinic_ai.workers.upper_layer import Arrival, Conversations

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
ARRIVING = ".arriving"
"""Folder of what is not whole yet, in the folder of the peers; no peer has a name with a leading dot."""
REFUSALS = 50
"""Different callers that one report names; the others count as one."""
WAITING = 20
"""Connections beyond network.max_associations whose request is still read, to be refused in words."""
LOOK_BYTES = 1 << 20
"""Bytes of an object after which it is looked again whether the disk has room."""
GATHER_S = 0.1
"""How long a report waits for more once there is something to tell."""

_REFUSALS = {
    "no_room": (OUT_OF_RESOURCES, "The receiver is short of disk space; send again later."),
    "too_large": (OUT_OF_RESOURCES, "The object is larger than the receiver takes."),
    "no_data": (CANNOT_UNDERSTAND, "The command came without a data set."),
}
"""Status and comment, of at most 64 characters, for an object that is refused (PS3.4 B.2.3, PS3.7 C)."""
_NOT_TAKEN = re.compile(r"1\.2\.840\.10008\.1\.2\.(7\..*|4\.(204|205|1..\.1))")
PREFERRED = frozenset(str(syntax) for syntax in AllTransferSyntaxes if not _NOT_TAKEN.fullmatch(syntax))
"""Transfer syntaxes that ingest takes; of what a sender offers, the first of these is agreed on."""
_NOT_CALLED = (0x01, 0x01, 0x07)  # rejected for good, by the service user: called AE title not recognised
_NOT_KNOWN = (0x01, 0x01, 0x03)  # the same: calling AE title not recognised

# Private and future kinds of objects are taken too; what is of no use is for ingest to say, with a reason.
_config.UNRESTRICTED_STORAGE_SERVICE = True
_config.LOG_HANDLER_LEVEL = "none"


@dataclass
class _Open:
    """What is known of an association that was let in."""

    caller: Caller
    stored: int = 0
    refused: int = 0


class _Object:
    """An object on its way into a file: file meta information first, then its bytes as they come (PS3.10 7.1)."""

    def __init__(self, receiver: Receiver, known: _Open, meta: bytes) -> None:
        self._receiver = receiver
        self._known = known
        self._place = receiver.arriving / secrets.token_hex(8)
        self._most = receiver.task.max_bytes - len(meta)
        self._size = 0
        self._trouble = ""
        """Why it cannot be kept: a reason of ``clinic_ai.ingest.receiving``. What still comes is read and forgotten."""
        self._file: io.FileIO | None = None
        if not receiver.has_room(known.caller):
            self._trouble = "no_room"
            return
        try:
            self._file = io.FileIO(self._place, "xb")
            self._write(memoryview(meta))
        except OSError:
            self._give_up("no_room")

    def write(self, data: memoryview) -> None:
        """Write the next fragment; if that is not possible, remember why."""
        looked = self._size // LOOK_BYTES
        self._size += len(data)
        if self._trouble:
            return
        if self._size > self._most:
            self._give_up("too_large")
        elif self._size // LOOK_BYTES > looked and not self._receiver.has_room(self._known.caller):
            self._give_up("no_room")
        else:
            try:
                self._write(data)
            except OSError:
                self._give_up("no_room")  # no disk takes it now

    def finish(self) -> tuple[int, str]:
        """Make it durable under a name of our own; return the status to answer, with a comment if it is refused."""
        if not self._trouble and not self._size:
            self._give_up("no_data")
        if not self._trouble and not self._receiver.has_room(self._known.caller):
            self._give_up("no_room")
        if not self._trouble:
            try:
                self._keep(self._receiver.folder_of(self._known.caller))
            except OSError:
                self._give_up("no_room")
        self._receiver.note(self._known, self._trouble)
        return _REFUSALS[self._trouble] if self._trouble else (SUCCESS, "")

    def drop(self) -> None:
        """Remove the file. Who still writes into it writes into nothing."""
        self._place.unlink(missing_ok=True)

    def _keep(self, folder: int) -> None:
        assert self._file is not None  # else there is some trouble
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._place, f"{time.time_ns():020d}-{secrets.token_hex(4)}.dcm", dst_dir_fd=folder)
        os.fsync(folder)

    def _give_up(self, why: str) -> None:
        self._trouble = why
        if self._file is not None:
            self._file.close()
            self.drop()

    def _write(self, data: memoryview) -> None:
        assert self._file is not None
        while data:
            data = data[self._file.write(data) :]


class _Server(ThreadedAssociationServer):
    """Lets only machines in that some peer may call from, and never waits for one of them."""

    receiver: Receiver
    request_queue_size = 128
    """Connections that the kernel holds for us; beyond that a sender would have to try again after a second."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        client, address = self.socket.accept()  # type: ignore[union-attr]
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

    def begin(self, association: Association, kind: UID, name: UID, syntax: UID) -> Arrival:
        """Make the file for an object that comes."""
        return self.receiver.begin(association, kind, name, syntax)

    def over(self, association: Association) -> None:
        """Note a connection that ended without having asked for anything."""
        self.receiver.over(association)

    def verify_request(self, _: object, client_address: Any) -> bool:
        """Turn away unknown machines, and too many at once, before a byte of theirs is read."""
        return self.receiver.may_connect(str(client_address[0]), len(self.active_associations))

    def handle_error(self, *_: object) -> None:
        """Stay quiet: a connection that broke off is nothing to print."""


class Receiver:
    """Listens, and remembers what there is to report. Handlers run in the threads of their associations."""

    task: ListenTask

    def __init__(self) -> None:
        self._folder = Path()
        self.arriving = Path()
        """Folder of objects that are not whole yet."""
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._open: dict[Association, _Open] = {}
        self._opened: list[Caller] = []
        self._refused: Counter[tuple[Caller, str]] = Counter()
        self._objects: Counter[tuple[Caller, str]] = Counter()
        """Objects that were refused, by who sent them and why."""
        self._stored = 0
        self._waiting: frozenset[str] = frozenset()
        """Names of peers whose objects are refused for now."""
        self._folders: dict[str, int] = {}
        """Descriptors of the folders of peers."""

    def listen(self, task: ListenTask, _: Call) -> Listening:
        """Start to listen. Raise InputError if the port or the TLS files cannot be used."""
        self.task = task
        self._folder = Path(task.folder)
        self.arriving = self._folder / ARRIVING
        for peer in task.peers:
            self._folders[peer.name] = os.open(self._folder / peer.name, os.O_RDONLY | os.O_DIRECTORY)
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
            (evt.EVT_C_STORE, self._nothing),
        ]
        try:
            server = cast(
                _Server,
                ae.make_server(
                    (task.bind, task.port),
                    evt_handlers=handlers,
                    ssl_context=_tls(task),
                    server_class=_Server,
                    request_handler=Conversations,
                ),
            )
        except OSError as error:
            raise _cannot_listen(task, error) from error
        server.receiver = self
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Listening(port=server.server_address[1])

    def attend(self, task: AttendTask, _: Call) -> AttendReport:
        """Wait for news and tell them."""
        self._waiting = frozenset(task.waiting)
        if self._news.wait(task.wait_s):
            time.sleep(GATHER_S)
        with self._lock:
            self._news.clear()
            ended = [association for association in self._open if not association.is_alive()]
            report = AttendReport(
                opened=tuple(self._opened),
                ended=tuple(_end(association, self._open.pop(association)) for association in ended),
                refusals=_told(self._refused),
                objects=_told(self._objects),
                stored=self._stored,
                open=len(self._open),
            )
            self._opened, self._refused, self._objects, self._stored = [], Counter(), Counter(), 0
        return report

    def may_connect(self, address: str, connections: int) -> bool:
        """Return whether a peer may call from this address, and one more beside so many; remember it if not."""
        if not any(_calls_from(peer, address) for peer in self.task.peers):
            reason = "unknown_address"
        elif connections >= self.task.max_associations + WAITING:
            reason = "too_many"
        else:
            return True
        self._refuse(Caller(ae_title="", address=address), reason)
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
            # pynetdicom agrees on the first that is offered, which may be one of the vendor's own.
            for context in request.presentation_context_definition_list:
                context.transfer_syntax = sorted(context.transfer_syntax, key=lambda syntax: syntax not in PREFERRED)
            with self._lock:
                self._open[association] = _Open(caller)

    def _reject(self, association: Association, caller: Caller, reason: str, answer: tuple[int, int, int]) -> None:
        self._refuse(caller, reason)
        association.acse.send_reject(*answer)
        association.kill()

    def over(self, association: Association) -> None:
        """Note a connection that ended before an association was asked for in words that pynetdicom understands."""
        if association.requestor.primitive is None:
            self._refuse(Caller(ae_title="", address=str(association.requestor.address)), "no_request")

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

    def begin(self, association: Association, kind: UID, name: UID, syntax: UID) -> Arrival:
        """Make the file for an object of this SOP class, SOP instance and transfer syntax.

        They are what the command says and the association agreed on, for the data set is read by nobody here; ingest
        goes by the data set.
        """
        with self._lock:
            known = self._open[association]
        return _Object(self, known, _file_meta(str(kind), str(name), str(syntax)))

    def _nothing(self, event: Event) -> int:
        """Answer a C-STORE without a data set; all others go through ``begin``."""
        with self._lock:
            known = self._open[event.assoc]
        self.note(known, "no_data")
        return CANNOT_UNDERSTAND

    # ------------------------------------------------------------ for objects that come in

    def has_room(self, caller: Caller) -> bool:
        """Return whether the reserve of the disk is untouched, and the daemon has not asked this peer to wait."""
        if caller.peer in self._waiting:
            return False
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize >= self.task.reserve_bytes

    def folder_of(self, caller: Caller) -> int:
        """Return the descriptor of the folder of a peer."""
        return self._folders[caller.peer]

    def note(self, known: _Open, trouble: str) -> None:
        """Note what became of an object: an empty text if it was stored, else why it was refused."""
        with self._lock:
            if trouble:
                known.refused += 1
                self._objects[known.caller, trouble] += 1
            else:
                known.stored += 1
                self._stored += 1
        self._news.set()


def _file_meta(kind: str, name: str, syntax: str) -> bytes:
    """Return what a file begins with: preamble and file meta information (PS3.10 7.1)."""
    start, end = _around_name(kind, len(name), syntax)
    return start + name.encode("latin-1") + end


@lru_cache(1000)
def _around_name(kind: str, length: int, syntax: str) -> tuple[bytes, bytes]:
    """Return what stands before and after a SOP instance UID of this length; pydicom takes a millisecond for it."""
    name = "1" * length
    meta = create_file_meta(sop_class_uid=UID(kind), sop_instance_uid=UID(name), transfer_syntax=UID(syntax))
    element = struct.pack("<HH2sH", 0x0002, 0x0003, b"UI", length + length % 2)
    start, found, end = (b"\0" * 128 + b"DICM" + encode_file_meta(meta)).partition(element)
    return start + found, end[length:]


def _told(refusals: Counter[tuple[Caller, str]]) -> tuple[Refusal, ...]:
    return tuple(Refusal(caller=caller, reason=why, count=count) for (caller, why), count in refusals.items())


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
    threading.excepthook = lambda _: None  # an association that ends by an exception is reported as aborted
    threading.stack_size(1 << 20)  # two threads for each association, and the usual 8 MiB count as memory used
    receiver = Receiver()
    serve(
        CHANNEL,
        {"listen": Method(ListenTask, receiver.listen), "attend": Method(AttendTask, receiver.attend)},
    )
    os._exit(0)  # threads of associations would keep the process


if __name__ == "__main__":
    main()
