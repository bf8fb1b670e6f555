"""How many requests a user may send: a bucket of tokens each, which fills by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PER_SECOND = 100.0
"""Requests a second that a user may send for as long as they like; a terminal sends a dozen while much happens."""
AT_ONCE = 500
"""Requests that a user who was quiet may send at once."""
_REMEMBERED = 256


@dataclass
class _Bucket:
    tokens: float
    at: float


class Pace:
    """Counts the requests of each user on each socket. Safe to call from several threads.

    The sockets count apart, so that no monitor keeps its user from working. ``monotonic`` gives seconds.
    """

    def __init__(
        self,
        per_second: float = PER_SECOND,
        at_once: int = AT_ONCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._monotonic = monotonic
        self._buckets: dict[tuple[int, bool], _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, uid: int, *, readonly: bool) -> float:
        """Take a token for a request; return 0, or the seconds until there is one again if there is none."""
        with self._lock:
            now = self._monotonic()
            bucket = self._buckets.get((uid, readonly))
            if bucket is None:
                self._forget_the_quiet(now)
                bucket = self._buckets[uid, readonly] = _Bucket(float(self._at_once), now)
            bucket.tokens = self._filled(bucket, now)
            bucket.at = now
            if bucket.tokens < 1:
                return (1 - bucket.tokens) / self._per_second
            bucket.tokens -= 1
            return 0.0

    def _filled(self, bucket: _Bucket, now: float) -> float:
        return min(float(self._at_once), bucket.tokens + max(0.0, now - bucket.at) * self._per_second)

    def _forget_the_quiet(self, now: float) -> None:
        """Let go of full buckets once there are many: a new one would be as full."""
        if len(self._buckets) >= _REMEMBERED:
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if self._filled(bucket, now) < self._at_once
            }
