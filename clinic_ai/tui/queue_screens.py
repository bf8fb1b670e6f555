"""What the queue shows over itself: the route of a study, and the files that are in no study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from clinic_ai.control.queue_views import QueueRow
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import FileRow, InboxRow, RouteView, StatusView
from clinic_ai.domain import StudyState
from clinic_ai.tui.measures import counted

MAX_FILES = 200
"""Files that are told of."""


class TextScreen(ModalScreen[None]):
    """A text to be read, with a title; scrolls if it is long."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Close", id="text.close", tooltip="Back to the queue"),
        Binding("j", "scroll(1)", "Down", show=False, id="text.down", tooltip="Scroll down"),
        Binding("k", "scroll(-1)", "Up", show=False, id="text.up", tooltip="Scroll up"),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        with VerticalScroll(id="reading", classes="card") as card:
            card.border_title = self._title
            card.border_subtitle = "Escape closes, j k scroll"
            yield Static(self._text)

    def action_scroll(self, by: int) -> None:
        """Scroll by a line."""
        self.query_one("#reading").scroll_relative(y=by, animate=False)


@dataclass(frozen=True)
class LeftOut:
    """Files that are in no study: those in quarantine, and how the folders stand that files come from."""

    status: StatusView
    files: tuple[FileRow, ...]
    more: bool

    @classmethod
    def of(cls, client: TerminalClient) -> LeftOut:
        """Ask for the files that wait for a person or were left where they lie."""
        page = client.files(fates=("QUARANTINED", "IGNORED"), limit=MAX_FILES)
        return cls(client.status(), page.files, page.next_before is not None)


def left_out_text(found: LeftOut) -> Text:
    """Return each file that is in no study, with the reason and what to do, after the folders that files wait in."""
    text = Text()
    for inbox in found.status.inboxes:
        if inbox.waiting or not inbox.online or inbox.sentence:
            _inbox(text, inbox)
    for file in found.files:
        _file(text, file)
    if not text:
        text.append("Every file that arrived is in a study; none waits.")
    if found.more:
        text.append(f"\nThese are the newest {MAX_FILES}; `clinic-ai file list --quarantined` shows all.")
    text.rstrip()
    return text


def _inbox(text: Text, inbox: InboxRow) -> None:
    text.append(f"{inbox.name}: {inbox.path}\n", style="bold")
    if inbox.waiting:
        text.append(f"{counted(inbox.waiting, 'file lies', 'files lie')} in it and not yet taken in.\n")
        if inbox.online and not inbox.sentence:
            text.append("A file is taken in when it has not grown for a few seconds.\n")
    if inbox.sentence or not inbox.online:
        text.append((inbox.sentence or "It is offline.") + "\n")
    _remedy(text, inbox.remedy)
    text.append("\n")


def _file(text: Text, file: FileRow) -> None:
    whose = f", for study {file.study_id}" if file.study_id else ""
    text.append(f"File {file.file_id}: {file.name}\n", style="bold")
    text.append(f"{file.fate}, from {file.source}{whose}\n")
    text.append(file.reason + "\n")
    _remedy(text, file.remedy)
    text.append("\n")


def _remedy(text: Text, remedy: str) -> None:
    if remedy:
        text.append("What to do: ", style="bold")
        text.append(remedy + "\n")


def route_text(row: QueueRow, route: RouteView) -> Text:
    """Return where the present rules send a study, and why."""
    text = Text()
    if row.state not in {StudyState.RECEIVING, StudyState.CLOSED, StudyState.UNROUTED}:
        text.append("It was routed by the rules of that time; R asks these ones.\n\n")
    text.append("\n".join(route.lines))
    return text


def sources_text(status: StatusView | None) -> Text:
    """Return what to do with an empty queue: where scans may be put or sent."""
    text = Text("No studies yet.\n")
    if status is None:
        return text
    for line in _sources(status):
        text.append(line + "\n")
    text.rstrip()
    return text


def _sources(status: StatusView) -> Iterator[str]:
    if status.inboxes:
        yield "Put scans into a folder:" if len(status.inboxes) == 1 else "Put scans into one of these folders:"
    for inbox in status.inboxes:
        yield f"  {inbox.name}: {inbox.path}"
        if not inbox.online or inbox.sentence:
            yield f"  ! {inbox.sentence or 'It is offline.'} {inbox.remedy}".rstrip()
    if status.network is not None and status.network.enabled:
        yield f"Or send them by DICOM: {status.network.sentence}."
    if not status.inboxes and (status.network is None or not status.network.enabled):
        yield "There is no inbox. Add an [[inbox]] to clinic.toml and reload."
    yield "A study is shown here as soon as its first file is read."
