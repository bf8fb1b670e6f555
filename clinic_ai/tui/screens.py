"""The small screens over the queue: help, and the question before something is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.dom import DOMNode
from textual.screen import ModalScreen
from textual.widgets import Static

from clinic_ai.tui.view import ClinicView
from clinic_ai.tui.words import MEANINGS, state_text

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp


class HelpScreen(ModalScreen[None]):
    """What the keys of the screen in front do, and what the states mean. Made from the bindings themselves."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "Close")]

    def __init__(self, clinic: ClinicApp) -> None:
        super().__init__()
        self._clinic = clinic

    def compose(self) -> ComposeResult:
        """Lay out the help."""
        text = Text()
        view = self._clinic.view
        if view is not None:
            text.append(f"{view.TITLE}\n", style="bold")
            _keys(text, self._clinic, view)
        text.append("\nEverywhere\n", style="bold")
        _keys(text, self._clinic, self._clinic)
        text.append("\nStates\n", style="bold")
        for state, words in MEANINGS.items():
            text.append("  ")
            text.append_text(state_text(state))
            text.append(f"{'':<{11 - len(state.value)}}{words}\n", style="not bold")
        text.append("\nWhy a study waits, and what to do, stands in its details.", style="not bold")
        with VerticalScroll(id="help", classes="card"):
            yield Static(text)


def _keys(text: Text, app: ClinicApp, place: DOMNode) -> None:
    """Append the keys of a place that do something now."""
    for _, binding in place._bindings:
        if isinstance(place, ClinicView) and not place.may(binding.action.partition("(")[0]):
            continue
        text.append(f"  {app.get_key_display(binding):<8}", style="bold cyan")
        text.append(f" {binding.tooltip or binding.description}\n", style="not bold")


class Confirm(ModalScreen[bool]):
    """Asks before something is changed, naming what it will do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        with Vertical(classes="card"):
            yield Static(Text(self.question))
            yield Static(Text("\ny yes    n no", style="bold"))

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)
