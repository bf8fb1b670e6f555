"""What the eight screens have in common: a name and a key, what they fetch, and the orders a person may give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from rich.text import Text
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Static

from clinic_ai.control.views import DoneView, Role, StatusView
from clinic_ai.errors import ClinicError
from clinic_ai.tui.feed import Again, Fetch

if TYPE_CHECKING:
    from clinic_ai.control.terminal_client import TerminalClient
    from clinic_ai.tui.app import ClinicApp

Answer = TypeVar("Answer")


class ClinicView(Container):
    """One of the screens, below the header that all share.

    A view fetches by ``fetching``, draws by ``show``, and changes things by ``order``. Its bindings have ids
    (``queue.retry``), so that they can be remapped, and tooltips, which the help shows.
    """

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    TOPICS: ClassVar[frozenset[str]] = frozenset()
    """Topics of ``control.topics`` after which it fetches again; it does so after every row of the audit anyway."""
    ORDERS: ClassVar[Mapping[str, Role]] = {}
    """Actions that change something, and the role each needs: without it their keys are gone."""
    READS: ClassVar[Role] = Role.TECHNICIAN
    """The role without which there is nothing to see here; the view then says so."""

    def __init__(self) -> None:
        super().__init__(id=f"view-{self.NAME}", classes="view")
        self._texts: dict[str, Text] = {}

    @property
    def clinic(self) -> ClinicApp:
        """The app, with what all views share."""
        return cast("ClinicApp", self.app)

    # ------------------------------------------------------------ what a view says of itself

    def fetching(self) -> Fetch:
        """Return what fetches the answer; it runs in the feed's thread and must not touch a widget."""
        raise NotImplementedError

    def fetching_again(self) -> Again | None:
        """Return what does for ``fetching`` when only one of ``TOPICS`` moved; None: all is fetched then, too."""
        return None

    def show(self, answer: object) -> None:
        """Draw an answer of ``fetching``; what stayed the same is not drawn again."""
        raise NotImplementedError

    def refuse(self, error: ClinicError) -> None:
        """Say why there is no answer."""
        self.clinic.notify(f"{error.message} {error.remedy}", severity="error", markup=False)

    def status_changed(self, status: StatusView) -> None:
        """Draw what comes from the status that all views share; called before ``show``."""

    def tick(self, now: float) -> None:
        """Draw what depends on the time alone; called once a second while it is in front."""

    def focus_first(self) -> None:
        """Put the focus where the keys of this view work at once."""
        for child in self.query("*"):
            if child.focusable:
                child.focus()
                return

    def copied(self) -> str:
        """Return what ``y`` copies: the words under the cursor."""
        return ""

    # ------------------------------------------------------------ what a view may do

    def refetch(self) -> None:
        """Fetch again: what is wanted changed."""
        self.clinic.wish(self)

    def may(self, action: str) -> bool:
        """Return whether the keys of an action are there: role and socket permit it, and the daemon answers."""
        needed = self.ORDERS.get(action)
        return needed is None or self.clinic.may_order(needed)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Take the changing keys away where nothing may be changed."""
        return self.may(action)

    def order(
        self,
        question: str | None,
        call: Callable[[TerminalClient], Answer],
        done: Callable[[Answer], None] | None = None,
    ) -> None:
        """Ask, naming what will be done (None: do not ask), then do it in a thread and say what came of it.

        ``done`` gets the answer in the app's thread; without it the sentence of a ``DoneView`` is shown.
        """
        self.clinic.order(question, call, done if done is not None else self._tell)

    def _tell(self, answer: object) -> None:
        if isinstance(answer, DoneView):
            self.clinic.notify(answer.sentence, markup=False)

    def put(self, place: str, text: Text) -> None:
        """Show a text in a ``Static`` of this view unless it stands there: over a slow line every redraw is seen."""
        if self._texts.get(place) != text:
            self._texts[place] = text
            self.query_one(place, Static).update(text)

    def forget(self, widget: Widget) -> None:
        """Draw anew what this widget shows, though it may be the same."""
        self._texts.pop(f"#{widget.id}", None)
