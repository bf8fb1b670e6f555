"""A table of things with a name each: changes only the cells that changed, keeps the cursor on its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import CellDoesNotExist

_PADDING = 1
_FEWEST = 10
"""Columns that the last column has at least."""


@dataclass(frozen=True)
class Column:
    """A column and its width in a narrow and a wide table; 0: it is left out there. The last one takes the rest."""

    title: str
    narrow: int = 0
    wide: int = 0


class KeyedTable(DataTable[Text]):
    """Rows by key, in the order they are given."""

    def __init__(self, columns: Sequence[Column], *, widget_id: str, wide_from: int = 90) -> None:
        """Take the columns; the wide widths are used from ``wide_from`` columns of room on."""
        super().__init__(cursor_type="row", cell_padding=_PADDING, zebra_stripes=True, id=widget_id)
        self._wanted = tuple(columns)
        self._wide_from = wide_from
        self._shown: dict[str, tuple[Text, ...]] = {}
        self._laid_out = 0

    def on_resize(self) -> None:
        """Give the last column what the others leave."""
        if self.size.width and self.size.width != self._laid_out:
            self._lay_out()

    def _widths(self) -> list[int]:
        wide = self.size.width >= self._wide_from
        widths = [column.wide if wide else column.narrow for column in self._wanted[:-1]]
        there = sum(width > 0 for width in widths) + 1
        taken = sum(widths) + 2 * _PADDING * there + self.styles.scrollbar_size_vertical
        return [*widths, max(self.size.width - taken, _FEWEST)]

    def _lay_out(self) -> None:
        """Make the columns anew, with the rows there are; a column's width cannot be changed."""
        self._laid_out = self.size.width
        rows, selected, self._shown = self._shown, self.selected, {}
        self.clear(columns=True)
        for at, (column, width) in enumerate(zip(self._wanted, self._widths(), strict=True)):
            if width:
                self.add_column(column.title, key=str(at), width=width)
        self.show(rows, selected)

    @property
    def selected(self) -> str | None:
        """Key of the row under the cursor, None in an empty table."""
        try:
            return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value
        except CellDoesNotExist:
            return None

    def show(self, rows: Mapping[str, tuple[Text, ...]], selected: str | None = None) -> None:
        """Show these rows; nothing is drawn again that stayed the same. ``selected`` gets the cursor if it is given."""
        if not self._laid_out:
            self._shown = dict(rows)  # they are drawn once there is room
            return
        selected = selected if selected is not None else self.selected
        if list(rows) != list(self._shown) or not self.row_count:
            self.clear()
            for key, cells in rows.items():
                self.add_row(*self._kept(cells), key=key)
        else:
            self._update(rows)
        self._shown = dict(rows)
        if selected is not None and selected in rows and selected != self.selected:
            self.move_cursor(row=self.get_row_index(selected), animate=False)

    def _update(self, rows: Mapping[str, tuple[Text, ...]]) -> None:
        for key, cells in rows.items():
            for at, (old, new) in enumerate(zip(self._shown[key], cells, strict=True)):
                if old != new and str(at) in self.columns:
                    self.update_cell(key, str(at), new)

    def _kept(self, cells: tuple[Text, ...]) -> list[Text]:
        return [cell for at, cell in enumerate(cells) if str(at) in self.columns]


def cell(words: str, style: str = "") -> Text:
    """Return a cell that is cut at its end where it has no room."""
    return Text(words, style=style, no_wrap=True, overflow="ellipsis")
