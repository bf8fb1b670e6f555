"""Graphs of one or two lines of text, drawn with blocks: they are read without any colour."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
GAP = "·"
"""A step in which nothing was measured."""


def graph(values: Sequence[float | None], width: int, *, low: float, high: float, rows: int = 1) -> list[str]:
    """Return ``rows`` lines of ``width`` columns, the newest value on the right; ``low`` is empty and ``high`` full.

    Of several values in one column the highest is shown: a peak is not to be missed.
    """
    columns = _columns(values, width)
    span = high - low
    lines = []
    for row in reversed(range(rows)):
        cells = []
        for value in columns:
            if value is None:
                cells.append(GAP if row == 0 else " ")
                continue
            share = (value - low) / span if span > 0 else 0.0
            filled = round(min(max(share, 0.0), 1.0) * 8 * rows) - 8 * row
            if row == 0:
                filled = max(filled, 1)  # what was measured is there, however little it is
            cells.append(_EIGHTHS[min(max(filled, 0), 8)])
        lines.append("".join(cells))
    return lines


def bar(share: float, width: int) -> str:
    """Return a bar of ``width`` columns, filled to a share from 0 to 1."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "█" * filled + "░" * (width - filled)


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return one value a column; fewer values than columns are repeated, as evenly as it goes."""
    count = len(values)
    if not count:
        return [None] * width
    columns: list[float | None] = []
    for column in range(width):
        start, end = column * count // width, (column + 1) * count // width
        known = [value for value in values[start : max(end, start + 1)] if value is not None]
        columns.append(max(known, default=None))
    return columns
