"""All that waits for somebody to look at it: the open alerts, each in full, and the key that acknowledges one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from clinic_ai.control.views import DoneView, Role, StatusView
from clinic_ai.domain import Alert
from clinic_ai.tui.header import CRITICAL
from clinic_ai.tui.measures import counted, line
from clinic_ai.tui.screens import keys_text
from clinic_ai.tui.table import Column, KeyedTable, cell
from clinic_ai.tui.words import age

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp

_COLUMNS = (Column("", 1, 1), Column("last", 7, 8), Column("what"))
_NONE = "There are no open alerts."
_IN_REVIEW = (
    "A clinician acknowledges it on the screen Review (3, then t), where it stands what was found, and says to whom it "
    "was told."
)


class AlertsScreen(ModalScreen[None]):
    """The open alerts: those about critical findings first, then the newest. They change as the daemon tells."""

    DEFAULT_CSS = """
    AlertsScreen > Vertical { height: 95%; }
    AlertsScreen #alerts-list { height: 1fr; min-height: 3; overflow-x: hidden; scrollbar-size-vertical: 1; }
    AlertsScreen #alerts-details { height: 8; margin: 1 0 0 0; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a,enter", "acknowledge", "Acknowledge", id="alerts.acknowledge", tooltip="Acknowledge it (asks)"),
        Binding("j", "move(1)", "Down", show=False, id="alerts.down", tooltip="The next one"),
        Binding("k", "move(-1)", "Up", show=False, id="alerts.up", tooltip="The one before"),
        Binding("y", "copy", "Copy", show=False, id="alerts.copy", tooltip="Copy its words"),
        Binding("escape,q,exclamation_mark", "dismiss", "Close", id="alerts.close", tooltip="Close the list"),
    ]

    def __init__(self, clinic: ClinicApp) -> None:
        super().__init__()
        self._clinic = clinic
        self._alerts: dict[str, Alert] = {}

    def compose(self) -> ComposeResult:
        """Lay out the list, and all of the one under the cursor."""
        with Vertical(classes="card broad"):
            yield Static(id="alerts-title")
            yield KeyedTable(_COLUMNS, widget_id="alerts-list")
            with VerticalScroll(id="alerts-details", can_focus=False):
                yield Static(id="alerts-words")
            yield Static(
                keys_text(("j k", "move"), ("a", "acknowledge"), ("y", "copy"), ("Esc", "close")), classes="keys"
            )

    def on_mount(self) -> None:
        """Show what is known, and what is told from now on."""
        self._clinic.told.subscribe(self, self._show)
        if self._clinic.status is not None:
            self._show(self._clinic.status)
        self._list.focus()

    @property
    def _list(self) -> KeyedTable:
        return self.query_one("#alerts-list", KeyedTable)

    def _show(self, status: StatusView) -> None:
        now = self._clinic.clock()
        self._alerts = {str(alert.alert_id): alert for alert in status.alerts}
        number = len(status.alerts) + status.more_alerts
        title = Text(f"{counted(number, 'open alert')}" if number else "Alerts", style="bold")
        if status.more_alerts:
            title.append(f"; the first {len(status.alerts)} are here. `clinic-ai alert list` has all.", "not bold")
        self.query_one("#alerts-title", Static).update(title)
        self._list.show({key: _cells(alert, now) for key, alert in self._alerts.items()})
        self._describe()

    @on(DataTable.RowHighlighted)
    def _describe(self) -> None:
        alert = self._alert
        words = Text(_NONE) if alert is None else alert_text(alert, self._clinic.clock())
        self.query_one("#alerts-words", Static).update(words)

    @property
    def _alert(self) -> Alert | None:
        return self._alerts.get(self._list.selected or "")

    # ------------------------------------------------------------ keys

    @on(DataTable.RowSelected)
    def action_acknowledge(self) -> None:
        """Ask, then acknowledge the alert under the cursor; a critical finding is acknowledged where it stands."""
        alert = self._alert
        if alert is None:
            return
        why_not = self._clinic.why_not(Role.TECHNICIAN)
        if why_not or alert.code == CRITICAL:
            self._clinic.notify(f"It cannot be acknowledged: {why_not}." if why_not else _IN_REVIEW)
            return
        question = (
            f"Acknowledge this alert in your name?\n\n{alert.sentence}\n\n"
            "It leaves the list for everybody. If it happens again, it comes back as a new one."
        )
        self._clinic.order(question, lambda client: client.acknowledge(alert.alert_id), self._tell)

    def _tell(self, answer: DoneView) -> None:
        self._clinic.notify(answer.sentence, markup=False)

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._list.move_cursor(row=self._list.cursor_row + by)

    def action_copy(self) -> None:
        """Copy the words of the alert under the cursor, through the terminal."""
        if (alert := self._alert) is not None:
            self._clinic.copy_to_clipboard(f"{alert.sentence} {alert.remedy}".rstrip())
            self._clinic.notify("Copied, if your terminal takes it.")


def _cells(alert: Alert, now: float) -> tuple[Text, ...]:
    critical = alert.code == CRITICAL
    style = "bold red" if critical else ""
    return cell("◆" if critical else "▲", style), cell(age(now - alert.last_at)), cell(alert.sentence, style)


def alert_text(alert: Alert, now: float) -> Text:
    """Return all of an alert: what happened, what to do, how often and since when."""
    text = Text(f"{alert.sentence}\n", style="bold")
    line(text, "What to do", alert.remedy)
    if alert.code == CRITICAL:
        text.append(f"{_IN_REVIEW}\n", style="not bold")
    times = f"{alert.count} times, first {age(now - alert.first_at)} ago, last" if alert.count > 1 else "once,"
    line(text, "Happened", f"{times} {age(now - alert.last_at)} ago")
    line(text, "Number", str(alert.alert_id))
    return text
