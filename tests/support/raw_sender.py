"""A sender that says what no library would: PDUs by hand, whole or in pieces (PS3.8 9.3)."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

from pydicom.filereader import read_dataset
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import CTImageStorage
from receiving_room import OURS, PEER

ACCEPT, REJECT, DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
"""Types of PDU."""
CONTEXT = 1
CALLED, CALLING = slice(10, 26), slice(26, 42)
"""Where the AE titles stand in an A-ASSOCIATE-RQ."""
_PROVOKED = (ConnectionError, BrokenPipeError)


class RawSender:
    """One connection. ``max_length`` is the longest PDU we say to take, in bytes, 0 for any."""

    def __init__(self, port: int, *, max_length: int = 16384) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._max_length = max_length

    def __enter__(self) -> RawSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def request(self, title: str = PEER.ae_title) -> bytearray:
        """Return an A-ASSOCIATE-RQ PDU for CT images."""
        primitive = A_ASSOCIATE()
        primitive.application_context_name = "1.2.840.10008.3.1.1.1"
        primitive.calling_ae_title, primitive.called_ae_title = title, OURS
        context = build_context(CTImageStorage, "1.2.840.10008.1.2.1")
        context.context_id = CONTEXT
        primitive.presentation_context_definition_list = [context]
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = self._max_length
        implementation.implementation_class_uid = "1.2.3.4"
        primitive.user_information = [length, implementation]
        return bytearray(A_ASSOCIATE_RQ(primitive).encode())

    def associate(self) -> RawSender:
        """Begin an association that has to be accepted."""
        self.send(self.request())
        kind, _ = self.receive()
        assert kind == ACCEPT
        return self

    def send(self, data: bytes | bytearray) -> None:
        self.socket.sendall(data)

    def fragment(self, value: bytes, *, command: bool = False, last: bool = True, context: int = CONTEXT) -> bytes:
        """Return one presentation data value item."""
        return struct.pack(">LBB", len(value) + 2, context, command + 2 * last) + value

    def data(self, *fragments: bytes) -> bytes:
        """Return a P-DATA-TF PDU of these items."""
        return struct.pack(">BxL", DATA, sum(map(len, fragments))) + b"".join(fragments)

    @staticmethod
    def command(name: str, kind: str = CTImageStorage, *, message: int = 1) -> bytes:
        """Return the command set of a C-STORE request, encoded."""
        request = C_STORE()
        request.MessageID, request.Priority = message, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = kind, name
        request.DataSet = io.BytesIO(b"follows")
        encoded = C_STORE_RQ()
        encoded.primitive_to_message(request)
        (first, *_) = encoded.encode_msg(CONTEXT, 0)
        return bytes(first.presentation_data_value_list[0][1][1:])

    def store(self, name: str, content: bytes, *, piece: int = 16000, command: bytes | None = None) -> None:
        """Send an object in pieces of so many bytes; ``content`` is its data set without file meta information."""
        self.send(self.data(self.fragment(command or self.command(name), command=True)))
        for start in range(0, max(1, len(content)), piece):
            self.send(self.data(self.fragment(content[start : start + piece], last=start + piece >= len(content))))

    def receive(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU, (0, b"") at the end of the connection."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._exactly(struct.unpack(">L", header[2:])[0])

    def pdus(self) -> Iterator[tuple[int, bytes]]:
        """Yield PDUs to the end of the connection."""
        while (found := self.receive())[0]:
            yield found

    def answer(self) -> tuple[int, str, int]:
        """Return status and comment of the next answer, and of how many PDUs it was."""
        encoded, count = b"", 0
        while True:
            kind, body = self.receive()
            assert kind == DATA, f"a PDU of type {kind} is no answer"
            assert not self._max_length or len(body) <= self._max_length
            count += 1
            encoded += body[6:]
            if body[5] & 2:
                break
        found = read_dataset(io.BytesIO(encoded), is_implicit_VR=True, is_little_endian=True)
        return int(found.Status), str(found.get("ErrorComment", "")), count

    def release(self) -> None:
        """End the association in good order."""
        self.send(struct.pack(">BxL4x", RELEASE_RQ, 4))
        assert self.receive()[0] == RELEASE_RP

    def ended(self) -> bool:
        """Wait until the other side has ended the connection; whatever it still says is passed over."""
        try:
            for _ in self.pdus():
                pass
        except _PROVOKED:
            pass
        return True

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count and (piece := self.socket.recv(count - len(found))):
            found += piece
        return found
