"""The eighth screen: all models by plugin and slot, what they are for, and what may be decided about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import DataTable, Input, Static

from clinic_ai.control.shelf_views import ShelfModel, ShelfView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role
from clinic_ai.errors import NotFound
from clinic_ai.promoting import PromotionRecord
from clinic_ai.tui import model_words as words
from clinic_ai.tui.candidates import DecidingView, Named, deciding_keys
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.gate_words import record_text
from clinic_ai.tui.table import Column, KeyedTable, cell

_COLUMNS = (
    Column("state", 11, 11),
    Column("plugin, slot", 20, 28),
    Column("tier", 0, 9),
    Column("use", 0, 9),
    Column("model and version"),
)


@dataclass(frozen=True)
class Shown:
    """All models, and what stands behind the one in hand; None where that may not be read."""

    shelf: ShelfView
    record: PromotionRecord | None


class ModelsView(DecidingView):
    """All models, with the record of the one under the cursor."""

    NAME = "models"
    TITLE = "Models"
    SCOPED_CSS = False
    DEFAULT_CSS = """
    #models-filter { display: none; height: 1; padding: 0 1; }
    #models-list { height: 9; border: round $primary; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #models-list:focus, #models-details:focus { border: round $accent; }
    #models-details { height: 1fr; border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    #models-facts { height: auto; }
    #body.wide #models-list { width: 1fr; height: 1fr; }
    #body.wide #models-details { width: 1fr; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *deciding_keys("models", examining=True),
        Binding("slash", "filter", "Filter", id="models.filter", tooltip="Show only models with these words"),
        Binding(
            "escape", "unfilter", "Clear filter", show=False, id="models.unfilter", tooltip="Show all models again"
        ),
        Binding("j", "move(1)", "Down", show=False, id="models.down", tooltip="The next one"),
        Binding("k", "move(-1)", "Up", show=False, id="models.up", tooltip="The one before"),
        Binding(
            "J", "scroll_details(1)", "Scroll", show=False, id="models.scroll_down", tooltip="Scroll the details down"
        ),
        Binding("K", "scroll_details(-1)", "Back", show=False, id="models.scroll_up", tooltip="Scroll the details up"),
        Binding("g", "jump(0)", "First", show=False, id="models.first", tooltip="The first one"),
        Binding("G", "jump(-1)", "Last", show=False, id="models.last", tooltip="The last one"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: Shown | None = None
        self._wanted: str | None = None
        self._words = ""
        self._state = ""
        """State of the model under the cursor: with it go the keys that mean something."""

    def compose(self) -> ComposeResult:
        """Lay out the filter, the list and all of one."""
        yield Input(
            placeholder="Words to look for: plugin, condition, state, tier, name …", id="models-filter", compact=True
        )
        with Container(classes="split"):
            yield KeyedTable(_COLUMNS, widget_id="models-list")
            with VerticalScroll(id="models-details"):
                yield Static(Text("Asking the daemon …", style="dim"), id="models-facts")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one("#models-details").border_title = "Model"

    def on_resize(self) -> None:
        """Lay out the columns anew for the room there is."""
        self.call_after_refresh(self._draw_details)

    def focus_first(self) -> None:
        """Put the focus on the list."""
        self._list.focus()

    @property
    def _list(self) -> KeyedTable:
        return self.query_one("#models-list", KeyedTable)

    # ------------------------------------------------------------ what is fetched

    def fetching(self) -> Fetch:
        """Return what fetches all models, and the record of the one in hand."""
        wanted = self._wanted
        reads = self._reads

        def fetch(client: TerminalClient) -> Shown:
            shelf = client.shelf()
            models = words.in_order(shelf.models)
            model = next((m for m in models if words.key_of(m) == wanted), next(iter(models), None))
            return Shown(shelf, None if model is None or not reads else _record(client, model))

        return fetch

    @property
    def _reads(self) -> bool:
        status = self.clinic.status
        return status is not None and status.role.covers(Role.CLINICIAN)

    def show(self, answer: object) -> None:
        """Draw the models."""
        if isinstance(answer, Shown):
            self._shown = answer
            self._draw()

    # ------------------------------------------------------------ drawing

    def _draw(self) -> None:
        if self._shown is None:
            return
        found = words.in_order(self._shown.shelf.models)
        there = [model for model in found if words.matches(model, self._words)]
        self._list.show({words.key_of(model): _cells(model) for model in there})
        counted = f"{len(there)} of {len(found)}" if self._words else str(len(found))
        self._list.border_title = f"Models: {self._words} ({counted})" if self._words else "Models"
        self._follow()
        self._draw_details()

    def _follow(self) -> None:
        """Take the model under the cursor in hand, and fetch its record."""
        selected = self._list.selected
        if selected != self._wanted:
            self._wanted = selected
            self.refetch()

    def _draw_details(self) -> None:
        model = self._model()
        if model is None or self._shown is None:
            if self._shown is not None:
                empty = "No model has these words." if self._shown.shelf.models else _NOTHING
                self.put("#models-facts", Text(empty))
            return
        width = max(self.query_one("#models-details").size.width - 3, 40)
        text = words.model_text(model, self._shown.shelf, self.clinic.clock(), width)
        record = self._shown.record
        if record is not None and (record.model.plugin, record.model.name, record.model.version) == (
            model.plugin,
            model.name,
            model.version,
        ):
            text.append_text(record_text(record, width))
        elif not self._reads:
            text.append("Who decided and how it was examined, clinicians and administrators can read here.\n")
        self.put("#models-facts", text)
        if model.state != self._state:
            self._state = model.state
            self.refresh_bindings()

    def _model(self) -> ShelfModel | None:
        models = () if self._shown is None else self._shown.shelf.models
        return next((model for model in models if words.key_of(model) == self._wanted), None)

    @on(DataTable.RowHighlighted)
    def _chosen(self) -> None:
        if self._shown is not None:
            self.query_one("#models-details").scroll_home(animate=False)
            self._follow()
            self._draw_details()

    def in_hand(self) -> Named | None:
        """Return the model under the cursor."""
        model = self._model()
        return None if model is None else Named(model.plugin, model.name, model.version)

    def decidable(self, action: str) -> bool:
        """Return whether an action means anything for the state of the model under the cursor."""
        model = self._model()
        return model is not None and action in _DECIDABLE.get(model.state, ())

    def copied(self) -> str:
        """Return the names of the model under the cursor, as ``clinic-ai model`` takes them."""
        named = self.in_hand()
        return "" if named is None else named.words

    # ------------------------------------------------------------ keys

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._list.move_cursor(row=self._list.cursor_row + by)

    def action_scroll_details(self, by: int) -> None:
        """Scroll the details by half of what is seen."""
        box = self.query_one("#models-details")
        box.scroll_relative(y=by * max(box.size.height // 2, 1), animate=False)

    def action_jump(self, to: int) -> None:
        """Go to the first row, or with -1 to the last."""
        self._list.move_cursor(row=to if to >= 0 else self._list.row_count - 1)

    def action_filter(self) -> None:
        """Ask for words."""
        box = self.query_one("#models-filter", Input)
        box.display = True
        box.focus()

    def action_unfilter(self) -> None:
        """Show all models again."""
        box = self.query_one("#models-filter", Input)
        box.value = ""
        box.display = False
        self._list.focus()

    @on(Input.Changed, "#models-filter")
    def _narrow(self, event: Input.Changed) -> None:
        self._words = event.value
        self._draw()

    @on(Input.Submitted, "#models-filter")
    def _narrowed(self) -> None:
        self.query_one("#models-filter").display = bool(self._words)
        self._list.focus()


_ALWAYS = frozenset({"verify", "roll_back"})
_DECIDABLE = {
    "ACTIVE": _ALWAYS,
    "CANDIDATE": _ALWAYS | {"check", "canary", "approve", "promote"},
    "IMPORTED": _ALWAYS | {"check", "promote"},
    "RETIRED": _ALWAYS | {"promote"},
    "REJECTED": _ALWAYS,
}
"""What people may decide about a model in each state."""
_NOTHING = (
    "There are no models yet. The daemon brings in the reference models of the plugins at its first start; "
    "`clinic-ai model import DIR` adds one."
)


def _cells(model: ShelfModel) -> tuple[Text, ...]:
    return (
        words.state_text(model.state),
        cell(f"{model.plugin} {model.slot}"),
        cell(model.tier or "-"),
        cell(words.use_words(model), "yellow" if model.reference or not model.clinical_use else ""),
        cell(f"{model.name} {model.version}"),
    )


def _record(client: TerminalClient, model: ShelfModel) -> PromotionRecord | None:
    try:
        return client.model_record(model.plugin, model.name, model.version)
    except NotFound:
        return None


VIEW = ModelsView
