"""Whether anybody is still at the other end of the terminal."""

from __future__ import annotations

import select
from typing import TextIO


def hung_up(stream: TextIO | None) -> bool:
    """Return whether the other end of a terminal, pipe or socket is gone."""
    if stream is None:
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
