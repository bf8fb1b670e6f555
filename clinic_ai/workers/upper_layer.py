"""pynetdicom's upper layer for a busy storage SCP: it waits instead of asking again and again, and stores as it reads.

pynetdicom runs two threads for each association. Both look for work a thousand times a second, an object passes from
one to the other and its answer back, and all threads share Python's one lock. Here the thread that reads a data set
also writes it, has it kept and sends the answer; both threads sleep until something comes. What is not a C-STORE goes
pynetdicom's own way. It uses a few names that pynetdicom keeps to itself: look here first when its version changes.
"""

from __future__ import annotations

import errno
import queue
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Protocol, cast

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler

HEADER_BYTES = 6
"""Length of what every PDU begins with: type, a reserved byte, and four bytes of length (PS3.8 9.3.1)."""
LARGEST_PDU = 4 << 20
"""Longer ones are taken for an attack on our memory: data come in pieces of network.max_pdu, at most 1 MiB."""
LARGEST_MESSAGE = 1 << 20
"""Bytes of a command, or of a data set that is not to be stored; no sane one has more than a few thousand."""
_WAIT_S = 0.01
"""How long to wait for data before looking whether there is something else to send; answers to C-STORE never wait."""
_WAIT_BRIEFLY_S = 0.001
"""The same while an association begins or ends."""
_REST_S = 0.1
"""How long an association's own thread sleeps when nobody wakes it."""
_TRANSFERRING = "Sta6"
"""State of an association that was accepted and not yet released (PS3.8 9.2.1)."""
_COMMAND, _LAST = 1, 2
"""Bits of the first byte of each fragment: whether it is of a command, and whether it is the last (PS3.8 E.2)."""
_C_STORE_RSP, _NO_DATA_SET = 0x8001, 0x0101


class Arrival(Protocol):
    """Where the data set of a C-STORE goes while it comes in."""

    def write(self, data: memoryview) -> None:
        """Take the next fragment. Do not raise: there is nobody to tell before the last one has come."""

    def finish(self) -> tuple[int, str]:
        """Decide now that all of it has come; return the status to answer and a comment, empty for none."""

    def drop(self) -> None:
        """Let go of what has come: the association ended before the data set did."""


Begin = Callable[[Association, UID, UID, UID], Arrival]
"""Makes the place for an object, of its association, SOP class, SOP instance and transfer syntax."""


class Wire(AssociationSocket):
    """A connection that acknowledges each PDU when its header is read, and reads its body in one go.

    Senders such as DCMTK leave Nagle's algorithm on: they hold back an object's data until the command before it has
    been acknowledged, which the kernel would delay by up to 40 ms. It has to be asked for again and again.
    """

    _deadline = 0.0

    def recv(self, nr_bytes: int) -> bytearray:
        """Return so many bytes, less if the connection ended.

        Raise OSError if they are more than any sane sender would send, or if the PDU takes longer than the time-out
        of the connection: who sends a byte now and then would else keep its place for ever.
        """
        if nr_bytes > LARGEST_PDU:
            raise OSError(errno.EMSGSIZE, "a PDU of absurd length was announced")
        connection = cast(socket.socket, self.socket)
        plain = not isinstance(connection, ssl.SSLSocket)
        if nr_bytes == HEADER_BYTES:
            self._deadline = time.monotonic() + (self.assoc.network_timeout or 0.0)
        data = bytearray(nr_bytes)
        rest = memoryview(data)
        while rest:
            count = connection.recv_into(rest, 0, socket.MSG_WAITALL if plain else 0)
            if nr_bytes == HEADER_BYTES:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if count == 0:
                return data[: nr_bytes - len(rest)]
            rest = rest[count:]
            if rest and time.monotonic() > self._deadline:
                raise TimeoutError(errno.ETIMEDOUT, "a PDU took too long")
        return data

    @property
    def ready(self) -> bool:
        """Whether there is something to read; wait a little for it."""
        connection = self.socket
        if connection is None:
            time.sleep(_WAIT_BRIEFLY_S)
        elif not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
            transferring = self.assoc.dul.state_machine.current_state == _TRANSFERRING
            try:
                select.select([connection], [], [], _WAIT_S if transferring else _WAIT_BRIEFLY_S)
            except (OSError, ValueError):
                pass  # it was closed; pynetdicom notices the same
        return super().ready


class Messages(DIMSEServiceProvider):
    """Writes data sets that are to be stored as they come, and answers when they are kept."""

    def __init__(self, association: Association, begin: Begin) -> None:
        super().__init__(association)
        self._begin = begin
        self._arrival: Arrival | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take what one PDU brought. Raise ValueError, which ends the association, if no sane sender would send it."""
        for context_id, fragment in primitive.presentation_data_value_list:
            if self._arrival is not None:
                self._receive_data(self._arrival, context_id, memoryview(fragment))
            else:
                self._receive_other(context_id, fragment)

    def _receive_data(self, arrival: Arrival, context_id: int, fragment: memoryview) -> None:
        command = cast(C_STORE_RQ, self.message)
        if fragment[0] & _COMMAND or context_id != command.context_id:
            raise ValueError("something else in the middle of a data set")
        arrival.write(fragment[1:])
        if fragment[0] & _LAST:
            status, comment = arrival.finish()
            self.message = self._arrival = None
            self._answer(command, status, comment)

    def _receive_other(self, context_id: int, fragment: bytes) -> None:
        one = P_DATA()
        one.presentation_data_value_list.append((context_id, fragment))
        super().receive_primitive(one)
        message = self.message  # None if it is complete
        if isinstance(message, C_STORE_RQ):
            command = message.command_set
            kind, name = command.get("AffectedSOPClassUID"), command.get("AffectedSOPInstanceUID")
            if not kind or not name or "MessageID" not in command:
                raise ValueError("a C-STORE that does not say of what")
            self._arrival = self._begin(self.assoc, kind, name, self._transfer_syntax(context_id))
        elif message is not None:
            data_set = message.data_set.tell() if message.data_set else 0
            if max(message.encoded_command_set.tell(), data_set) > LARGEST_MESSAGE:
                raise ValueError("a message of absurd length")

    def _transfer_syntax(self, context_id: int) -> UID:
        for context in self.assoc.accepted_contexts:
            if context.context_id == context_id:
                return context.transfer_syntax[0]
        raise ValueError("an object on a presentation context that was not accepted")

    def _answer(self, request: C_STORE_RQ, status: int, comment: str) -> None:
        """Send the response to a C-STORE (PS3.7 9.3.1.2), encoded here: pydicom takes a millisecond for it."""
        command = request.command_set
        encoded = b"".join(
            (
                _element(0x0002, command.AffectedSOPClassUID.encode("latin-1"), b"\0"),
                _element(0x0100, struct.pack("<H", _C_STORE_RSP)),
                _element(0x0120, struct.pack("<H", command.MessageID)),
                _element(0x0800, struct.pack("<H", _NO_DATA_SET)),
                _element(0x0900, struct.pack("<H", status)),
                _element(0x0902, comment.encode("ascii"), b" ") if comment else b"",
                _element(0x1000, command.AffectedSOPInstanceUID.encode("latin-1"), b"\0"),
            )
        )
        encoded = _element(0x0000, struct.pack("<L", len(encoded))) + encoded
        room = self.maximum_pdu_size - HEADER_BYTES if self.maximum_pdu_size else len(encoded)
        for start in range(0, len(encoded), room):
            last = _LAST if start + room >= len(encoded) else 0
            answer = P_DATA()
            fragment = bytes([_COMMAND | last]) + encoded[start : start + room]
            answer.presentation_data_value_list.append((cast(int, request.context_id), fragment))
            self.dul.send_pdu(answer)

    def get_msg(self, block: bool = False) -> Any:  # noqa: ARG002 - it always waits a little
        """Return the next message that is no C-STORE, or two Nones after a while or a ``wake``."""
        try:
            return self.msg_queue.get(timeout=_REST_S)
        except queue.Empty:
            return None, None

    def wake(self) -> None:
        """Let the association's own thread look what has happened."""
        self.msg_queue.put((None, None))

    def drop(self) -> None:
        """Let go of a data set that did not come to its end."""
        if self._arrival is not None:
            self._arrival.drop()


def _element(element: int, value: bytes, padding: bytes = b"") -> bytes:
    """Return an element of a command set, which is implicit VR little endian (PS3.7 6.3.1), of even length."""
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0x0000, element, len(value)) + value


class _Calls(queue.Queue[Any]):
    """What the reading thread tells the association's own thread: that it shall begin or end, say."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class Reading(DULServiceProvider):
    """The reading thread. It says when it ends: else a connection that is gone would be waited for until a time-out."""

    def __init__(self, association: Association, wake: Callable[[], None]) -> None:
        super().__init__(association)
        self.to_user_queue = _Calls(wake)

    def run_reactor(self) -> None:
        """Read and write until the connection is over."""
        try:
            super().run_reactor()
        finally:
            self.to_user_queue.put(None)  # type: ignore[arg-type]  # pynetdicom takes it for the end of a time-out


class Conversation(Association):
    """An association that somebody else began."""

    dimse: Messages

    def __init__(self, ae: AE, begin: Begin, over: Callable[[Association], None]) -> None:
        super().__init__(ae, "acceptor")
        self.dimse = Messages(self, begin)
        self.dul = Reading(self, self.dimse.wake)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout  # they are kept in ``dul`` too
        self._over = over

    def run_reactor(self) -> None:
        """Live until it ends; leave nothing half received behind."""
        try:
            super().run_reactor()
        finally:
            self.dimse.drop()
            self._over(self)


class Conversations(RequestHandler):
    """Makes such an association of each connection; its server has ``begin``, and ``over``, which is told the end."""

    def _create_association(self) -> Conversation:
        server: Any = self.server
        association = Conversation(self.ae, server.begin, server.over)
        association._server = server
        association.name = f"AcceptorThread of {self.client_address[0]}"  # by its first word pynetdicom counts them
        association.set_socket(Wire(association, client_socket=self.request))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.acceptor.supported_contexts = deepcopy(server.contexts)
        association.requestor.address_info = self.remote
        for event in server.get_events():
            found = server.get_handlers(event)
            for handler, arguments in [found] if event.is_intervention else found:
                association.bind(event, handler, arguments)
        return association
