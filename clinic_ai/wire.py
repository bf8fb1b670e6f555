"""Frames between the daemon and a child: four bytes of length, big-endian, then JSON in UTF-8.

Never pickle: a child taken over by a hostile file must not be able to run code in the daemon. A frame
larger than the agreed cap is refused by its length alone, before a byte of it is read.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clinic_ai.errors import ClinicError, InputError

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Cap of one frame in either direction."""


class FrameError(Exception):
    """The other side sent what is not a frame."""


class FrameTooLarge(FrameError):
    """A message of our own exceeds the cap; nothing of it was sent. ``size`` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a message of {size} bytes exceeds the cap of {MAX_FRAME_BYTES}")
        self.size = size


class Request(BaseModel):
    """Daemon to child: call ``method`` with ``params``; ``method`` ``stop`` asks a running call to end early."""

    model_config = ConfigDict(extra="forbid")
    id: int
    method: str
    params: dict[str, Any]


class Failure(BaseModel):
    """Why a child could not do it, in words."""

    model_config = ConfigDict(extra="forbid")
    code: str
    message: str
    remedy: str = ""
    retryable: bool


class Response(BaseModel):
    """Child to daemon: progress of, or the end of, the call ``id``."""

    model_config = ConfigDict(extra="forbid")
    id: int
    kind: Literal["result", "failure", "progress"]
    body: dict[str, Any]


def send_frame(channel: socket.socket, message: BaseModel) -> None:
    """Send one message. Raise FrameTooLarge if it exceeds the cap."""
    body = message.model_dump_json().encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(len(body))
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive_frame(channel: socket.socket, *, deadline: float | None = None) -> dict[str, Any] | None:
    """Return the next message, or None at the end of the stream.

    ``deadline`` is in seconds of ``time.monotonic``. Raise FrameError if what arrives is no frame, and
    TimeoutError if it has not arrived in full by the deadline.
    """
    head = _receive_exactly(channel, _LENGTH.size, deadline)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes was announced; the cap is {MAX_FRAME_BYTES}")
    body = _receive_exactly(channel, length, deadline)
    if body is None:
        raise FrameError("the stream ended inside a frame")
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame is not JSON") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return message


def _receive_exactly(channel: socket.socket, count: int, deadline: float | None) -> bytes | None:
    buffer = bytearray()
    while len(buffer) < count:
        if deadline is None:
            channel.settimeout(None)
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
        piece = channel.recv(min(count - len(buffer), 1 << 20))
        if not piece:
            if buffer:
                raise FrameError("the stream ended inside a frame")
            return None
        buffer += piece
    return bytes(buffer)


# ---------------------------------------------------------------- the child's side


@dataclass(frozen=True)
class Method:
    """How a child serves one method: the type of its parameters, and the function that answers."""

    params: type[BaseModel]
    function: Callable[[Any, Call], BaseModel]


class Call:
    """What a running method can do beside returning: report progress, and learn that it should stop."""

    def __init__(self, channel: socket.socket, request_id: int) -> None:
        self._channel = channel
        self._id = request_id
        self._stop = False

    def progress(self, message: BaseModel) -> None:
        """Send progress to the daemon."""
        send_frame(self._channel, Response(id=self._id, kind="progress", body=message.model_dump(mode="json")))

    def stop_requested(self) -> bool:
        """Return whether the daemon asked this call to end; looks at the channel without waiting."""
        if not self._stop:
            self._channel.setblocking(False)
            try:
                waiting = self._channel.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return False
            finally:
                self._channel.setblocking(True)
            # Nothing but "stop" is sent while a call runs; an end of stream means that the daemon is gone.
            if waiting:
                receive_frame(self._channel)
            self._stop = True
        return self._stop


def serve(channel: socket.socket, methods: Mapping[str, Method]) -> None:
    """Answer requests one at a time until the daemon closes the channel."""
    while (message := receive_frame(channel)) is not None:
        request = Request.model_validate(message)
        if request.method == "stop":
            continue  # it arrived after the call it meant had ended
        reply = _answer(request, methods, Call(channel, request.id))
        try:
            send_frame(channel, reply)
        except FrameError as error:
            send_frame(channel, _failure(request.id, "answer_too_large", str(error), retryable=False))


def _answer(request: Request, methods: Mapping[str, Method], call: Call) -> Response:
    method = methods.get(request.method)
    if method is None:
        return _failure(request.id, "no_such_method", f"There is no method {request.method}.", retryable=False)
    try:
        params = method.params.model_validate(request.params)
    except ValidationError as error:
        return _failure(request.id, "bad_params", _shape(error), retryable=False)
    try:
        result = method.function(params, call)
    except InputError as error:
        return _failure(request.id, error.code, error.message, error.remedy, retryable=False)
    except ClinicError as error:
        code = type(error).__name__.lower()
        return _failure(request.id, code, error.message, error.remedy, retryable=error.retryable)
    except MemoryError:
        # The heap may be fragmented or a native library half-way through: start a fresh process.
        os._exit(MEMORY_EXIT)
    except Exception as error:  # noqa: BLE001 - process boundary: the daemon turns this into one failed attempt
        _end_if_beyond_help(error)
        return _raised(request.id, error)
    return Response(id=request.id, kind="result", body=result.model_dump(mode="json"))


MEMORY_EXIT = 87
"""Exit status of a child that ran out of the memory it was given."""
GPU_EXIT = 88
"""Exit status of a child whose GPU failed."""
DISK_FULL = "disk_full"
"""Code of the failure of a child that found no room for what it writes."""


def _end_if_beyond_help(error: Exception) -> None:
    """End this process if CUDA failed: its errors stick to a process, and every later call would fail too.

    Memory of a GPU that ran out is like any other memory. Known by their words: torch is not imported here.
    """
    words = str(error).lower()
    if type(error).__name__ == "OutOfMemoryError" or "cuda error: out of memory" in words:
        os._exit(MEMORY_EXIT)
    if type(error).__name__ == "AcceleratorError" or "cuda error" in words or "cuda failure" in words:
        os._exit(GPU_EXIT)


def _raised(request_id: int, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _failure(request_id, DISK_FULL, "The disk is full.", "Free space on that disk.", retryable=True)
    where = _place(error)
    print(f"{type(error).__name__} at {where}", file=sys.stderr)  # noqa: T201 - stderr is the child's log
    return _failure(request_id, "child_raised", f"{type(error).__name__} at {where}", retryable=True)


def _failure(request_id: int, code: str, message: str, remedy: str = "", *, retryable: bool) -> Response:
    failure = Failure(code=code, message=message, remedy=remedy, retryable=retryable)
    return Response(id=request_id, kind="failure", body=failure.model_dump(mode="json"))


def _shape(error: ValidationError) -> str:
    """Return where a message broke its schema, without the values: they may be personal data."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors()[:5])


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the innermost frame; the text of foreign exceptions may hold personal data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown place"
    code = trace.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119 - no import for one name
