"""Frames: what is sent arrives, and what is not a frame is refused."""

from __future__ import annotations

import pickle
import socket
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.wire import MAX_FRAME_BYTES, FrameError, Request, receive_frame, send_frame

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(params=st.dictionaries(st.text(max_size=10), json_values, max_size=5), number=st.integers(0, 10**9))
def test_what_is_sent_arrives(params: dict[str, object], number: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = Request(id=number, method="m", params=params)
        send_frame(ours, sent)
        assert Request.model_validate(receive_frame(theirs)) == sent


@given(rubbish=st.binary(min_size=1, max_size=200))
def test_bytes_that_are_no_frame_never_pass_as_one(rubbish: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(rubbish)
        ours.shutdown(socket.SHUT_WR)
        try:
            message = receive_frame(theirs)
        except FrameError:
            return
        assert isinstance(message, dict)


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 40) + pickle.dumps({"id": 1})[:40].ljust(40),
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 10) + b"{}",
        struct.pack(">I", 100_000) + b"[" * 100_000,
    ],
    ids=["oversized", "pickle", "no object", "truncated", "nested beyond reason"],
)
def test_a_frame_that_is_not_one_is_refused(frame: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        ours.sendall(frame)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(FrameError):
            receive_frame(theirs)


def test_an_oversized_message_is_not_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(FrameError):
        send_frame(ours, Request(id=1, method="m", params={"text": "x" * MAX_FRAME_BYTES}))


def test_a_deadline_ends_the_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0")
        with pytest.raises(TimeoutError):
            receive_frame(theirs, deadline=time.monotonic() + 0.05)
