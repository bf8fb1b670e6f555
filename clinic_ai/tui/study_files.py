"""The files of a study as a table, with what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from clinic_ai.control.views import FileRow

_FATES = {
    "STORED": ("✓", "green"),
    "DUPLICATE": ("=", "dim"),
    "QUARANTINED": ("‖", "bold yellow"),
    "DISCARDED": ("✗", "dim"),
    "CLAIMING": ("↓", "cyan"),
    "CLAIMED": ("↓", "cyan"),
}


class StudyFiles(DataTable[Text]):
    """The files of a study, those that wait for a decision first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "scroll_top", "First", show=False),
        Binding("G", "scroll_bottom", "Last", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, id="study-files-table")
        self._shown: tuple[FileRow, ...] = ()

    def on_mount(self) -> None:
        """Make the columns."""
        for label, width in (("no.", 7), ("fate", 13), ("name", None), ("why", None)):
            self.add_column(label, width=width, key=label)

    def show(self, files: Sequence[FileRow]) -> None:
        """Show these files; the same ones again change nothing."""
        ordered = tuple(sorted(files, key=lambda row: (row.fate != "QUARANTINED", row.file_id)))
        if ordered == self._shown:
            return
        here = self.cursor_row
        self._shown = ordered
        self.clear()
        for row in ordered:
            sign, style = _FATES.get(row.fate, ("?", ""))
            self.add_row(
                Text(str(row.file_id), justify="right"),
                Text(f"{sign} {row.fate.lower()}", style=style),
                Text(row.name, no_wrap=True),
                Text(row.reason, no_wrap=True),
                key=str(row.file_id),
            )
        self.move_cursor(row=min(here, len(ordered) - 1))

    @property
    def selected(self) -> FileRow | None:
        """The file under the cursor, None if there is none."""
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None
