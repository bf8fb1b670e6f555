"""The machine: processors, memory, temperature, disk, who takes them, and what it is linked to."""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.widgets import Static

from clinic_ai.control.machine_views import MachineView as Told
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.machine_words import disk_text, graphs_text, links_text, plain, workers_text
from clinic_ai.tui.view import ClinicView

POINTS = 240
"""Steps of the history: more than there are columns, and each column shows the highest of its own."""
_HIGH = 34
"""Lines from which graphs have two."""


class MachineView(ClinicView):
    """How the machine fares; it orders nothing."""

    NAME = "machine"
    TITLE = "Machine"
    TOPICS: ClassVar[frozenset[str]] = frozenset({"machine", "inboxes"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "span", "Hour or day", id="machine.span", tooltip="Show the last hour or the last day"),
        Binding("j", "scroll(1)", "Down", show=False, id="machine.down"),
        Binding("k", "scroll(-1)", "Up", show=False, id="machine.up"),
        Binding("g", "edge(-1)", "Top", show=False, id="machine.top"),
        Binding("G", "edge(1)", "Bottom", show=False, id="machine.bottom"),
    ]
    SCOPED_CSS = False
    DEFAULT_CSS = """
    #machine { height: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    #machine Static { height: auto; }
    #machine-graphs, .machine-box { border: round $primary; padding: 0 1; height: auto; }
    #machine:focus #machine-graphs { border: round $accent; }
    #machine-panes, #machine-rest { height: auto; }
    #body.wide #machine-panes { layout: horizontal; }
    #body.wide #machine-graphs { width: 3fr; }
    #body.wide #machine-rest { width: 2fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: Told | None = None
        self._span: Literal["hour", "day"] = "hour"

    def compose(self) -> ComposeResult:
        """Lay out the graphs and, beside or below them, what takes memory, the disk and the links."""
        with VerticalScroll(id="machine"), Container(id="machine-panes"):
            yield Static(id="machine-graphs")
            with Vertical(id="machine-rest"):
                yield Static(id="machine-workers", classes="machine-box")
                yield Static(id="machine-disk", classes="machine-box")
                yield Static(id="machine-links", classes="machine-box")

    def on_mount(self) -> None:
        """Name the parts."""
        for place, title in (("graphs", "Machine"), ("workers", "Memory by worker"), ("disk", "Disk")):
            self.query_one(f"#machine-{place}").border_title = title
        self.query_one("#machine-links").border_title = "Inboxes, network, results"

    def on_resize(self) -> None:
        """Draw the graphs as wide as there is room, once the parts know theirs."""
        self.call_after_refresh(self._draw)

    def fetching(self) -> Fetch:
        """Return what fetches the machine and its history."""
        span = self._span
        return lambda client: _asked(client, span)

    def show(self, answer: object) -> None:
        """Draw the machine."""
        if isinstance(answer, Told):
            self._told = answer
            self._draw()

    def tick(self, now: float) -> None:  # noqa: ARG002 - the clock of the app
        """Draw how long things have waited."""
        if self._told is not None and self.clinic.linked:
            self.put("#machine-links", links_text(self._told, self.clinic.clock()))

    def _draw(self) -> None:
        told = self._told
        if told is None:
            return
        rows = 2 if self.size.height >= _HIGH else 1
        self.put("#machine-graphs", graphs_text(told, self._width("#machine-graphs"), rows))
        self.put("#machine-workers", workers_text(told, self._width("#machine-workers")))
        self.put("#machine-disk", disk_text(told, self._width("#machine-disk")))
        self.put("#machine-links", links_text(told, self.clinic.clock()))

    def _width(self, place: str) -> int:
        return self.query_one(place).content_size.width

    def copied(self) -> str:
        """Return all that is shown, as text."""
        told = self._told
        if told is None:
            return ""
        texts: list[Text] = [graphs_text(told, 76, 1), workers_text(told, 76), disk_text(told, 76)]
        return plain([*texts, links_text(told, self.clinic.clock())])

    # ------------------------------------------------------------ keys

    def action_span(self) -> None:
        """Show the last day instead of the last hour, or the other way round."""
        self._span = "day" if self._span == "hour" else "hour"
        self.refetch()

    def action_scroll(self, by: int) -> None:
        """Scroll by a line."""
        self.query_one("#machine").scroll_relative(y=by, animate=False)

    def action_edge(self, which: int) -> None:
        """Scroll to the top or the bottom."""
        place = self.query_one("#machine")
        if which < 0:
            place.scroll_home(animate=False)
        else:
            place.scroll_end(animate=False)


def _asked(client: TerminalClient, span: Literal["hour", "day"]) -> Told:
    return client.machine(span, POINTS)


VIEW = MachineView
