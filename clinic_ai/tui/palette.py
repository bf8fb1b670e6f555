"""What Ctrl-P finds: the screens, the orders of the one in front, and what works everywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from clinic_ai.tui.keys import EVERYWHERE, orders_of

if TYPE_CHECKING:
    from clinic_ai.tui.app import ClinicApp


class Command(NamedTuple):
    """A line of the palette: its words, the key that does the same, and what it does."""

    words: str
    key: str
    run: Callable[[], Awaitable[object]]

    @property
    def shown(self) -> str:
        """The words and the key."""
        return f"{self.words}  ({self.key})" if self.key else self.words


class Commands(Provider):
    """Gives the palette what this person may do now."""

    async def discover(self) -> Hits:
        """Yield everything, in the order of the screens."""
        for command in commands_of(cast("ClinicApp", self.app)):
            yield DiscoveryHit(Content(command.shown), command.run, text=command.words)

    async def search(self, query: str) -> Hits:
        """Yield what has these letters."""
        matcher = self.matcher(query)
        for command in commands_of(cast("ClinicApp", self.app)):
            score = matcher.match(command.words)
            if score > 0:
                yield Hit(score, matcher.highlight(command.shown), command.run, text=command.words)


def commands_of(app: ClinicApp) -> Iterator[Command]:
    """Yield what may be done now: first what the screen in front offers, then the screens, then the rest."""
    view = app.view
    if view is not None:
        for order in orders_of(view, view.NAME, app.keys):
            if not order.plain and view.may(order.action.partition("(")[0]):
                yield Command(f"{view.TITLE}: {order.what}", order.shown, partial(app.run_action, order.action, view))
    for order in orders_of(type(app), EVERYWHERE, app.keys):
        if order.action != "find":
            words = f"Go to {order.what}" if order.id.startswith("go.") else order.what
            yield Command(words, order.shown, partial(app.run_action, order.action))
    yield Command("Choose the colours: dark or light", "", app.choose_look)
