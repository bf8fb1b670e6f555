"""Lists in pages: what continues a list names the last row of the page before, so that new rows shift nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from clinic_ai.control.client import MAX_PAGE
from clinic_ai.errors import NotFound

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of one page.")]
Before = Annotated[str | None, Query(max_length=600, description="next_before of the page before.")]


def page_of(
    rows: Sequence[T], limit: int, before: str | None, key: Callable[[T], str]
) -> tuple[tuple[T, ...], str | None]:
    """Return one page of a list and what continues it, None at its end. Raise NotFound if ``before`` is no row."""
    start = 0
    if before is not None:
        start = next((number for number, row in enumerate(rows, 1) if key(row) == before), -1)
        if start < 0:
            raise no_such_row()
    found = tuple(rows[start : start + limit])
    return found, key(found[-1]) if start + limit < len(rows) else None


def no_such_row() -> NotFound:
    """Return the refusal to go on after a row that is gone."""
    return NotFound("The row that the list is to go on after is gone.", remedy="Read the list from its beginning.")
