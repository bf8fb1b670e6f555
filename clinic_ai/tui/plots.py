"""Bars and curves in the terminal, made of characters: they read the same without any colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

Point = tuple[float, float]

_EIGHTHS = " ▏▎▍▌▋▊▉"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a braille character, by row and column."""
_AXIS = 7
"""Columns that the numbers at the left of a plot take, with the line beside them."""


def bar(share: float, width: int, style: str = "") -> Text:
    """Return a bar of ``width`` columns of which a ``share`` of 0 to 1 is full; dots stand for the rest."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, part = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[part] if part else "")
    text = Text(no_wrap=True)
    text.append(drawn, style=style)
    text.append("·" * (width - len(drawn)), style="dim")
    return text


def curve(points: Sequence[Point], *, width: int, height: int, right: float, unit: str) -> list[Text]:
    """Return a curve with its axes in ``height`` lines of ``width`` columns; it goes from 0 to ``right`` ``unit``s.

    ``points`` are in the order of their place. Without any, the lines say so.
    """
    columns, rows = max(width - _AXIS, 4), max(height - 1, 2)
    right = max([right, *(at for at, _ in points), 1e-9])
    if not points:
        lines = [Text(" " * (_AXIS - 1) + "│") for _ in range(rows)]
        lines[rows // 2].append(" nothing yet", style="dim")
        return [*lines, _floor(columns, right, unit)]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - max(abs(low) * 0.05, 0.01), high + max(abs(high) * 0.05, 0.01)
    cells = _drawn(points, columns, rows, right, (low, high))
    lines = []
    for row, cell in enumerate(cells):
        label = number(high) if row == 0 else number(low) if row == rows - 1 else ""
        line = Text(no_wrap=True)
        line.append(f"{label:>{_AXIS - 2}} {'┤' if label else '│'}", style="dim")
        line.append(cell)
        lines.append(line)
    return [*lines, _floor(columns, right, unit)]


def beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    """Return two blocks of lines beside each other; the left one gets ``width`` columns."""
    lines = []
    for at in range(max(len(left), len(right))):
        line = left[at].copy() if at < len(left) else Text()
        line.truncate(width, pad=True)
        lines.append(line + right[at] if at < len(right) else line)
    return lines


def number(value: float) -> str:
    """Return a number in five columns at most, as a tick has it."""
    size = abs(value)
    if size >= 100_000 or 0 < size < 0.001:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"[:5].rstrip(".")


def _drawn(points: Sequence[Point], columns: int, rows: int, right: float, span: tuple[float, float]) -> list[str]:
    """Return the lines of a curve in braille: two by four dots a character."""
    low, high = span
    wide, tall = columns * 2, rows * 4
    grid = [[0] * columns for _ in range(rows)]

    def place(point: Point) -> tuple[int, int]:
        x = round(point[0] / right * (wide - 1))
        y = round((high - point[1]) / (high - low) * (tall - 1))
        return min(max(x, 0), wide - 1), min(max(y, 0), tall - 1)

    before: tuple[int, int] | None = None
    for point in points:
        here = place(point)
        for x, y in _line(before or here, here):
            grid[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        before = here
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in grid]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a straight line, both ends among them."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (
            round(start[0] + (end[0] - start[0]) * step / steps),
            round(start[1] + (end[1] - start[1]) * step / steps),
        )
        for step in range(steps + 1)
    ]


def _floor(columns: int, right: float, unit: str) -> Text:
    """Return the line below a curve, with where it begins and ends."""
    end = f" {right:,.0f} {unit}" if right >= 1 or math.isclose(right, 0) else f" {right:.2g} {unit}"
    line = "0 " + "─" * max(columns - len(end) - 2, 0) + end
    return Text(f"{'└':>{_AXIS}}{line[:columns]}", style="dim", no_wrap=True)
