"""A picture in the terminal: two pixels in each cell, or where colours are few a character for each cell."""

from __future__ import annotations

from functools import lru_cache

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.app import RenderResult
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

RAMP = " .:-=+*#%@"
"""From no ink to much, white on black: a negative would mislead."""
_INK = Style(color="bright_white", bgcolor="black")
_FEW_COLOURS = frozenset({None, "standard", "windows"})

Edges = tuple[str, str, str, str]


class Pixels(Widget):
    """Shows red, green and blue of ``columns`` × ``rows`` pixels, with letters at the edges.

    It is drawn in the middle if it is smaller than the widget, so that a picture stays while the next one is made.
    """

    DEFAULT_CSS = "Pixels { width: 1fr; height: 1fr; }"

    class Room(Message):
        """There is another number of cells to draw in."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rgb = b""
        self._columns = self._rows = 0
        self._edges: Edges = ("", "", "", "")

    def show(self, rgb: bytes, columns: int, rows: int, edges: Edges) -> None:
        """Draw a picture; ``rows`` is even. The same one again draws nothing."""
        if (rgb, columns, rows, edges) != (self._rgb, self._columns, self._rows, self._edges):
            self._rgb, self._columns, self._rows, self._edges = rgb, columns, rows, edges
            self.refresh()

    def on_resize(self) -> None:
        """Say that there is more room, or less."""
        self.post_message(self.Room())

    def clear(self) -> None:
        """Show nothing."""
        self.show(b"", 0, 0, ("", "", "", ""))

    @property
    def plain(self) -> bool:
        """Whether characters stand for greys: without colours, or with so few that half-cells show nothing."""
        few = self.app.console.color_system in _FEW_COLOURS and not self.app.is_headless
        return self.app.no_color or few

    def render(self) -> RenderResult:
        """Return nothing: the lines are drawn one by one."""
        return ""

    def render_line(self, y: int) -> Strip:
        """Return a line of cells."""
        width, height = self.size
        lines = self._rows // 2
        line = y - max(0, (height - lines) // 2)
        ground = self.rich_style
        if not self._rgb or not 0 <= line < lines:
            return Strip.blank(width, ground)
        left = max(0, (width - self._columns) // 2)
        cells = self._inked(line) if self.plain else self._coloured(line)
        self._letter(cells, line, lines)
        segments = [Segment(" " * left, ground), *cells]
        return Strip(segments).adjust_cell_length(width, ground).simplify()

    def _coloured(self, line: int) -> list[Segment]:
        rgb, columns = self._rgb, self._columns
        upper, lower = 2 * line * columns * 3, (2 * line + 1) * columns * 3
        return [
            _half(
                rgb[upper + 3 * x],
                rgb[upper + 3 * x + 1],
                rgb[upper + 3 * x + 2],
                rgb[lower + 3 * x],
                rgb[lower + 3 * x + 1],
                rgb[lower + 3 * x + 2],
            )
            for x in range(columns)
        ]

    def _inked(self, line: int) -> list[Segment]:
        return [Segment(character, _INK) for character in inked(self._rgb, self._columns, line)]

    def _letter(self, cells: list[Segment], line: int, lines: int) -> None:
        """Write the letters of the edges over a line of cells."""
        top, right, bottom, left = self._edges
        middle = self._columns // 2
        if line == 0:
            _write(cells, middle - len(top) // 2, top)
        if line == lines - 1:
            _write(cells, middle - len(bottom) // 2, bottom)
        if line == lines // 2:
            _write(cells, 0, left)
            _write(cells, self._columns - len(right), right)


def inked(rgb: bytes, columns: int, line: int) -> str:
    """Return a line of characters, each for the two pixels of a cell: the brighter, the more ink."""
    row, last = 3 * columns, len(RAMP) - 1
    characters = []
    for x in range(columns):
        upper = 2 * line * row + 3 * x
        level = sum(rgb[upper : upper + 3]) + sum(rgb[upper + row : upper + row + 3])
        characters.append(RAMP[min(last, level * len(RAMP) // (6 * 255 + 1))])
    return "".join(characters)


def _write(cells: list[Segment], at: int, letters: str) -> None:
    for offset, letter in enumerate(letters):
        if 0 <= at + offset < len(cells):
            cells[at + offset] = Segment(letter, Style(color="bright_white", bgcolor="black", bold=True))


@lru_cache(maxsize=1 << 14)
def _half(red: int, green: int, blue: int, red_below: int, green_below: int, blue_below: int) -> Segment:
    """Return a cell whose upper half has one colour and whose lower half another."""
    above = Color.from_rgb(red, green, blue)
    if (red, green, blue) == (red_below, green_below, blue_below):
        return Segment(" ", Style(bgcolor=above))
    return Segment("▀", Style(color=above, bgcolor=Color.from_rgb(red_below, green_below, blue_below)))
