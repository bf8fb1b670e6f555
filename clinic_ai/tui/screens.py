"""The small screens over the queue: help, and the question before something is changed."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from clinic_ai.tui.words import MEANINGS, state_text

_KEYS = (
    ("↑ ↓ j k", "choose a study"),
    ("tab", "to the details and back"),
    ("/", "filter; esc clears it"),
    ("r", "try the study again (asks first)"),
    ("?", "this help"),
    ("q", "close this screen; the appliance goes on"),
)


class HelpScreen(ModalScreen[None]):
    """What the keys do and what the states mean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "Close")]

    def __init__(self, *, may_change: bool) -> None:
        super().__init__()
        self._may_change = may_change

    def compose(self) -> ComposeResult:
        """Lay out the help."""
        text = Text("Keys\n", style="bold")
        for key, words in _KEYS:
            if key != "r" or self._may_change:
                text.append(f"  {key:<8}", style="bold cyan")
                text.append(f" {words}\n", style="not bold")
        text.append("\nStates\n")
        for state, words in MEANINGS.items():
            text.append("  ")
            text.append_text(state_text(state))
            text.append(f"{'':<{11 - len(state.value)}}{words}\n", style="not bold")
        text.append("\nWhy a study waits, and what to do, stands in its details.", style="not bold")
        with VerticalScroll(id="help", classes="card"):
            yield Static(text)


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
