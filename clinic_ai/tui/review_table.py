"""The table of what waits for a person: the order is the daemon's, held results first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import CellDoesNotExist

from clinic_ai.control.review_views import ReviewRow
from clinic_ai.tui.review_words import state_text, why_words
from clinic_ai.tui.words import age

_COLUMNS = ("state", "study", "for", "age", "why")
_WIDTHS = (13, 19, 10, 6)
_LABELS = {"why": "rules that spoke"}
_PADDING = 1
_MIN_WHY = 12


class ReviewTable(DataTable[Text]):
    """Results that wait; changes only the cells that changed, keeps the cursor on its result."""

    DEFAULT_CSS = """
    ReviewTable { border: round $primary; overflow-x: hidden; scrollbar-size-vertical: 1; }
    ReviewTable:focus { border: round $accent; }
    """

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=_PADDING, zebra_stripes=True, id="reviews")
        self._rows: tuple[ReviewRow, ...] = ()
        self._shown: dict[str, tuple[Text, ...]] = {}
        self._why_width = 0
        self._now = 0.0

    def on_resize(self) -> None:
        """Give the last column what the others leave."""
        taken = sum(_WIDTHS) + 2 * _PADDING * len(_COLUMNS)
        width = max(self.size.width - taken - self.styles.scrollbar_size_vertical, _MIN_WHY)
        if width == self._why_width:
            return
        selected, rows = self.selected, self._rows
        self._why_width, self._shown = width, {}
        self.clear(columns=True)
        for name, wide in zip(_COLUMNS, (*_WIDTHS, width), strict=True):
            self.add_column(_LABELS.get(name, name), key=name, width=wide)
        self._fill(rows, self._now, selected)

    @property
    def selected(self) -> str | None:
        """The artefact under the cursor, None in an empty table."""
        try:
            return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value
        except CellDoesNotExist:
            return None

    def show(self, rows: Sequence[ReviewRow], now: float) -> None:
        """Show these results in this order."""
        self._now = now
        if self._why_width:
            self._fill(rows, now, self.selected)
        self._rows = tuple(rows)

    def tick(self, now: float) -> None:
        """Let the ages go on."""
        self.show(self._rows, now)

    def _fill(self, rows: Sequence[ReviewRow], now: float, selected: str | None) -> None:
        wanted = {row.artefact_id: _cells(row, now) for row in rows}
        if list(wanted) != list(self._shown):
            place = self.cursor_row
            self.clear()
            for artefact_id, cells in wanted.items():
                self.add_row(*cells, key=artefact_id)
            if wanted:
                # One that was decided is gone: the cursor stays where it was, on the next one.
                found = self.get_row_index(selected) if selected in wanted else min(place, len(wanted) - 1)
                self.move_cursor(row=found, animate=False)
        else:
            for artefact_id, cells in wanted.items():
                for name, old, new in zip(_COLUMNS, self._shown[artefact_id], cells, strict=True):
                    if old != new:
                        self.update_cell(artefact_id, name, new)
        self._shown = wanted


def _cells(row: ReviewRow, now: float) -> tuple[Text, ...]:
    return (
        state_text(row.state),
        _plain(row.study_id),
        _plain(row.audience),
        _plain(age(now - row.created_at)),
        _plain(why_words(row), "bold" if row.priority > 0 else ""),
    )


def _plain(words: str, style: str = "") -> Text:
    return Text(words, style=style, no_wrap=True, overflow="ellipsis")
