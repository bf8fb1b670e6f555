"""The screen Night."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.view import ClinicView


class NightView(ClinicView):
    """Night."""

    NAME = "night"
    TITLE = "Night"

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="night-text")

    def fetching(self) -> Fetch:
        """Return what fetches."""

        def fetch(client: TerminalClient) -> object:
            return client.status()

        return fetch

    def show(self, answer: object) -> None:  # noqa: ARG002
        """Draw."""
        self.put("#night-text", Text("Night"))


VIEW = NightView
