"""Starts, feeds, limits, times out and buries children.

A child is one process, ``python -m clinic_ai.workers.<kind>``, in a session of its own, with one socket to
the daemon and its output captured. Whatever goes wrong with it (it dies, hangs, floods, writes rubbish)
ends in one ChildError for the call that was running and in the death of the whole process group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import BaseModel, ValidationError

from clinic_ai.confinement import ENVIRONMENT_KEY, Confinement
from clinic_ai.errors import ChildDied, ChildMisbehaved, ChildRefused, ChildTimedOut, Conflict, InputError
from clinic_ai.wire import (
    GPU_EXIT,
    MAX_FRAME_BYTES,
    MEMORY_EXIT,
    Failure,
    FrameError,
    FrameTooLarge,
    Request,
    Response,
    receive_frame,
    send_frame,
)

Result = TypeVar("Result", bound=BaseModel)

MAX_OUTPUT_BYTES = 1 << 20
"""What a child may print during one call before it counts as flooding."""
MAX_PROGRESS_FRAMES = 100_000
"""Progress messages of one call beyond ``PROGRESS_PER_S`` before it counts as flooding."""
PROGRESS_PER_S = 20
"""Progress messages that a call may send each second for as long as it lasts, which may be days."""
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class ChildSpec:
    """What to start: ``kind`` names the module in ``clinic_ai.workers``, ``name`` names it for people."""

    kind: str
    name: str
    confinement: Confinement = field(default_factory=Confinement)
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    module: str = ""
    """Module to run instead of ``clinic_ai.workers.<kind>``; for tests of misbehaviour."""


def computing_on(threads: int) -> tuple[tuple[str, str], ...]:
    """Return the environment of a child whose numerical libraries may use so many cores."""
    return tuple((f"{library}_NUM_THREADS", str(threads)) for library in ("OMP", "MKL", "OPENBLAS"))


class Child:
    """One living child. Calls are made one at a time; ``kill`` may come from any thread."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.started_at = time.monotonic()
        self.last_used = self.started_at
        self._calls = 0
        self._printed = 0
        self._tail = b""
        self._flooded = False
        self._calling = threading.Lock()
        self._sending = threading.Lock()
        self._burying = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel = ours
        self._sender = ours.dup()  # a time-out of its own: a stop is sent while another thread waits to receive
        limits = spec.confinement.model_copy(update={"channel": theirs.fileno(), "parent": os.getpid()})
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    spec.module or f"clinic_ai.workers.{spec.kind}",
                    *spec.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(spec, limits),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            self._close_channel()
            raise
        finally:
            theirs.close()
        self._drain = threading.Thread(target=self._read_output, name=f"output of {spec.name}", daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How the process ended: its status, or the signal that ended it as a negative number; None while it lives."""
        return self._process.poll()

    @property
    def busy(self) -> bool:
        """Whether a call is running."""
        return self._calling.locked()

    def resident_bytes(self) -> int:
        """Return the resident memory of the child, 0 if it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def output_tail(self) -> str:
        """Return the end of what the child printed; for the person who debugs a plugin, never for the log."""
        return self._tail.decode(errors="replace")

    def call(
        self,
        method: str,
        params: BaseModel,
        result: type[Result],
        *,
        timeout_s: float,
        on_progress: Callable[[dict[str, object]], None] | None = None,
    ) -> Result:
        """Call ``method`` and return its validated answer.

        Raise ChildRefused if the child says no in words, InputError if there is more to tell it than a message
        holds (in both cases it lives on), and ChildDied, ChildTimedOut or ChildMisbehaved otherwise; after those the
        child is dead.
        """
        with self._calling:
            self._calls += 1
            self._printed = 0
            deadline = time.monotonic() + timeout_s
            try:
                # Both sides have the same types, so what is at its default need not be said: headers are mostly that.
                params_now = params.model_dump(mode="json", exclude_defaults=True)
                self._send(Request(id=self._calls, method=method, params=params_now))
                return self._await(self._calls, result, deadline, on_progress)
            except FrameTooLarge as error:
                raise InputError(
                    "task_too_large",
                    f"What the {self.spec.name} child is to be told of this study, mostly headers of its images, has "
                    f"{error.size / (1 << 20):.1f} MiB; a message holds {MAX_FRAME_BYTES >> 20} MiB.",
                    remedy="The study has too many images or frames; let the sender split it into several studies.",
                ) from error
            except (OSError, FrameError) as error:
                raise self._end(error, timeout_s) from error
            finally:
                self.last_used = time.monotonic()

    def request_stop(self) -> None:
        """Ask the running call to end early; the call itself returns what the child then answers."""
        try:
            self._send(Request(id=0, method="stop", params={}))
        except OSError:
            pass  # it is gone already, which the running call reports

    def hasten(self) -> None:
        """Let a child that was started nice do its last work at our own priority, where the system permits that.

        Even to die takes processor time: its memory is given back by itself.
        """
        try:
            os.setpriority(os.PRIO_PGRP, self.pid, os.getpriority(os.PRIO_PROCESS, 0))
        except OSError:
            pass  # it is gone, or the limit on priorities does not allow it: then it takes a little longer

    def kill(self) -> None:
        """Kill the whole process group and reap the child; quiet if it is gone already."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        with self._burying:
            self._process.wait()
            self._drain.join(timeout=5)
            if self._process.stdout is not None and not self._drain.is_alive():
                self._process.stdout.close()
        if not self._calling.locked():
            self._close_channel()

    def close(self, grace_s: float = 2.0) -> None:
        """Let the child end by itself, then kill whatever is left of its group."""
        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            self._process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    # ------------------------------------------------------------

    def _close_channel(self) -> None:
        self._channel.close()
        self._sender.close()

    def _send(self, request: Request) -> None:
        with self._sending:
            self._sender.settimeout(10)  # a child that does not read is a child that hangs
            send_frame(self._sender, request)

    def _await(
        self,
        call: int,
        result: type[Result],
        deadline: float,
        on_progress: Callable[[dict[str, object]], None] | None,
    ) -> Result:
        progress_frames, began = 0, time.monotonic()
        while True:
            message = receive_frame(self._channel, deadline=deadline)
            if message is None:
                raise ConnectionResetError("the child closed the channel")
            try:
                response = Response.model_validate(message)
            except ValidationError as error:
                raise FrameError("an answer does not follow the protocol") from error
            if response.id != call:
                raise FrameError(f"an answer to call {response.id} came during call {call}")
            if response.kind == "progress":
                progress_frames += 1
                if progress_frames > MAX_PROGRESS_FRAMES + PROGRESS_PER_S * (time.monotonic() - began):
                    raise FrameError("it flooded the channel with progress")
                if on_progress is not None:
                    on_progress(response.body)
                continue
            return self._result(response, result)

    @staticmethod
    def _result(response: Response, result: type[Result]) -> Result:
        try:
            if response.kind == "failure":
                failure = Failure.model_validate(response.body)
            else:
                return result.model_validate(response.body)
        except ValidationError as error:
            # Only our own names: deeper down, and in an unknown key, the child's words may stand.
            ours = {*Failure.model_fields, *result.model_fields}
            places = [(e["loc"][0] if e["loc"] and e["loc"][0] in ours else "?", e["type"]) for e in error.errors()]
            shape = "; ".join(f"{name}: {kind}" for name, kind in places[:3])
            raise FrameError(f"an answer does not have the promised shape ({shape})") from None
        raise ChildRefused(failure.code, failure.message, retryable=failure.retryable, remedy=failure.remedy)

    def _end(self, error: Exception, timeout_s: float) -> ChildDied | ChildTimedOut | ChildMisbehaved:
        """Kill the child and say what happened, as the error to raise."""
        if isinstance(error, ConnectionError):
            try:  # it is ending by itself: learn how
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                pass
        status = self._process.poll()
        self.kill()
        self._close_channel()
        name = f"The {self.spec.name} child"
        if self._flooded:
            return ChildMisbehaved(f"{name} flooded its output with more than {MAX_OUTPUT_BYTES} bytes.")
        if isinstance(error, TimeoutError):
            return ChildTimedOut(f"{name} did not answer within {timeout_s:g} s and was killed.")
        if isinstance(error, FrameError):
            return ChildMisbehaved(f"{name} broke the protocol: {error}.")
        if status in _ENDS:
            return ChildDied(f"{name} {_ENDS[status]}.")
        if status is not None and status < 0:
            return ChildDied(f"{name} was killed by {_signal_name(-status)}.")
        return ChildDied(f"{name} ended by itself with status {status}.")

    def _read_output(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        while piece := os.read(stream.fileno(), 65536):
            self._tail = (self._tail + piece)[-_TAIL_BYTES:]
            self._printed += len(piece)
            if self._printed > MAX_OUTPUT_BYTES and not self._flooded:
                self._flooded = True
                try:
                    os.killpg(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return


_ENDS = {MEMORY_EXIT: "ran out of the memory it was given", GPU_EXIT: "was ended by an error of its GPU"}
"""What children say by the status with which they end."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal; most of them have no name
        return f"signal {number}"


class Crew:
    """All children of this process, so that none outlives it; refuses to start more once it is closed."""

    def __init__(self) -> None:
        self._children: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        # PR_SET_PDEATHSIG fires when the thread that forked ends, not the process: so one thread, which lives as
        # long as the crew, starts every child.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts children")

    @property
    def closed(self) -> bool:
        """Whether no child is started any more."""
        return self._closed

    def start(self, spec: ChildSpec) -> Child:
        """Start a child. Raise Conflict if the appliance is stopping."""
        with self._lock:
            if self._closed:
                raise Conflict("The appliance is stopping; no child is started any more.")
            child = self._starter.submit(Child, spec).result()
            self._children.add(child)
        return child

    def living(self) -> list[Child]:
        """Return the children that are there."""
        with self._lock:
            return sorted((c for c in self._children if c.alive), key=lambda c: c.started_at)

    def bury_dead(self) -> None:
        """Kill what children that ended by themselves left of their process groups, and let go of their descriptors."""
        with self._lock:
            dead = {c for c in self._children if not c.alive}
            self._children -= dead
        for child in dead:
            child.kill()

    def close(self) -> None:
        """Kill every child; start no more."""
        with self._lock:
            self._closed = True
            children = list(self._children)
            self._children = set()
        for child in children:
            child.kill()
        self._starter.shutdown()


def _environment(spec: ChildSpec, limits: Confinement) -> dict[str, str]:
    """Return a small environment: no proxies, no tokens, and nothing that makes a library call home."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "TMPDIR"}}
    return {
        **kept,
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the cores from all other processes
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the daemon counts GPUs
        **dict(spec.environment),
        ENVIRONMENT_KEY: limits.model_dump_json(),
    }


class UnsafeFile(ChildMisbehaved):
    """A child named a file that the daemon will not touch."""


def open_produced(directory: Path, name: str, *, max_bytes: int) -> int:
    """Open a file a child made in its job directory and return the descriptor, open for reading.

    No link is followed and nothing outside ``directory`` is reached. Raise UnsafeFile if ``name`` is not a
    plain name or the file is a link, not regular, linked twice, or larger than ``max_bytes``.
    """
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise UnsafeFile("A child named a file outside its job directory.")
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise UnsafeFile(f"A child named a file that cannot be opened safely: {error.strerror}.") from error
    finally:
        os.close(folder)
    status = os.fstat(descriptor)
    regular = (status.st_mode & 0o170000) == 0o100000
    if not regular or status.st_nlink != 1 or status.st_size > max_bytes:
        os.close(descriptor)
        what = "not a regular file" if not regular else "linked elsewhere too" if status.st_nlink != 1 else "too large"
        raise UnsafeFile(f"A child named a file that is {what}.")
    return descriptor
