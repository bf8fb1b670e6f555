"""A card over the screens that shows a longer answer, to be scrolled and copied."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


class Card(ModalScreen[None]):
    """Shows a text until it is closed."""

    DEFAULT_CSS = """
    Card #card-words { height: auto; max-height: 62vh; }
    Card #card-keys { height: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Close", id="card.close", tooltip="Close this card"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="card.down", tooltip="Scroll down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="card.up", tooltip="Scroll up"),
        Binding("y", "copy", "Copy", show=False, id="card.copy", tooltip="Copy all of it"),
    ]

    def __init__(self, title: str, words: Text) -> None:
        """Take what is to be shown."""
        super().__init__()
        self._title = title
        self.words = words

    def compose(self) -> ComposeResult:
        """Lay out title, words and keys."""
        with Vertical(classes="card broad"):
            yield Static(Text(self._title, style="bold"))
            with VerticalScroll(id="card-words"):
                yield Static(self.words)
            yield Static(Text("\nj k scroll    y copy    Escape close", style="bold"), id="card-keys")

    def action_scroll(self, by: int) -> None:
        """Scroll by some lines."""
        self.query_one("#card-words").scroll_relative(y=3 * by, animate=False)

    def action_copy(self) -> None:
        """Copy all of it, through the terminal."""
        self.app.copy_to_clipboard(self.words.plain)
        self.app.notify("Copied.")
