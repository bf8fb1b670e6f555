"""What changes without a row in the audit: figures of the machine, steps of a training. Counted, never queued."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Literal

Topic = Literal["machine", "runs", "log", "inboxes"]


class Topics:
    """A number for each topic that grows when it changes; any thread may touch one."""

    def __init__(self) -> None:
        self._numbers: dict[Topic, int] = {}
        self._lock = threading.Lock()

    def touch(self, topic: Topic) -> None:
        """Note that something of a topic changed."""
        with self._lock:
            self._numbers[topic] = self._numbers.get(topic, 0) + 1

    def numbers(self) -> Mapping[Topic, int]:
        """Return the number of each topic that ever changed."""
        with self._lock:
            return dict(self._numbers)
