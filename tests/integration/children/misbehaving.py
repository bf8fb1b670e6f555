"""A child that does whatever harm the request's method names."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel

from clinic_ai.confinement import confine
from clinic_ai.errors import InputError
from clinic_ai.wire import MAX_FRAME_BYTES, Call, Method, Response, send_frame, serve

channel, limits = confine()


class Text(BaseModel):
    text: str = ""


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.path,))


def echo(params: Text, call: Call) -> Text:
    return params


def segfault(params: Text, call: Call) -> Text:
    os.kill(os.getpid(), signal.SIGSEGV)
    return params


def die_of_nameless_signal(params: Text, call: Call) -> Text:
    os.kill(os.getpid(), signal.SIGRTMIN + 5)
    return params


def hang(params: Text, call: Call) -> Text:
    time.sleep(3600)
    return params


def eat_memory(params: Text, call: Call) -> Text:
    eaten = [bytearray(16 << 20) for _ in range(10_000)]
    return Text(text=str(len(eaten)))


def flood_output(params: Text, call: Call) -> Text:
    while True:
        sys.stdout.write("x" * 65536)
        sys.stdout.flush()


def flood_progress(params: Text, call: Call) -> Text:
    while True:
        call.progress(params)


def send_pickle(params: Text, call: Call) -> Text:
    body = pickle.dumps(Bomb(params.text))
    channel.sendall(struct.pack(">I", len(body)) + body)
    time.sleep(3600)
    return params


def send_oversized(params: Text, call: Call) -> Text:
    channel.sendall(struct.pack(">I", MAX_FRAME_BYTES + 1) + b"x" * 1000)
    time.sleep(3600)
    return params


def send_wrong_shape(params: Text, call: Call) -> Text:
    send_frame(channel, Response(id=call._id, kind="result", body={"nonsense": 1}))
    time.sleep(3600)
    return params


def send_words_as_keys(params: Text, call: Call) -> Text:
    send_frame(channel, Response(id=call._id, kind="result", body={"text": {params.text: 1}, params.text: 1}))
    time.sleep(3600)
    return params


def answer_other_call(params: Text, call: Call) -> Text:
    send_frame(channel, Response(id=call._id + 7, kind="result", body={"text": "x"}))
    time.sleep(3600)
    return params


def leave_quietly(params: Text, call: Call) -> Text:
    os._exit(3)


def raise_anything(params: Text, call: Call) -> Text:
    raise RuntimeError(f"a message with the name {params.text}")


def refuse(params: Text, call: Call) -> Text:
    raise InputError("too_odd", "This input is too odd.", remedy="Send another.")


def spawn(params: Text, call: Call) -> Text:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    return Text(text=str(child.pid))


def reach_out(params: Text, call: Call) -> Text:
    try:
        socket.create_connection(("127.0.0.1", int(params.text)), timeout=2)
    except OSError as error:
        return Text(text=f"refused: {error.errno}")
    return Text(text="connected")


def knock(params: Text, call: Call) -> Text:
    """Try a Unix socket in each way there is; return what came of each."""
    path, tried = params.text, []

    def fresh() -> None:
        socket.socket(socket.AF_UNIX).connect(path)

    def of_a_pair() -> None:
        socket.socketpair()[0].connect(path)

    def from_another_program() -> None:
        code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        done = subprocess.run([sys.executable, "-S", "-c", code, path], capture_output=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.decode().splitlines()[-1])

    def in_its_place() -> None:
        socket.socket(socket.AF_UNIX).bind(f"{path}.mine")

    def by_the_internet() -> None:
        socket.socket(socket.AF_INET)

    for way in (fresh, of_a_pair, from_another_program, in_its_place, by_the_internet):
        try:
            way()
            tried.append(f"{way.__name__}: yes")
        except OSError:
            tried.append(f"{way.__name__}: no")
    return Text(text=", ".join(tried))


def trace(params: Text, call: Call) -> Text:
    """Try the call that takes hold of processes, by the one request that is always granted."""
    libc = ctypes.CDLL(None, use_errno=True)
    traced = libc.ptrace(0, 0, 0, 0)  # PTRACE_TRACEME
    return Text(text="refused" if traced == -1 and ctypes.get_errno() == errno.EPERM else "granted")


def write_much(params: Text, call: Call) -> Text:
    try:
        with Path(params.text).open("wb") as out:
            for _ in range(64):
                out.write(b"x" * (1 << 20))
    except OSError as error:
        return Text(text=f"refused: {error.errno}")
    return Text(text="written")


def count_until_stopped(params: Text, call: Call) -> Text:
    steps = 0
    while not call.stop_requested():
        steps += 1
        call.progress(Text(text=str(steps)))
        time.sleep(0.01)
    return Text(text=str(steps))


functions = [echo, segfault, die_of_nameless_signal, hang, eat_memory, flood_output, flood_progress, send_pickle]
functions += [
    send_words_as_keys,
    send_wrong_shape,
    answer_other_call,
    leave_quietly,
    raise_anything,
    refuse,
    spawn,
    reach_out,
    knock,
    trace,
]
functions += [write_much, count_until_stopped, send_oversized]
serve(channel, {function.__name__: Method(Text, function) for function in functions})
