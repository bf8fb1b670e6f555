"""Small screens that ask for one of several things, or for a line of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option


@dataclass(frozen=True)
class Choice:
    """One of several things: what is returned if it is chosen, and how it reads."""

    key: str
    words: str


class Choose(ModalScreen[str | None]):
    """Asks for one of several things; returns its key, or None."""

    DEFAULT_CSS = "Choose OptionList { height: auto; max-height: 16; background: $panel; border: none; padding: 0; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Do nothing"),
        Binding("j", "move(1)", "Down", show=False),
        Binding("k", "move(-1)", "Up", show=False),
    ]

    def __init__(self, question: str, choices: Sequence[Choice]) -> None:
        super().__init__()
        self._question = question
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Lay out the question and the choices."""
        with Vertical(classes="card"):
            yield Static(Text(f"{self._question}\n"))
            yield OptionList(*(Option(Text(choice.words), id=choice.key) for choice in self._choices))
            yield Static(Text("\nenter chooses    escape does nothing", style="bold"))

    def on_mount(self) -> None:
        """Put the cursor on the first."""
        self.query_one(OptionList).focus()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_leave(self) -> None:
        """Close without a choice."""
        self.dismiss(None)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)


class AskWords(ModalScreen[str | None]):
    """Asks for a line of words; returns it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Do nothing")]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Lay out the question and the line."""
        with Vertical(classes="card"):
            yield Static(Text(f"{self._question}\n"))
            yield Input(max_length=200, compact=True)
            yield Static(Text("\nenter sends it    escape does nothing", style="bold"))

    def action_leave(self) -> None:
        """Close without words."""
        self.dismiss(None)

    @on(Input.Submitted)
    def _written(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self.dismiss(event.value.strip())
