"""Unix sockets: bound closed to others, leftovers of a crash told from a daemon that lives."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from clinic_ai.control.people import group_id
from clinic_ai.errors import HomeError
from clinic_ai.home import MAX_SOCKET_PATH

SOCKET_MODE = 0o660
_BACKLOG = 64


def bind(path: Path, group: str = "") -> socket.socket:
    """Return a listening Unix socket at ``path`` with mode 0660, owned by ``group`` if one is named.

    A socket file nobody answers at is a leftover of a crash and is replaced. Raise HomeError if somebody
    answers, something else lies there, the path is too long, or there is no such group.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise HomeError(
            f"The path of the socket {path} has {length} bytes; Linux allows {MAX_SOCKET_PATH}.",
            remedy="Use a home with a shorter path.",
        )
    _clear(path)
    gid = _group_of(group)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(path))
        # Nobody can connect before listen(), so the mode is right from the first moment that matters.
        path.chmod(SOCKET_MODE)
        if gid is not None:
            os.chown(path, -1, gid)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise HomeError(
            f"The socket {path} cannot be made: {error.strerror}.",
            remedy="Check that the daemon owns the run folder of the home, and belongs to the group it names.",
        ) from error
    made.setblocking(False)
    return made


def answers(path: Path) -> bool:
    """Return whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is there and busy, or not ours to ask: not ours to remove either
    return True


def _clear(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeError(f"{path} cannot be reached: {error.strerror}.", remedy="Check the run folder.") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise HomeError(f"{path} is in the way; it is not a socket.", remedy="Look at it and remove it.")
    if answers(path):
        raise HomeError(
            f"Another daemon answers at {path}.", remedy="Use that one, or stop it, or use another home with --home."
        )
    path.unlink(missing_ok=True)


def _group_of(name: str) -> int | None:
    if not name:
        return None
    gid = group_id(name)
    if gid is None:
        raise HomeError(
            f"clinic.toml names the group {name} for the sockets, and there is no such group.",
            remedy=f"Make it with `groupadd {name}`, or change control.group.",
        )
    return gid
