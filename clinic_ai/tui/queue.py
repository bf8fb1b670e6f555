"""The table of studies: changes only the cells that changed, keeps the cursor on its study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import total_ordering
from time import localtime, strftime

from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import CellDoesNotExist

from clinic_ai.control.views import StudyRow
from clinic_ai.tui.words import age, modality, stand_text, wait_text

_COLUMNS = ("arrived", "patient", "mod", "source", "state", "age", "wait")
_LABELS = {"arrived": "came", "wait": "waits because"}
_NARROW = (5, 10, 4, 8, 11, 6)
_WIDE = (8, 10, 6, 10, 11, 6)
_PADDING = 1
_MIN_WAIT = 12
_ROOM = 90
"""Columns from which the wide layout leaves enough for the reason."""


@total_ordering
@dataclass(frozen=True)
class Arrived:
    """A time of arrival: sorts by time, shows as ``words``."""

    at: float
    words: str

    def __lt__(self, other: Arrived) -> bool:
        """Compare by time."""
        return self.at < other.at

    def __str__(self) -> str:
        """Return the words."""
        return self.words


class StudyTable(DataTable[object]):
    """The live queue, newest first."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=_PADDING, zebra_stripes=True, id="queue")
        self._shown: dict[str, tuple[object, ...]] = {}
        self._rows: Sequence[StudyRow] = ()
        self._now = 0.0
        self._wait_width = 0
        self._wide = False

    def on_mount(self) -> None:
        """Make the columns."""
        self._lay_out(_MIN_WAIT)

    def on_resize(self) -> None:
        """Give the last column what the others leave."""
        self._wide = self.size.width >= _ROOM
        taken = sum(self._fixed()) + 2 * _PADDING * len(_COLUMNS)
        width = max(self.size.width - taken - self.styles.scrollbar_size_vertical, _MIN_WAIT)
        if width != self._wait_width:
            self._lay_out(width)

    def _fixed(self) -> tuple[int, ...]:
        return _WIDE if self._wide else _NARROW

    def _lay_out(self, wait_width: int) -> None:
        """Make the columns anew, with the rows there are; a column's width cannot be changed."""
        self._wait_width = wait_width
        selected, rows, now = self.selected, self._rows, self._now
        self._shown = {}
        self.clear(columns=True)
        for name, width in zip(_COLUMNS, (*self._fixed(), wait_width), strict=True):
            self.add_column(_LABELS.get(name, name), key=name, width=width)
        self.show(rows, now)
        if selected is not None:
            self.move_cursor(row=self.get_row_index(selected), animate=False)

    @property
    def selected(self) -> str | None:
        """Key of the row under the cursor, None in an empty table."""
        try:
            return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value
        except CellDoesNotExist:
            return None

    def show(self, rows: Sequence[StudyRow], now: float) -> None:
        """Show these studies; nothing is drawn again that stayed the same."""
        self._rows, self._now = rows, now
        wanted = {key_of(row): _cells(row, now, wide=self._wide) for row in rows}
        if wanted == self._shown:
            return
        selected = self.selected
        for key in self._shown.keys() - wanted.keys():
            self.remove_row(key)
        fresh = wanted.keys() - self._shown.keys()
        for key, cells in wanted.items():
            if key in fresh:
                self.add_row(*cells, key=key)
                continue
            for name, old, new in zip(_COLUMNS, self._shown[key], cells, strict=True):
                if old != new:
                    self.update_cell(key, name, new)
        if fresh:
            self.sort("arrived", reverse=True)
        self._shown = wanted
        if selected in wanted:
            self.move_cursor(row=self.get_row_index(selected), animate=False, scroll=bool(fresh))


def key_of(row: StudyRow) -> str:
    """Return what names a row: study and version."""
    return f"{row.study_id}#{row.version}"


def matches(row: StudyRow, words: str) -> bool:
    """Return whether every word is found somewhere in what the row shows."""
    waits = "" if row.wait is None else row.wait.sentence
    parts = (row.study_id, row.pseudonym, modality(row), row.source, row.state.value, waits, *row.facts.body_parts)
    text = " ".join(parts).casefold()
    return all(word in text for word in words.casefold().split())


def _cells(row: StudyRow, now: float, *, wide: bool) -> tuple[object, ...]:
    return (
        Arrived(row.opened_at, _moment(row.opened_at, now, wide=wide)),
        _plain(row.pseudonym),
        _plain(modality(row)),
        _plain(row.source),
        stand_text(row),
        _plain(age(now - row.opened_at)),
        wait_text(row),
    )


def _moment(at: float, now: float, *, wide: bool) -> str:
    """Return the time, or the day if it was another day's."""
    if localtime(at)[:3] != localtime(now)[:3]:
        return strftime("%m-%d", localtime(at))
    return strftime("%H:%M:%S" if wide else "%H:%M", localtime(at))


def _plain(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")
