"""The table of studies: it holds the rows to be seen and a page each side, however long the queue is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from clinic_ai.control.queue_views import QueuePage, QueueRow
from clinic_ai.domain import QueueSort
from clinic_ai.tui.queue_words import COLUMNS, Cell, cells_of, fitted, key_of

MAX_WINDOW = 500
"""Rows of one answer at most; the daemon gives no more."""
WIDE_FROM = 84
"""Columns from which times have seconds and sources more room."""
_PLAIN = Style()
_HEAD = 1
"""Lines above the rows: the names of the columns."""


@dataclass(frozen=True)
class Wanted:
    """The part of the queue to be fetched, and the study whose place is asked for."""

    offset: int
    limit: int
    selected: tuple[str, int] | None


@dataclass(frozen=True)
class _Line:
    """A line as it is drawn; two that are the same are not drawn twice."""

    cells: tuple[Cell, ...]
    kind: str


class StudyTable(ScrollView, can_focus=True):
    """The live queue. The cursor stays on its study, wherever that moves to."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"queue--head", "queue--odd", "queue--even", "queue--cursor"}
    DEFAULT_CSS = """
    StudyTable {
        overflow-x: hidden;
        & > .queue--head { background: $panel; color: $foreground; text-style: bold; }
        & > .queue--even { background: $surface; }
        & > .queue--cursor { background: $block-cursor-blurred-background; text-style: bold; }
        &:focus > .queue--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "Down", show=False, id="queue.row_down", tooltip="The study below"),
        Binding("up", "move(-1)", "Up", show=False, id="queue.row_up", tooltip="The study above"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="queue.page_down", tooltip="A page down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="queue.page_up", tooltip="A page up"),
        Binding("home", "move_to(0)", "Top", show=False, id="queue.home", tooltip="The first study"),
        Binding("end", "move_to(-1)", "Bottom", show=False, id="queue.end", tooltip="The last study"),
    ]

    class Moved(Message):
        """Another study is under the cursor, or other rows are to be seen than are here."""

    class Chosen(Message):
        """The study under the cursor is to be opened."""

    class Sorted(Message):
        """The name of a column was clicked."""

        def __init__(self, sort: QueueSort) -> None:
            super().__init__()
            self.sort = sort

    def __init__(self) -> None:
        super().__init__(id="queue")
        self.total = 0
        self.cursor = 0
        self.sort, self.reverse = QueueSort.ARRIVAL, False
        self.empty: tuple[str, ...] = ()
        """What an empty queue says, a line each."""
        self._offset = 0
        self._rows: tuple[QueueRow, ...] = ()
        self._selected: tuple[str, int] | None = None
        self._now = 0.0
        self._drawn: list[_Line] = []

    # ------------------------------------------------------------ what is here

    @property
    def height(self) -> int:
        """Rows that fit."""
        return max(self.size.height - _HEAD, 1)

    @property
    def top(self) -> int:
        """Place of the first row to be seen."""
        return self.scroll_offset.y

    @property
    def selected(self) -> QueueRow | None:
        """The study under the cursor; None in an empty queue, and until its row has come."""
        return self._row(self.cursor)

    @property
    def wanted(self) -> Wanted:
        """What is to be seen, and a page each side."""
        offset = max(self.top - self.height, 0)
        return Wanted(offset, min(3 * self.height, MAX_WINDOW), self._selected)

    @property
    def complete(self) -> bool:
        """Whether every row to be seen is here."""
        last = min(self.top + self.height, self.total)
        return self._offset <= self.top and last <= self._offset + len(self._rows)

    def _row(self, place: int) -> QueueRow | None:
        index = place - self._offset
        return self._rows[index] if 0 <= index < len(self._rows) else None

    # ------------------------------------------------------------ what comes

    def show(self, page: QueuePage, asked: Wanted, now: float) -> None:
        """Show an answer to what was asked; nothing is drawn again that stayed the same."""
        before, above = self.cursor, self.cursor - self.top
        self._offset, self._rows, self.total, self._now = page.offset, page.studies, page.total, now
        if self.total + _HEAD != self.virtual_size.height:
            self.virtual_size = Size(self.size.width, self.total + _HEAD)
        self.cursor = max(min(self._place(page, asked), self.total - 1), 0)
        seen_from_the_top = self.top == 0 and self.cursor < self.height
        if self.cursor != before and not seen_from_the_top:
            self.scroll_to(y=self.cursor - above, animate=False, force=True)
        self._bring_into_sight()
        self._note_selected()
        self.draw()
        if not self.complete:
            self.post_message(self.Moved())

    def _place(self, page: QueuePage, asked: Wanted) -> int:
        """Return where the study under the cursor stands now."""
        if self._selected is None:
            return self.cursor
        for index, row in enumerate(page.studies):
            if key_of(row) == self._selected:
                return page.offset + index
        if page.place is not None and asked.selected == self._selected:
            return page.place
        return self.cursor

    def start_anew(self, *, keep: bool) -> None:
        """Go to the top, as what comes is another list; ``keep`` follows the study under the cursor instead."""
        if not keep:
            self._selected, self.cursor = None, 0
            self.scroll_to(y=0, animate=False, force=True)

    def tick(self, now: float) -> None:
        """Draw the ages anew."""
        self._now = now
        self.draw()

    # ------------------------------------------------------------ moving

    def move(self, to: int) -> None:
        """Put the cursor on a place, or as near as there is one."""
        fresh = max(min(to, self.total - 1), 0)
        if fresh == self.cursor:
            return
        self.cursor = fresh
        self._bring_into_sight()
        self._note_selected()
        self.draw()
        self.post_message(self.Moved())

    def action_move(self, by: int) -> None:
        """Move the cursor by some rows."""
        self.move(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by some pages."""
        self.move(self.cursor + by * self.height)

    def action_move_to(self, place: int) -> None:
        """Move the cursor to a place, counted from the end if negative."""
        self.move(place % max(self.total, 1))

    def _bring_into_sight(self) -> None:
        if self.cursor < self.top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= self.top + self.height:
            self.scroll_to(y=self.cursor - self.height + 1, animate=False, force=True)

    def _note_selected(self) -> None:
        row = self.selected
        self._selected = None if row is None else key_of(row)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw other rows, and ask for them if they are not here."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.draw()
            if not self.complete:
                self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """Select a row, open it if it is selected, or sort by a column."""
        at = event.get_content_offset(self)
        if at is None:
            return
        if at.y < _HEAD:
            if (sort := self._column_at(at.x)) is not None:
                self.post_message(self.Sorted(sort))
            return
        place = self.top + at.y - _HEAD
        if place == self.cursor and event.chain > 1:
            self.post_message(self.Chosen())
        elif place < self.total:
            self.move(place)

    def _column_at(self, x: int) -> QueueSort | None:
        left = 1
        for column, width in zip(COLUMNS, self._widths(), strict=True):
            left += width + 1
            if x < left:
                return column.sort
        return None

    # ------------------------------------------------------------ drawing

    def on_resize(self) -> None:
        """Lay the columns out anew."""
        self.virtual_size = Size(self.size.width, self.total + _HEAD)
        self._bring_into_sight()
        self.draw()
        if not self.complete:
            self.post_message(self.Moved())

    def draw(self) -> None:
        """Draw the lines that are not as they stand on the screen."""
        lines = list(self._lines())
        if len(lines) != len(self._drawn):
            self._drawn = lines
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(self._drawn, lines, strict=True)) if old != new]
        self._drawn = lines
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def _lines(self) -> Iterator[_Line]:
        widths = self._widths()
        yield _Line(tuple(self._head(widths)), "head")
        if not self.total:
            yield from (_Line((Cell(words, ""),), "plain") for words in self.empty[: self.height])
            return
        for place in range(self.top, min(self.top + self.height, self.total)):
            row = self._row(place)
            kind = "cursor" if place == self.cursor else "odd" if place % 2 else "even"
            cells = (Cell("…", "dim"),) if row is None else cells_of(row, self._now, widths)
            yield _Line(tuple(cells), kind)

    def _widths(self) -> Sequence[int]:
        """Return the widths of the columns; the last has what the others leave."""
        room = self.size.width - 1 - self.styles.scrollbar_size_vertical
        widths = [column.wide if room >= WIDE_FROM else column.narrow for column in COLUMNS]
        return (*widths[:-1], max(room - sum(widths[:-1]) - len(COLUMNS) + 1, widths[-1]))

    def _head(self, widths: Sequence[int]) -> Iterator[Cell]:
        for column, _ in zip(COLUMNS, widths, strict=True):
            downwards = column.highest_first is not self.reverse
            sign = ("▼" if downwards else "▲") if column.sort is self.sort else ""
            yield Cell(column.label + sign, "")

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        width = self.size.width
        if y >= len(self._drawn):
            return Strip.blank(width, self.rich_style)
        line = self._drawn[y]
        base = self.rich_style if line.kind == "plain" else self.get_component_rich_style(f"queue--{line.kind}")
        if len(line.cells) == 1:
            segments = [Segment(" " + line.cells[0].words, base)]
        else:
            segments = [Segment("›" if line.kind == "cursor" else " ", base)]
            for cell, room in zip(line.cells, self._widths(), strict=True):
                own = _PLAIN if line.kind == "cursor" else Style.parse(cell.style)
                segments += (Segment(fitted(cell.words, room), base + own), Segment(" ", base))
        return Strip(segments).adjust_cell_length(width, base)
