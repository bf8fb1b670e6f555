"""The small screens over the others: help, and the questions before something is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from clinic_ai.tui.help import help_text

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp

_HELP_WIDTH = 96
_FRAME = 8
"""Columns of border, padding and scroll bar."""


@runtime_checkable
class Unsaved(Protocol):
    """A screen in which something is typed that nobody has yet; the app is not closed over it."""

    @property
    def unsaved(self) -> bool:
        """Whether there is something."""


class HelpScreen(ModalScreen[None]):
    """What the keys do, which are missing and why, and what the states mean. Made from the bindings themselves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll(1)", "Down", id="help.down", tooltip="A line down"),
        Binding("k,up", "scroll(-1)", "Up", id="help.up", tooltip="A line up"),
        Binding("space,pagedown", "scroll(20)", "Page", id="help.page", tooltip="A page down"),
        Binding("g,home", "top", "Top", id="help.top", tooltip="To the beginning"),
        Binding("G,end", "bottom", "End", id="help.end", tooltip="To the end"),
        Binding("escape,q,question_mark,enter", "dismiss", "Close", id="help.close", tooltip="Close the help"),
    ]

    def __init__(self, clinic: ClinicApp) -> None:
        super().__init__()
        self._clinic = clinic

    def compose(self) -> ComposeResult:
        """Lay out the help."""
        with Vertical(classes="card wide-card"):
            with VerticalScroll(id="help"):
                width = min(self._clinic.size.width * 95 // 100, _HELP_WIDTH) - _FRAME
                yield Static(help_text(self._clinic, width))
            yield Static(keys_text(("j k", "scroll"), ("g G", "top, end"), ("Esc", "close")), classes="keys")

    def on_mount(self) -> None:
        """Put the focus where it scrolls."""
        self.query_one("#help").focus()

    def action_scroll(self, lines: int) -> None:
        """Scroll."""
        self.query_one("#help").scroll_relative(y=lines, animate=False)

    def action_top(self) -> None:
        """Go to the beginning."""
        self.query_one("#help").scroll_home(animate=False)

    def action_bottom(self) -> None:
        """Go to the end."""
        self.query_one("#help").scroll_end(animate=False)


class Confirm(ModalScreen[bool]):
    """Asks before something is changed, naming what it will do. Only ``y`` is yes: Enter changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding("n,escape,q,enter", "answer(False)", "No", id="confirm.no", tooltip="Change nothing"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        with Vertical(classes="card"):
            with VerticalScroll(classes="words", can_focus=False):
                yield Static(Text(self.question))
            yield Static(keys_text(("y", "yes"), ("n or Enter", "no")), classes="keys")

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)


class Prompt(ModalScreen[str | None]):
    """Asks for one line, such as a reason or a name; gives it without spaces around it, None if it is not given.

    ``required``: an empty line is not taken.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "Cancel", id="prompt.cancel", tooltip="Write nothing and change nothing")
    ]

    def __init__(self, question: str, *, initial: str = "", placeholder: str = "", required: bool = True) -> None:
        super().__init__()
        self.question = question
        self._initial = initial
        self._placeholder = placeholder
        self._required = required

    def compose(self) -> ComposeResult:
        """Lay out the question and the line to write on."""
        with Vertical(classes="card"):
            with VerticalScroll(classes="words", can_focus=False):
                yield Static(Text(self.question))
            yield Input(self._initial, placeholder=self._placeholder, select_on_focus=False, compact=True)
            yield Static(id="missing")
            yield Static(keys_text(("Enter", "go on"), ("Escape", "cancel")), classes="keys")

    @on(Input.Submitted)
    def _written(self, event: Input.Submitted) -> None:
        words = event.value.strip()
        if words or not self._required:
            self.dismiss(words)
            return
        self.query_one("#missing", Static).update(Text("! Something has to be written here.", style="bold"))

    @on(Input.Changed)
    def _writing(self) -> None:
        self.query_one("#missing", Static).update("")

    def action_give_up(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


class Choose(ModalScreen[str | None]):
    """Asks for one of several; ``options`` are pairs of value and label. Gives the value, None if nothing is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move(1)", "Down", show=False, id="choose.down", tooltip="The next one"),
        Binding("k", "move(-1)", "Up", show=False, id="choose.up", tooltip="The one before"),
        Binding("escape,q", "give_up", "Cancel", id="choose.cancel", tooltip="Choose nothing and change nothing"),
    ]

    def __init__(self, question: str, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.question = question
        self._options = tuple(options)

    def compose(self) -> ComposeResult:
        """Lay out the question and what there is to choose from."""
        with Vertical(classes="card"):
            with VerticalScroll(classes="words", can_focus=False):
                yield Static(Text(self.question))
            yield OptionList(*(Option(Text(label)) for _, label in self._options), compact=True)
            yield Static(keys_text(("j k", "move"), ("Enter", "choose"), ("Escape", "cancel")), classes="keys")

    def on_mount(self) -> None:
        """Stand on the first one."""
        if self._options:
            self.query_one(OptionList).highlighted = 0

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._options[event.option_index][0])

    def action_move(self, by: int) -> None:
        """Go to the next one or the one before."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_give_up(self) -> None:
        """Close without a choice."""
        self.dismiss(None)


def keys_text(*keys: tuple[str, str]) -> Text:
    """Return the line at the bottom of a dialog: which key does what."""
    text = Text("\n")
    for key, words in keys:
        text.append(key, style="bold")
        text.append(f" {words}    ")
    text.rstrip()
    return text
