"""The first screen: the live queue, and why each study waits. It only draws what the client gives."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import ClassVar, TextIO

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Static

from clinic_ai.control.client import Client
from clinic_ai.control.views import StatusView, StudyRow, StudyView
from clinic_ai.domain import StudyState
from clinic_ai.errors import ClinicError
from clinic_ai.home import Home
from clinic_ai.tui.feed import Feed, Lost, Picture
from clinic_ai.tui.queue import StudyTable, key_of, matches
from clinic_ai.tui.screens import Confirm, HelpScreen
from clinic_ai.tui.words import alerts_text, details_text, header_text

WIDE = 120
"""Columns from which the details stand beside the queue."""

_WHAT_RETRY_DOES = {
    StudyState.ROUTED: "Whatever of it waits is tried at once.",
    StudyState.DONE: "It is analysed again as a new version, whose result replaces the present one.",
    StudyState.UNROUTED: "The rules as they are now are asked where it goes.",
    StudyState.FAILED: "It is routed and analysed again.",
}


class QueueApp(App[None]):
    """``clinic-ai tui``. ``clock`` gives UTC seconds; tests give their own."""

    TITLE = "clinic-ai"
    CSS_PATH = "style.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="queue.filter", tooltip="Show only studies with these words"),
        Binding("r", "retry", "Retry", id="queue.retry", tooltip="Try the selected study again"),
        Binding("j", "move(1)", "Down", show=False, id="queue.down"),
        Binding("k", "move(-1)", "Up", show=False, id="queue.up"),
        Binding("escape", "unfilter", "Clear filter", show=False, id="queue.unfilter"),
        Binding("question_mark", "help", "Help", id="help", tooltip="Keys and states"),
        Binding("q", "quit", "Quit", id="quit", tooltip="Close this screen; the appliance goes on"),
    ]

    class Arrived(Message):
        """The feed has an answer."""

        def __init__(self, answer: Picture | Lost) -> None:
            super().__init__()
            self.answer = answer

    def __init__(self, home: Home, *, monitor: bool = False, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._home = home
        self._monitor = monitor
        self._clock = clock
        self._feed = Feed(home, monitor=monitor, tell=self._tell)
        self._status: StatusView | None = None
        self._status_at = 0.0
        self._linked = False
        self._rows: dict[str, StudyRow] = {}
        self._study: StudyView | None = None
        self._words = ""
        self._texts: dict[str, Text] = {}

    def _tell(self, answer: Picture | Lost) -> None:
        """Called in the feed's thread."""
        self.post_message(self.Arrived(answer))

    def compose(self) -> ComposeResult:
        """Lay out header, banner, queue, details and keys."""
        yield Static(id="header")
        yield Static(id="banner")
        yield Static(id="alerts")
        yield Input(
            placeholder="Words to look for: state, modality, source, patient, reason …", id="filter", compact=True
        )
        with Container(id="body"):
            yield StudyTable()
            with VerticalScroll(id="details"):
                yield Static(id="facts")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Start the clock and the feed."""
        self.query_one("#details").border_title = "Study"
        self._arrange(self.size.width)
        self.query_one(StudyTable).focus()
        self._draw_header()
        self.set_interval(1.0, self._draw_header)
        self.set_interval(1.0, self._leave_a_lost_terminal)
        self._feed.start()

    def _leave_a_lost_terminal(self) -> None:
        """End when the terminal is gone: Textual would read its end of file again and again, at full speed."""
        if not self.is_headless and hung_up(sys.__stdin__):
            self.exit()

    def on_unmount(self) -> None:
        """Fetch no more."""
        self._feed.stop()

    def on_resize(self, event: Resize) -> None:
        """Put the details beside the queue if there is room, else below."""
        self._arrange(event.size.width)
        self._draw_header()

    def _arrange(self, width: int) -> None:
        self.query_one("#body").set_class(width >= WIDE, "wide")

    # ------------------------------------------------------------ what the feed brings

    @on(Arrived)
    def _take(self, message: Arrived) -> None:
        answer = message.answer
        if self._emptied:
            return
        if isinstance(answer, Lost):
            self._lose(answer)
            return
        again = not self._linked
        self._linked = True
        self._status, self._status_at = answer.status, self._clock()
        self._rows = {key_of(row): row for row in answer.studies}
        self._study = answer.study
        self.query_one("#banner").display = False
        self.query_one("#body").remove_class("stale")
        self._draw_header()
        self._draw_alerts()
        self._draw_queue()
        if again:
            self.refresh_bindings()

    def _lose(self, lost: Lost) -> None:
        self._linked = False
        since = ""
        if self._status is not None:
            since = f" What you see is from {time.strftime('%H:%M:%S', time.localtime(self._status_at))}."
        self._put("#banner", Text(f"{lost.sentence}{since} {lost.remedy} Trying again every second."))
        self.query_one("#banner").display = True
        self.query_one("#body").add_class("stale")
        self._draw_header()
        self.refresh_bindings()

    # ------------------------------------------------------------ drawing

    def _put(self, place: str, text: Text) -> None:
        """Show a text unless it is shown already: over a slow line every redraw is seen."""
        if self._texts.get(place) != text:
            self._texts[place] = text
            self.query_one(place, Static).update(text)

    @property
    def _emptied(self) -> bool:
        """Whether the widgets are gone; a last answer of the feed may still come."""
        return not self.query("#header")

    def _draw_header(self) -> None:
        if self._emptied:
            return
        line = header_text(self._status, linked=self._linked, now=self._clock(), width=self.size.width)
        self._put("#header", line)

    def _draw_alerts(self) -> None:
        text = alerts_text(self._status) if self._status else Text()
        text.rstrip()
        self.query_one("#alerts").display = bool(text)
        self._put("#alerts", text)

    def _draw_queue(self) -> None:
        table = self.query_one(StudyTable)
        rows = [row for row in self._rows.values() if matches(row, self._words)]
        table.show(rows, self._clock())
        table.border_title = f"Queue: {self._words} ({len(rows)} of {len(self._rows)})" if self._words else "Queue"
        self._draw_details()

    def _draw_details(self) -> None:
        row = self._selected()
        self._feed.select(row.study_id if row else None)
        if row is None:
            empty = "No study has these words." if self._rows else "No studies yet. Drop a scan into an inbox."
            self._put("#facts", Text(empty))
            return
        study = self._study if self._study is not None and self._study.study_id == row.study_id else None
        self._put("#facts", details_text(row, study))

    def _selected(self) -> StudyRow | None:
        key = self.query_one(StudyTable).selected
        return None if key is None else self._rows.get(key)

    @on(DataTable.RowHighlighted)
    def _chosen(self) -> None:
        self._draw_details()

    # ------------------------------------------------------------ keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Take the changing keys away where nothing may be changed."""
        if action == "retry":
            return self._status is not None and self._status.may_change and self._linked
        return True

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        table = self.query_one(StudyTable)
        table.move_cursor(row=table.cursor_row + by)

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

    def action_help(self) -> None:
        """Show the help."""
        self.push_screen(HelpScreen(may_change=self._status is None or self._status.may_change))

    def action_retry(self) -> None:
        """Ask, then try the selected study again."""
        row = self._selected()
        if row is None:
            return
        if row.state not in _WHAT_RETRY_DOES:
            self.notify(f"Study {row.study_id} is on its way already.")
            return
        question = f"Try study {row.study_id} ({row.pseudonym}) again?\n{_WHAT_RETRY_DOES[row.state]}"

        def decided(yes: bool | None) -> None:
            if yes:
                self._retry(row.study_id)

        self.push_screen(Confirm(question), decided)

    @work(thread=True)
    def _retry(self, study_id: str) -> None:
        try:
            with Client(self._home, monitor=self._monitor) as client:
                done = client.retry(study_id)
        except ClinicError as error:
            self.call_from_thread(self.notify, f"{error.message} {error.remedy}", severity="error", markup=False)
            return
        self.call_from_thread(self.notify, done.sentence, markup=False)
        self._feed.poke()


def hung_up(stream: TextIO | None) -> bool:
    """Return whether the other end of a terminal, pipe or socket is gone."""
    if stream is None:
        return True
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
