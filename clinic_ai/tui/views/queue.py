"""The first screen: the live queue, and why each study waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import DataTable, Input, Static

from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role, StudyRow, StudyView
from clinic_ai.domain import StudyState
from clinic_ai.errors import NotFound
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.queue import StudyTable, key_of, matches
from clinic_ai.tui.view import ClinicView
from clinic_ai.tui.words import details_text

ROWS = 500
"""Studies shown; the newest. ``clinic-ai study list --limit`` shows more."""

_WHAT_RETRY_DOES = {
    StudyState.ROUTED: "Whatever of it waits is tried at once.",
    StudyState.DONE: "It is analysed again as a new version, whose result replaces the present one.",
    StudyState.UNROUTED: "The rules as they are now are asked where it goes.",
    StudyState.FAILED: "It is routed and analysed again.",
}


@dataclass(frozen=True)
class Shown:
    """The studies, and all of the selected one; None if none is."""

    studies: tuple[StudyRow, ...]
    study: StudyView | None


class QueueView(ClinicView):
    """The live queue, with the details of the selected study."""

    NAME = "queue"
    TITLE = "Queue"
    ORDERS: ClassVar[Mapping[str, Role]] = {"retry": Role.TECHNICIAN}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="queue.filter", tooltip="Show only studies with these words"),
        Binding("enter", "open", "Open", id="queue.open", tooltip="Open the selected study", priority=False),
        Binding("r", "retry", "Retry", id="queue.retry", tooltip="Try the selected study again (asks first)"),
        Binding("j", "move(1)", "Down", show=False, id="queue.down"),
        Binding("k", "move(-1)", "Up", show=False, id="queue.up"),
        Binding("escape", "unfilter", "Clear filter", show=False, id="queue.unfilter"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, StudyRow] = {}
        self._study: StudyView | None = None
        self._words = ""
        self._wanted: str | None = None

    def compose(self) -> ComposeResult:
        """Lay out the filter, the queue and the details."""
        yield Input(
            placeholder="Words to look for: state, modality, source, patient, reason …", id="filter", compact=True
        )
        with Container(classes="split"):
            yield StudyTable()
            with VerticalScroll(id="details"):
                yield Static(id="facts")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one("#details").border_title = "Study"

    def focus_first(self) -> None:
        """Put the focus on the queue."""
        self.query_one(StudyTable).focus()

    def fetching(self) -> Fetch:
        """Return what fetches the newest studies and the selected one."""
        selected = self._wanted

        def fetch(client: TerminalClient) -> Shown:
            studies = client.studies(limit=ROWS).studies
            return Shown(studies, None if selected is None else _study(client, selected))

        return fetch

    def show(self, answer: object) -> None:
        """Draw the queue."""
        if isinstance(answer, Shown):
            self._rows = {key_of(row): row for row in answer.studies}
            self._study = answer.study
            self._draw_queue()

    def _draw_queue(self) -> None:
        table = self.query_one(StudyTable)
        rows = [row for row in self._rows.values() if matches(row, self._words)]
        table.show(rows, self.clinic.clock())
        table.border_title = f"Queue: {self._words} ({len(rows)} of {len(self._rows)})" if self._words else "Queue"
        self._draw_details()

    def _draw_details(self) -> None:
        row = self._selected()
        wanted = row.study_id if row else None
        if wanted != self._wanted:
            self._wanted = self.clinic.study_id = wanted
            self.refetch()
        if row is None:
            empty = "No study has these words." if self._rows else "No studies yet. Drop a scan into an inbox."
            self.put("#facts", Text(empty))
            return
        study = self._study if self._study is not None and self._study.study_id == row.study_id else None
        self.put("#facts", details_text(row, study))

    def _selected(self) -> StudyRow | None:
        key = self.query_one(StudyTable).selected
        return None if key is None else self._rows.get(key)

    @on(DataTable.RowHighlighted)
    def _chosen(self) -> None:
        self._draw_details()

    def copied(self) -> str:
        """Return the id of the selected study."""
        row = self._selected()
        return "" if row is None else row.study_id

    # ------------------------------------------------------------ keys

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        table = self.query_one(StudyTable)
        table.move_cursor(row=table.cursor_row + by)

    @on(DataTable.RowSelected)
    async def action_open(self) -> None:
        """Open the selected study."""
        row = self._selected()
        if row is not None:
            await self.clinic.open_study(row.study_id)

    def action_filter(self) -> None:
        """Ask for words."""
        box = self.query_one("#filter", Input)
        box.display = True
        box.focus()

    def action_unfilter(self) -> None:
        """Show everything again."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.display = False
        self.query_one(StudyTable).focus()

    @on(Input.Changed, "#filter")
    def _narrow(self, event: Input.Changed) -> None:
        self._words = event.value
        self._draw_queue()

    @on(Input.Submitted, "#filter")
    def _narrowed(self) -> None:
        self.query_one("#filter").display = bool(self._words)
        self.query_one(StudyTable).focus()

    def action_retry(self) -> None:
        """Ask, then try the selected study again."""
        row = self._selected()
        if row is None:
            return
        study_id = row.study_id
        if row.state not in _WHAT_RETRY_DOES:
            self.clinic.notify(f"Study {study_id} is on its way already.")
            return
        question = f"Try study {study_id} ({row.pseudonym}) again?\n{_WHAT_RETRY_DOES[row.state]}"
        self.order(question, lambda client: client.retry(study_id))


def _study(client: TerminalClient, study_id: str) -> StudyView | None:
    try:
        return client.study(study_id)
    except NotFound:
        return None


VIEW = QueueView
