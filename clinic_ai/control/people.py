"""Who is at the door: the peer of a Unix socket, the user behind it, and what clinic.toml lets them do."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.control.views import Role
from clinic_ai.settings import ControlSettings

_UCRED = struct.Struct("3i")
SO_PEERPIDFD = 77
_GENERATIONS = 64
"""No chain of parents here is longer; one that is, is not trusted."""


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a socket, as the kernel tells it; ``readonly`` on the monitor socket.

    ``child``: it is one of the daemon's own children, or nobody can tell that it is none.
    """

    pid: int
    uid: int
    gid: int
    readonly: bool
    child: bool = False


@dataclass(frozen=True)
class Person:
    """A Unix user with a role."""

    name: str
    uid: int
    role: Role


def peer_of(connection: socket.socket, *, readonly: bool) -> Peer:
    """Ask the kernel who is connected. Raise OSError if this is no Unix socket."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(found)
    # Children have the daemon's own uid and cannot get another; others may be hidden from a daemon that is not root.
    child = os.geteuid() in {0, uid} and _is_our_child(connection, pid)
    return Peer(pid=pid, uid=uid, gid=gid, readonly=readonly, child=child)


def _is_our_child(connection: socket.socket, pid: int) -> bool:
    """Return whether a peer descends from this process; also if it is gone, for then another may have its number."""
    if pid == 0:
        return False  # of another pid namespace, which no child of ours could have come from
    try:
        handle = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return True  # it is gone: kernels before 6.16 give no handle on it
        return descends_from(pid, os.getpid())  # a kernel before 6.5
    try:
        child = descends_from(pid, os.getpid())
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        return child or bool(ended.poll(0))
    finally:
        os.close(handle)


def descends_from(pid: int, ancestor: int) -> bool:
    """Return whether a process is a child of another, or a child's child; also if it cannot be told."""
    if pid == ancestor:
        return False
    for _ in range(_GENERATIONS):
        try:
            words = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return not _is_of_another_user(pid)
        pid = int(words.rpartition(b")")[2].split()[1])  # the name before it may hold anything
        if pid == ancestor:
            return True
        if pid in {0, 1}:
            return False
    return True


def _is_of_another_user(pid: int) -> bool:
    """Return whether a process is there that this user may not signal: no child can become another user.

    ``ProtectProc=`` hides such processes in /proc, and sudo is one, as whose child an administrator asks.
    """
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def user_name(uid: int) -> str:
    """Return the name of a Unix user, or ``uid 1234`` if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def user_exists(name: str) -> bool:
    """Return whether there is a Unix user of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def stands_for_nobody(uid: int) -> bool:
    """Return whether a user is root or the one the daemon runs as: whoever that is, it is no particular person."""
    return uid in {0, os.geteuid()}


def role_of(uid: int, settings: ControlSettings) -> Role | None:
    """Return the highest role of a user, None if clinic.toml does not name the user.

    root and the user the daemon runs as are administrators: they can read and write the home anyway.
    """
    name = user_name(uid)
    if stands_for_nobody(uid) or name in settings.administrators:
        return Role.ADMINISTRATOR
    if name in settings.clinicians:
        return Role.CLINICIAN
    return Role.TECHNICIAN if name in settings.technicians else None


def group_id(name: str) -> int | None:
    """Return the number of a Unix group, None if there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
