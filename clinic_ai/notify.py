"""Tells systemd how the service does (sd_notify); silent where there is no systemd.

The protocol is one datagram to the socket named in NOTIFY_SOCKET, see sd_notify(3).
"""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1``; return whether anybody was there to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    target = "\0" + address[1:] if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(assignments).encode(), target)
        except OSError:
            return False
    return True


def watchdog_interval_s() -> float | None:
    """Return how often systemd wants to hear ``WATCHDOG=1`` (half of its limit), or None if it does not."""
    micros, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not micros.isdigit() or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(micros) / 2_000_000
