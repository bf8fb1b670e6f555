"""Threads for what takes long, apart from those of everything else: no such order keeps the rest waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

P = ParamSpec("P")
R = TypeVar("R")

COMPARISONS = 2
"""Files that are compared at the same time, each by a child of its own."""
ORDERS = 4
"""Orders of one kind that hash, measure or test for long; more of them wait."""
QUESTIONS = 6
"""More than are answered at the same time: the others are refused at once."""


def slowly(at_once: int) -> Callable[[Callable[P, R]], Callable[P, Awaitable[R]]]:
    """Return a decorator for a route's handler: it runs in threads of its own, ``at_once`` of them at most."""

    def decorator(handler: Callable[P, R]) -> Callable[P, Awaitable[R]]:
        limiter: RunVar[CapacityLimiter] = RunVar(f"slowly {handler.__module__}.{handler.__qualname__}")

        @wraps(handler)
        async def in_own_thread(*arguments: P.args, **keywords: P.kwargs) -> R:
            try:
                own = limiter.get()
            except LookupError:
                own = CapacityLimiter(at_once)
                limiter.set(own)
            return await to_thread.run_sync(partial(handler, *arguments, **keywords), limiter=own)

        return in_own_thread

    return decorator
