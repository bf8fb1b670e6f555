"""Asks the kernel whether anybody has a file open for writing, and keeps it so for a moment.

A read lease (fcntl(2), F_SETLEASE) is granted only while no process of this machine has the file open for writing or
mapped writable. Whoever opens it for writing afterwards waits until the lease is given back, and breaks it.
"""

from __future__ import annotations

import errno
import fcntl
import signal
from enum import StrEnum


class Lease(StrEnum):
    """What the kernel answered."""

    GRANTED = "granted"
    HELD_OPEN = "held_open"
    """Somebody has it open for writing."""
    NOT_POSSIBLE = "not_possible"
    """A network share, or a file of somebody else: leases are for owners and for CAP_LEASE."""


def take_lease(descriptor: int) -> Lease:
    """Ask for a lease on a file that is open for reading; closing the descriptor gives it back."""
    try:
        # When it is broken the kernel sends SIGIO, which would end the daemon; SIGURG is ignored unless asked for.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Lease.HELD_OPEN if error.errno == errno.EAGAIN else Lease.NOT_POSSIBLE
    return Lease.GRANTED


def lease_holds(descriptor: int) -> bool:
    """Return whether a lease that was granted holds still: nobody began to write meanwhile."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK
