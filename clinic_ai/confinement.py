"""How a child ties its own hands before it touches anything from outside.

Called first thing in every worker, before heavy imports. Everything here is set by the child on itself:
``preexec_fn`` is unsafe in a daemon with threads.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ENVIRONMENT_KEY = "CLINIC_AI_CHILD"

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

_Calls = tuple[int, int, tuple[int, ...], tuple[int, ...]]
_CALLS: dict[str, _Calls] = {
    # The audit architecture, and the numbers of socket, of connect and bind, and of what reaches into other processes
    # (ptrace, process_vm_readv, process_vm_writev, pidfd_getfd) or makes calls past a filter (io_uring_*).
    "x86_64": (0xC000003E, 41, (42, 49), (101, 310, 311, 438, 425, 426, 427)),
    "aarch64": (0xC00000B7, 198, (203, 200), (117, 270, 271, 438, 425, 426, 427)),
}
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


class Confinement(BaseModel):
    """The limits of one child. Sizes in bytes; 0 means no limit.

    ``address_space`` caps all mappings (RLIMIT_AS), right for a parser; ``data`` caps private writable
    memory (RLIMIT_DATA), right for runtimes that map much and use little. ``file_size`` caps each file
    written, ``processes`` is not capped because the kernel counts it per user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: int = -1
    parent: int = 0
    address_space: int = 0
    data: int = 0
    file_size: int = 0
    open_files: int = 256
    network: bool = False
    nice: int = 0


def confine() -> tuple[socket.socket, Confinement]:
    """Apply the limits found in the environment; return the channel to the daemon and the limits.

    Raise SystemExit if this is not run as a child of the daemon.
    """
    text = os.environ.pop(ENVIRONMENT_KEY, "")
    if not text:
        raise SystemExit("This is a child process of clinic-ai; the daemon starts it.")
    limits = Confinement.model_validate(json.loads(text))
    _die_with(limits.parent)
    if not limits.network:
        leave_network()
    refuse_sockets(network=limits.network)
    _limit(resource.RLIMIT_AS, limits.address_space)
    _limit(resource.RLIMIT_DATA, limits.data)
    _limit(resource.RLIMIT_FSIZE, limits.file_size)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patients' images
    if limits.nice:
        os.nice(limits.nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which stops us in order
    # Writing beyond RLIMIT_FSIZE should raise OSError here and not kill the process without a word.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return socket.socket(fileno=limits.channel), limits


def keep_capabilities() -> None:
    """Keep the capabilities that systemd handed over (CAP_LEASE) from all programs that this process starts.

    What is ambient is inherited by them; emptied, they have none, and this process has what it has.
    """
    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def _limit(which: int, value: int) -> None:
    if value:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if parent and os.getppid() != parent:  # it died before the line above
        sys.exit(0)


def leave_network() -> bool:
    """Move this process into a network namespace of its own, where there is nothing to talk to.

    Return whether the kernel allowed it. In a unit with RestrictNamespaces it does not; there
    IPAddressDeny does the same work. Needs a single-threaded process.
    """
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        pass  # an unmapped user still owns its files; only the name shown for it differs
    return True


def refuse_sockets(*, network: bool) -> bool:
    """Let the kernel refuse this process, and all that it starts, the ways to other processes.

    A network namespace does not cover the paths of Unix sockets, where the daemon listens for people. Without
    ``network`` no socket connects or gets a name, by which people would take it for the daemon's, and there are none
    but Unix sockets; with it there are all but these. Return whether the kernel takes the filter; on other machines
    than x86-64 and ARM64 there is none. Needs a single-threaded process.
    """
    calls = _CALLS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if calls is None:
        return False
    code = b"".join(struct.pack("HBBI", *step) for step in _filter(calls, network=network))
    steps = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # else the kernel takes a filter of root alone
    return int(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)) == 0


def _filter(calls: _Calls, *, network: bool) -> list[tuple[int, int, int, int]]:
    """Return a program of classic BPF over ``struct seccomp_data``: operation, steps to skip if so, if not, operand."""
    architecture, socket_call, naming, others = calls
    refused = others if network else (*naming, *others)
    number, arch, first_argument = 0, 4, 16
    head = [
        (_LOAD, 0, 0, arch),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, number),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
    ]
    each = [step for call in refused for step in ((_EQUAL, 0, 1, call), (_RETURN, 0, 0, _REFUSE))]
    family = [
        (_EQUAL, 1, 0, socket_call),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, first_argument),
        (_EQUAL, 0, 1, socket.AF_UNIX),
        (_RETURN, 0, 0, _REFUSE if network else _ALLOW),
        (_RETURN, 0, 0, _ALLOW if network else _REFUSE),
    ]
    return [*head, *each, *family]
