"""How results leave: each target of deliveries, what waits for it and how the newest ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from clinic_ai.domain import DeliveryState, Word
from clinic_ai.store.tables import deliveries

_NEWEST = 200
"""Deliveries among which targets are looked for: what matters is of late, and the table only grows."""


class LinkState(Word):
    """One target. ``waiting`` deliveries are not made yet, the oldest since ``waiting_since``, UTC seconds.

    ``state``, ``ended_at`` and ``error`` are those of the newest delivery that was tried; empty if none was.
    """

    target: str
    waiting: int = 0
    waiting_since: float | None = None
    state: str = ""
    attempts: int = 0
    ended_at: float | None = None
    error: str = ""


def links(connection: Connection) -> list[LinkState]:
    """Return the targets that deliveries went or are to go to of late, by name."""
    newest = connection.execute(select(deliveries).order_by(text("rowid DESC")).limit(_NEWEST)).all()
    pending = select(deliveries.c.target, func.count(), func.min(deliveries.c.created_at))
    pending = pending.where(deliveries.c.state == DeliveryState.PENDING.value).group_by(deliveries.c.target)
    waiting = {target: (int(number), float(since)) for target, number, since in connection.execute(pending)}
    return [_link(name, newest, waiting.get(name)) for name in sorted({*waiting, *(row.target for row in newest)})]


def _link(name: str, newest: Sequence[Row[Any]], waiting: tuple[int, float] | None) -> LinkState:
    tried = next((row for row in newest if row.target == name and (row.attempt or row.done_at)), None)
    count, since = waiting or (0, None)
    if tried is None:
        return LinkState(target=name, waiting=count, waiting_since=since)
    return LinkState(
        target=name,
        waiting=count,
        waiting_since=since,
        state=tried.state,
        attempts=tried.attempt,
        ended_at=tried.done_at,
        error=tried.error,
    )
