"""Who is at the door: the peer of a Unix socket, the user behind it, and what clinic.toml lets them do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from clinic_ai.control.views import Role
from clinic_ai.settings import ControlSettings

_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a socket, as the kernel tells it; ``readonly`` on the monitor socket."""

    pid: int
    uid: int
    gid: int
    readonly: bool


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
    return Peer(pid=pid, uid=uid, gid=gid, readonly=readonly)


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


def role_of(uid: int, settings: ControlSettings) -> Role | None:
    """Return the highest role of a user, None if clinic.toml does not name the user.

    root and the user the daemon runs as are administrators: they can read and write the home anyway.
    """
    name = user_name(uid)
    if uid in {0, os.geteuid()} or name in settings.administrators:
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
