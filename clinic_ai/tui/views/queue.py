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
from textual.widget import Widget
from textual.widgets import Input, Static

from clinic_ai.control.queue_views import QueuePage, QueueRow
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role, RouteView, StatusView, StudyView
from clinic_ai.domain import Fate, QueueSort, StudyState
from clinic_ai.errors import NotFound
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.measures import counted
from clinic_ai.tui.queue import StudyTable, Wanted
from clinic_ai.tui.queue_screens import LeftOut, TextScreen, left_out_text, route_text, sources_text
from clinic_ai.tui.queue_words import SORTS
from clinic_ai.tui.screens import Choose
from clinic_ai.tui.study_details import details_text
from clinic_ai.tui.view import ClinicView
from clinic_ai.tui.views import PLACES

STEP = 10
"""By how much + and - change a priority."""
URGENT = 50
"""The priority of what ``u`` makes urgent: that of STAT in a header."""
HIGHEST = 100

_HINTS = {
    StudyState.RECEIVING: (("close_now", "go on with what is there"),),
    StudyState.ROUTED: (("retry", "try at once"),),
    StudyState.UNROUTED: (("explain", "see why no rule takes it"), ("retry", "ask the rules again")),
    StudyState.FAILED: (("retry", "try it again"),),
    StudyState.DONE: (("go", "see what waits for a person"),),
}
"""The keys that help with a study that waits in this state, by their actions."""

_WHAT_RETRY_DOES = {
    StudyState.ROUTED: "Whatever of it waits is tried at once.",
    StudyState.DONE: "It is analysed again as a new version, whose result replaces the present one.",
    StudyState.UNROUTED: "The rules as they are now are asked where it goes.",
    StudyState.FAILED: "It is routed and analysed again.",
}


@dataclass(frozen=True)
class Shown:
    """A part of the queue, what was asked for, and all of the study under the cursor; None if there is none."""

    page: QueuePage
    asked: Wanted
    study: StudyView | None


class QueueView(ClinicView):
    """The live queue, with the details of the study under the cursor."""

    NAME = "queue"
    TITLE = "Queue"
    ORDERS: ClassVar[Mapping[str, Role]] = dict.fromkeys(
        ("retry", "reroute", "close_now", "prioritise", "urgent"), Role.TECHNICIAN
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="queue.filter", tooltip="Show only studies with these words"),
        Binding("enter", "open", "Open", id="queue.open", tooltip="Open the study under the cursor"),
        Binding("s", "sort", "Sort", id="queue.sort", tooltip="Choose what the queue is sorted by"),
        Binding("S", "reverse", "Reverse", show=False, id="queue.reverse", tooltip="Sort the other way round"),
        Binding("r", "retry", "Retry", id="queue.retry", tooltip="Try the study again (asks first)"),
        Binding(
            "R",
            "reroute",
            "Re-route",
            show=False,
            id="queue.reroute",
            tooltip="Route it anew (asks)",
        ),
        Binding("c", "close_now", "Close", show=False, id="queue.close", tooltip="Close it as it is (asks)"),
        Binding("u", "urgent", "Urgent", show=False, id="queue.urgent", tooltip="Make it urgent, or not (asks)"),
        Binding(
            "plus", f"prioritise({STEP})", "Sooner", show=False, id="queue.sooner", tooltip="Raise its priority (asks)"
        ),
        Binding(
            "minus", f"prioritise({-STEP})", "Later", show=False, id="queue.later", tooltip="Lower its priority (asks)"
        ),
        Binding("e", "explain", "Explain", id="queue.explain", tooltip="Where the rules send it now, and why"),
        Binding("f", "left_out", "Files", id="queue.files", tooltip="Files that are in no study, and why"),
        Binding("j", "move(1)", "Down", show=False, id="queue.down", tooltip="The study below"),
        Binding("k", "move(-1)", "Up", show=False, id="queue.up", tooltip="The study above"),
        Binding("g", "top", "Top", show=False, id="queue.top", tooltip="The first study"),
        Binding("G", "bottom", "Bottom", show=False, id="queue.bottom", tooltip="The last study"),
        Binding("J", "read(1)", "Read on", show=False, id="queue.read_on", tooltip="Scroll the details down"),
        Binding("K", "read(-1)", "Read back", show=False, id="queue.read_back", tooltip="Scroll the details up"),
        Binding("escape", "unfilter", "Show all", show=False, id="queue.unfilter", tooltip="Show all studies again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._study: StudyView | None = None
        self._words = ""
        self._asked: tuple[str, int] | None = None
        self._status: StatusView | None = None

    @property
    def table(self) -> StudyTable:
        """The table of studies."""
        return self.query_one(StudyTable)

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
        self._draw_titles()

    def focus_first(self) -> None:
        """Put the focus on the queue."""
        self.table.focus()

    # ------------------------------------------------------------ what is shown

    def fetching(self) -> Fetch:
        """Return what fetches the rows to be seen, and the study under the cursor."""
        table, words = self.table, self._words
        asked, sort, reverse = table.wanted, table.sort, table.reverse
        study_id, version = asked.selected if asked.selected is not None else (None, None)

        def fetch(client: TerminalClient) -> Shown:
            page = client.queue(
                sort=sort,
                reverse=reverse,
                words=words,
                offset=asked.offset,
                limit=asked.limit,
                study_id=study_id,
                version=version,
            )
            return Shown(page, asked, None if study_id is None else _study(client, study_id))

        return fetch

    def show(self, answer: object) -> None:
        """Draw the queue."""
        if not isinstance(answer, Shown):
            return
        self._study = answer.study
        self.table.show(answer.page, answer.asked, self.clinic.clock())
        self._draw_titles()
        self._follow_cursor()

    def status_changed(self, status: StatusView) -> None:
        """Note where scans may be put, for an empty queue."""
        self._status = status

    def tick(self, now: float) -> None:
        """Let the ages grow."""
        self.table.tick(now)
        self._draw_details()

    def _draw_titles(self) -> None:
        table, status, words = self.table, self._status, " ".join(self._words.split())
        known = sum(n for state, n in status.studies.items() if state != StudyState.SUPERSEDED) if status else 0
        title = f"Queue: {counted(table.total, 'study', 'studies')}" if table.total else "Queue"
        if words:
            title = f"Queue: {words}: {table.total:,} of {counted(known, 'study', 'studies')}"
        what, usual, other = SORTS[table.sort]
        order = f"by {what}, {other if table.reverse else usual}; urgent on top"
        _entitle(table, title, order if table.total else "")
        waiting = status.files.get(Fate.QUARANTINED.value, 0) if status else 0
        files = f"{counted(waiting, 'file waits', 'files wait')} in quarantine: f" if waiting else ""
        _entitle(self.query_one("#details"), "Why it waits", files)

    def _follow_cursor(self) -> None:
        """Show the study under the cursor, and fetch what is to be said of it."""
        row = self.table.selected
        key = None if row is None else (row.study_id, row.version)
        if key != self._asked:
            self._asked = key
            self.clinic.study_id = None if row is None else row.study_id
            self.query_one("#details").scroll_home(animate=False)
            self.refetch()
        self._draw_details()

    def _draw_details(self) -> None:
        row, status = self.table.selected, self._status
        if row is None:
            self.put("#facts", self._nothing())
            return
        study = self._study if self._study is not None and self._study.study_id == row.study_id else None
        now, hint = self.clinic.clock(), self._hint(row)
        self.put("#facts", details_text(row, study, status, now, hint=hint, critical=row.critical))

    def _hint(self, row: QueueRow) -> str:
        """Return which keys help with a study that waits; nothing if none does, or this person has none."""
        if row.wait is None or row.wait.code == "undelivered":
            return ""
        keys = {"go": next(place.key for place in PLACES if place.name == "review")}
        keys |= {binding.action: self.clinic.get_key_display(binding) for _, binding in self._bindings}
        helpful = [f"{keys[action]} to {words}" for action, words in _HINTS.get(row.state, ()) if self.may(action)]
        return f"Press {', or '.join(helpful)}." if helpful else ""

    def _nothing(self) -> Text:
        if self.table.total:
            return Text("")
        if self._words.split():
            return Text("No study has these words. Escape shows all.")
        return sources_text(self._status)

    @on(StudyTable.Moved)
    def _moved(self) -> None:
        key = self._asked
        self._follow_cursor()
        if key == self._asked and not self.table.complete:
            self.refetch()

    def copied(self) -> str:
        """Return the id of the study under the cursor."""
        row = self.table.selected
        return "" if row is None else row.study_id

    # ------------------------------------------------------------ keys that look

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.table.move(self.table.cursor + by)

    def action_top(self) -> None:
        """Go to the first study."""
        self.table.move(0)

    def action_bottom(self) -> None:
        """Go to the last study."""
        self.table.move(self.table.total - 1)

    def action_read(self, by: int) -> None:
        """Scroll the details."""
        details = self.query_one("#details")
        details.scroll_relative(y=by * max(details.size.height - 1, 1), animate=False)

    @on(StudyTable.Chosen)
    async def action_open(self) -> None:
        """Open the study under the cursor."""
        row = self.table.selected
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
        self.table.focus()

    @on(Input.Changed, "#filter")
    def _narrow(self, event: Input.Changed) -> None:
        if event.value.split() == self._words.split():
            return
        self._words = event.value
        self.table.start_anew(keep=not event.value.split())
        self.refetch()

    @on(Input.Submitted, "#filter")
    def _narrowed(self) -> None:
        self.query_one("#filter").display = bool(self._words.split())
        self.table.focus()

    def action_sort(self) -> None:
        """Ask what to sort by."""
        options = [(sort.value, f"{what}: {usual}") for sort, (what, usual, _) in SORTS.items()]

        def chosen(value: str | None) -> None:
            if value is not None:
                self._sort_by(QueueSort(value), reverse=False)

        self.clinic.push_screen(Choose("Sort the queue by", options), chosen)

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._sort_by(self.table.sort, reverse=not self.table.reverse)

    @on(StudyTable.Sorted)
    def _column_clicked(self, event: StudyTable.Sorted) -> None:
        self._sort_by(event.sort, reverse=event.sort is self.table.sort and not self.table.reverse)

    def _sort_by(self, sort: QueueSort, *, reverse: bool) -> None:
        self.table.sort, self.table.reverse = sort, reverse
        self.table.start_anew(keep=False)
        self.refetch()

    def action_explain(self) -> None:
        """Show where the present rules send the study, and why."""
        if (row := self.table.selected) is None:
            return

        def shown(route: RouteView) -> None:
            self.clinic.push_screen(TextScreen(f"Where the rules send {row.study_id} now", route_text(row, route)))

        self.order(None, lambda client: client.route(row.study_id), shown)

    def action_left_out(self) -> None:
        """Show the files that are in no study, and why."""

        def shown(found: LeftOut) -> None:
            self.clinic.push_screen(TextScreen("Files that are in no study", left_out_text(found)))

        self.order(None, LeftOut.of, shown)

    # ------------------------------------------------------------ keys that change something

    def action_retry(self) -> None:
        """Ask, then try the study again."""
        if (row := self.table.selected) is None:
            return
        if row.state not in _WHAT_RETRY_DOES:
            self._on_its_way(row)
            return
        question = f"Try study {_named(row)} again?\n{_WHAT_RETRY_DOES[row.state]}"
        self.order(question, lambda client: client.retry(row.study_id))

    def action_reroute(self) -> None:
        """Ask, then route the study again."""
        if (row := self.table.selected) is None:
            return
        if row.state in {StudyState.RECEIVING, StudyState.CLOSED}:
            self._on_its_way(row)
            return
        question = (
            f"Ask the rules again where study {_named(row)} goes?\n"
            "What runs or waits of it is dropped. If it was analysed, it is analysed again as a new version."
        )
        self.order(question, lambda client: client.reroute(row.study_id))

    def action_close_now(self) -> None:
        """Ask, then hold a study that is arriving to be complete."""
        if (row := self.table.selected) is None:
            return
        if row.state is not StudyState.RECEIVING:
            self.clinic.notify(f"Study {row.study_id} is closed already.", markup=False)
            return
        question = (
            f"Go on with what has arrived of study {_named(row)}?\n"
            "It is closed as it is and analysed; what comes later makes a new version."
        )
        self.order(question, lambda client: client.close_study(row.study_id))

    def action_urgent(self) -> None:
        """Ask, then make the study urgent, or not any more."""
        if (row := self.table.selected) is not None:
            self._set_priority(row, 0 if row.priority >= URGENT else URGENT)

    def action_prioritise(self, by: int) -> None:
        """Ask, then change the priority of the study by some."""
        if (row := self.table.selected) is not None:
            self._set_priority(row, max(-HIGHEST, min(row.priority + by, HIGHEST)))

    def _set_priority(self, row: QueueRow, priority: int) -> None:
        if priority == row.priority:
            self.clinic.notify(f"Study {row.study_id} has the priority {priority} already.", markup=False)
            return
        question = (
            f"Change the priority of study {_named(row)} from {row.priority} to {priority}?\n"
            "Its jobs that wait move with it: the highest number goes first."
        )
        self.order(question, lambda client: client.prioritise(row.study_id, priority))

    def _on_its_way(self, row: QueueRow) -> None:
        arriving = row.state is StudyState.RECEIVING
        words = "is still arriving; c goes on with what is there." if arriving else "is about to be routed."
        self.clinic.notify(f"Study {row.study_id} {words}", markup=False)


def _entitle(widget: Widget, title: str, subtitle: str) -> None:
    """Give a widget its titles; giving it the same ones again would draw it again."""
    text = Text(title).markup, Text(subtitle).markup  # words that a person looks for are no markup
    if (widget.border_title, widget.border_subtitle) != text:
        widget.border_title, widget.border_subtitle = text


def _named(row: QueueRow) -> str:
    return f"{row.study_id} ({row.pseudonym})"


def _study(client: TerminalClient, study_id: str) -> StudyView | None:
    try:
        return client.study(study_id)
    except NotFound:
        return None


VIEW = QueueView
