"""The editor of a result: the words to sign, and beside them what changes. What is typed here is never lost.

The text stays until the daemon has taken it or the person throws it away, whatever is fetched meanwhile, whatever the
daemon refuses and for however long it is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from clinic_ai.control.review_client import from_edit, to_edit
from clinic_ai.control.review_views import AmendReview, ReviewView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import DoneView, Role
from clinic_ai.domain import Presence
from clinic_ai.domain.reviews import Correction, Passage
from clinic_ai.errors import ClinicError
from clinic_ai.tui.key_line import KeyLine
from clinic_ai.tui.making import made
from clinic_ai.tui.screens import Confirm

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp

WIDE = 110


@dataclass(frozen=True)
class Signing:
    """How a decision will be signed: the name (None: the Unix user's), consent (None: as clinic.toml says)."""

    reviewer: str | None
    shown_as: str
    consent: bool | None
    corrections: Mapping[str, Presence]

    def as_corrections(self) -> tuple[Correction, ...]:
        """Return the corrections as they are sent."""
        return tuple(Correction(condition=key, presence=presence) for key, presence in self.corrections.items())


@dataclass(frozen=True)
class NotTaken:
    """The daemon refused a decision; ``fresh`` is the result as it reads now, None if it cannot be read."""

    error: ClinicError
    fresh: ReviewView | None


class AmendScreen(ModalScreen[DoneView | None]):
    """Edits the words of one result. Gives what the daemon said of it, None if nothing was decided."""

    DEFAULT_CSS = """
    AmendScreen { background: $background; layout: vertical; align: left top; }
    AmendScreen #amend-title { height: auto; max-height: 3; background: $panel; padding: 0 1; }
    AmendScreen #amend-panes { layout: vertical; height: 1fr; }
    AmendScreen #amend-text { height: 3fr; border: round $primary; padding: 0; }
    AmendScreen #amend-text:focus { border: round $accent; }
    AmendScreen #amend-changes { height: 2fr; border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    AmendScreen #amend-changes:focus { border: round $accent; }
    AmendScreen.wide #amend-panes { layout: horizontal; }
    AmendScreen.wide #amend-text, AmendScreen.wide #amend-changes { width: 1fr; height: 1fr; }
    AmendScreen #amend-reason { height: 1; padding: 0 1; }
    AmendScreen #amend-problem { display: none; height: auto; max-height: 4; padding: 0 1; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "send", "Sign these words", id="amend.send", tooltip="Sign these words (asks first)"),
        Binding("escape", "leave", "Leave", id="amend.leave", tooltip="Leave; asks first if something was changed"),
    ]

    def __init__(self, view: ReviewView, signing: Signing) -> None:
        super().__init__()
        self.view = view
        self._signing = signing
        self._original = to_edit(view)
        self._sending = False
        self._left = False
        self._shown: dict[str, Text] = {}

    @property
    def clinic(self) -> ClinicApp:
        """The app."""
        return cast("ClinicApp", self.app)

    @property
    def text(self) -> str:
        """What stands in the editor."""
        return self.query_one("#amend-text", TextArea).text

    @property
    def unsaved(self) -> bool:
        """Whether something was typed that nobody has yet."""
        return self.text != self._original or bool(self.query_one("#amend-reason", Input).value.strip())

    def compose(self) -> ComposeResult:
        """Lay out whom it is about, the editor, what changes, the reason, and what went wrong."""
        yield Static(id="amend-title")
        with Vertical(id="amend-panes"):
            yield TextArea(self._original, id="amend-text", soft_wrap=True, show_line_numbers=False)
            with VerticalScroll(id="amend-changes"):
                yield Static(id="amend-diff")
        why = "Why, if you like; kept for good, so do not name the patient"
        yield Input(placeholder=why, id="amend-reason", compact=True)
        yield Static(id="amend-problem")
        yield KeyLine(show_command_palette=False)

    def on_mount(self) -> None:
        """Name the parts and stand on the first statement."""
        editor = self.query_one("#amend-text", TextArea)
        editor.border_title = "Your words"
        self.query_one("#amend-changes").border_title = "What changes"
        first = next((n for n, line in enumerate(self._original.splitlines()) if line.startswith("[")), 0)
        editor.move_cursor((first + 1, 0))
        editor.focus()
        self.set_interval(1.0, self._draw_title)
        self._draw_title()
        self._draw_changes()

    def on_resize(self) -> None:
        """Put the changes beside the words if there is room, else below."""
        self.set_class(self.size.width >= WIDE, "wide")

    # ------------------------------------------------------------ drawing

    def _put(self, place: str, text: Text) -> None:
        if self._shown.get(place) != text:
            self._shown[place] = text
            self.query_one(place, Static).update(text)

    def _draw_title(self) -> None:
        text = Text()
        text.append("● linked  " if self.clinic.linked else "✗ no daemon: your text stays here  ", style="bold")
        text.append(self.view.subject.patient, style="bold")
        text.append(f"  {self.view.row.study_id}, for the {self.view.row.audience}; signed as {self._signing.shown_as}")
        self._put("#amend-title", text)

    @on(TextArea.Changed)
    def _draw_changes(self) -> None:
        text = Text()
        for condition, presence in self._signing.corrections.items():
            text.append(f"corrected: {condition} is {presence.value}\n", style="bold magenta")
        try:
            text.append_text(changes_text(self.view, self._passages()))
        except ClinicError as error:
            text.append(f"! {error.message}\n", style="bold yellow")
            text.append(error.remedy)
        self._put("#amend-diff", text)

    def _passages(self) -> tuple[Passage, ...]:
        taken = [*(one.statement_id for one in self.view.statements), *self.view.withheld]
        return from_edit(self.text, taken)

    def _say(self, words: str) -> None:
        self._put("#amend-problem", Text(words))
        self.query_one("#amend-problem").display = bool(words)

    # ------------------------------------------------------------ keys

    def action_send(self) -> None:
        """Ask, then sign these words."""
        if self._sending:
            self._say("It is sent; the daemon has not answered yet.")
            return
        if not self.clinic.may_order(Role.CLINICIAN):
            self._say("Nothing can be signed now, the daemon does not answer. Your text stays; send it later.")
            return
        try:
            order = self._order()
        except ClinicError as error:
            self._say(f"{error.message} {error.remedy}")
            return
        self._say("")
        artefact_id, reviewer = self.view.row.artefact_id, self._signing.reviewer

        def call(client: TerminalClient) -> DoneView | NotTaken:
            self._sending = True
            try:
                return client.amend(artefact_id, order)
            except ClinicError as error:
                return NotTaken(error, _fresh(client, artefact_id, reviewer))

        question = (
            f"Sign these words as {self._signing.shown_as}?\n\n{self.view.subject.patient}\n"
            f"{self.view.row.study_id}, for the {self.view.row.audience}\n\n"
            "The guard reads them first. The final report then follows in the outbox."
        )
        self.clinic.order(question, call, self._sent)

    def _order(self) -> AmendReview:
        """Return what is to be signed. Raise ClinicError if it cannot be."""
        passages = self._passages()
        before = tuple(Passage(statement_id=one.statement_id, text=one.text) for one in self.view.statements)
        corrections = self._signing.as_corrections()
        same = passages == before
        if same and not corrections and not self.view.withheld:
            raise ClinicError("Nothing was changed.", remedy="Change the words, or leave and accept it with a.")
        return made(
            AmendReview,
            digest=self.view.digest,
            reviewer=self._signing.reviewer,
            consent=self._signing.consent,
            statements=None if same else passages,
            corrections=corrections,
            reason=self.query_one("#amend-reason", Input).value.strip(),
        )

    def _sent(self, answer: DoneView | NotTaken) -> None:
        self._sending = False
        if isinstance(answer, DoneView):
            if self._left:
                self.clinic.notify(answer.sentence, markup=False)
            else:
                self._close(answer)
            return
        words = f"{answer.error.message} {answer.error.remedy}"
        if self._left:
            self.clinic.notify(words, severity="error", markup=False)
            return
        fresh = answer.fresh
        if fresh is not None and fresh.digest != self.view.digest:
            self.view = fresh
            words += " It was fetched again: the changes are shown against what it says now. Your text stayed."
        self._say(words)
        self._draw_title()
        self._draw_changes()

    def action_leave(self) -> None:
        """Leave, after asking if something would be lost."""
        if not self.unsaved:
            self._close(None)
            return

        def decided(yes: bool | None) -> None:
            if yes:
                self._close(None)

        question = f"Throw your text away?\nNothing of it is kept; {self.view.row.artefact_id} goes on waiting."
        if self._sending:
            question = "It is sent and the daemon has not answered yet. Leave all the same, and throw your text away?"
        self.app.push_screen(Confirm(question), decided)

    def _close(self, answer: DoneView | None) -> None:
        self._left = True
        self.dismiss(answer)


def _fresh(client: TerminalClient, artefact_id: str, reviewer: str | None) -> ReviewView | None:
    """Return a result as it reads now, None if it cannot be read."""
    try:
        return client.review(artefact_id, reviewer)
    except ClinicError:
        return None


# ---------------------------------------------------------------- what changes


def changes_text(view: ReviewView, said: tuple[Passage, ...]) -> Text:
    """Return what an edited text changes of a result, a statement at a time: ``-`` before, ``+`` after."""
    text = Text()
    before = {one.statement_id: one.text for one in view.statements}
    after = {passage.statement_id: passage.text for passage in said}
    for statement_id, words in before.items():
        text.append(f"[{statement_id}] ", style="bold cyan")
        if statement_id not in after:
            text.append("left out\n", style="bold")
            _marked(text, "-", [(words, True)], "red")
        elif after[statement_id] == words:
            text.append("unchanged\n", style="bright_black")
        else:
            text.append("changed\n", style="bold")
            _changed(text, words, after[statement_id])
    for statement_id, words in after.items():
        if statement_id not in before:
            text.append(f"[{statement_id}] ", style="bold cyan")
            text.append("written anew\n" if statement_id in view.withheld else "new\n", style="bold")
            _marked(text, "+", [(words, True)], "green")
    for statement_id in view.withheld:
        if statement_id not in after:
            text.append(f"[{statement_id}] ", style="bold cyan")
            text.append("left out; the guard keeps it back\n", style="bold")
    text.rstrip()
    return text


def _changed(text: Text, before: str, after: str) -> None:
    """Append a statement before and after, with the words that differ marked."""
    old, new = before.split(), after.split()
    steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    _marked(text, "-", _pieces(((kind, old[a:b]) for kind, a, b, _, _ in steps)), "red")
    _marked(text, "+", _pieces(((kind, new[c:d]) for kind, _, _, c, d in steps)), "green")


def _pieces(steps: Iterator[tuple[str, list[str]]]) -> list[tuple[str, bool]]:
    return [(" ".join(words), kind != "equal") for kind, words in steps if words]


def _marked(text: Text, sign: str, pieces: list[tuple[str, bool]], colour: str) -> None:
    text.append(f"{sign} ", style=colour)
    for number, (words, differs) in enumerate(pieces):
        text.append(" " if number else "")
        text.append(words, style=f"bold underline {colour}" if differs else colour)
    text.append("\n")
