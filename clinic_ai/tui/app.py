"""The technician's terminal: one header, eight screens, one feed. It only draws what the client gives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.command import CommandPalette, Provider
from textual.containers import Container
from textual.css.query import NoMatches
from textual.events import Resize
from textual.filter import LineFilter
from textual.message import Message
from textual.signal import Signal
from textual.widgets import ContentSwitcher, Static

from clinic_ai.errors import ClinicError
from clinic_ai.home import Home
from clinic_ai.tui.feed import Again, Broken, Connect, Feed, Fetch, Lost, Picture, Told
from clinic_ai.tui.hanging_up import hung_up
from clinic_ai.tui.header import alerts_text, header_text, places_text
from clinic_ai.tui.key_line import KeyLine
from clinic_ai.tui.looks import LOOKS, NoColour
from clinic_ai.tui.preferences import Preferences, first_few, preferences_path
from clinic_ai.tui.views import PLACES, Place, load_all
from clinic_ai.tui.visible import Visible, copyable

if TYPE_CHECKING:
    # The frame is drawn before any of these is loaded.
    from clinic_ai.control.terminal_client import TerminalClient
    from clinic_ai.control.views import Role, StatusView
    from clinic_ai.tui.view import ClinicView

WIDE = 120
"""Columns from which details stand beside lists."""

Answer = TypeVar("Answer")


def _commands() -> type[Provider]:
    from clinic_ai.tui.palette import Commands

    return Commands


class _Wished:
    """What a view wants, as the feed takes it."""

    def __init__(self, view: ClinicView) -> None:
        self.name = view.NAME
        self.topics = view.TOPICS
        self.fetch: Fetch = view.fetching()
        self.again: Again | None = view.fetching_again()


class ClinicApp(App[None]):
    """``clinic-ai tui``. ``clock`` gives UTC seconds and ``connect`` a client; tests give their own."""

    TITLE = "clinic-ai"
    CSS_PATH = "style.tcss"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_commands}
    ENABLE_COMMAND_PALETTE = False  # its key is one of ours, so that it may be another
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                place.key,
                f"go('{place.name}')",
                place.title,
                show=False,
                id=f"go.{place.name}",
                tooltip=f"{place.title}: {place.purpose}",
            )
            for place in PLACES
        ),
        Binding(
            "exclamation_mark", "alerts", "Alerts", show=False, id="alerts", tooltip="All alerts; acknowledge them"
        ),
        Binding("p", "freeze", "Freeze", show=False, id="freeze", tooltip="Let the screen stand still, or go on"),
        Binding("y", "copy", "Copy", show=False, id="copy", tooltip="Copy what is under the cursor"),
        Binding("ctrl+p", "find", "Find", show=False, id="find", tooltip="Find something to do by its name"),
        Binding("question_mark", "help", "Help", id="help", tooltip="Keys, states and what they mean"),
        Binding("q", "quit", "Quit", id="quit", tooltip="Close this screen; the appliance goes on"),
    ]

    class Arrived(Message):
        """The feed has an answer."""

        def __init__(self, answer: Told) -> None:
            super().__init__()
            self.answer = answer

    def __init__(
        self,
        home: Home,
        *,
        monitor: bool = False,
        clock: Callable[[], float] = time.time,
        connect: Connect | None = None,
        preferences: Preferences | None = None,
    ) -> None:
        super().__init__()
        self.preferences = preferences if preferences is not None else Preferences()
        for look in LOOKS.values():
            self.register_theme(look.theme)
        self.theme = self.preferences.theme
        self._visible, self._no_colour = Visible(), NoColour()
        self.no_color = self.no_color or os.environ.get("TERM") == "dumb"
        self.keys: Mapping[str, str] = {}
        """Keys this person chose, by the id of what they do; without those that cannot be."""
        self.clock = clock
        self.connect = connect if connect is not None else lambda: _client(home, monitor=monitor)
        self._feed = Feed(self.connect, tell=self._tell)
        self.status: StatusView | None = None
        self.told: Signal[StatusView] = Signal(self, "status")
        """Tells each status to the dialogs that show some of it."""
        self._status_at = 0.0
        self.linked = False
        self.lost: ClinicError | None = None
        """Why the daemon did not answer the last time; None if it did."""
        self.answered = ""
        """The name of the view that was given an answer last."""
        self._asked = False
        self._note = ""
        self.frozen = False
        self.study_id: str | None = None
        """The study in hand: chosen in the queue, shown by the study, ask and log screens."""
        self._texts: dict[str, Text] = {}
        self._place = PLACES[0]
        self._views: dict[str, ClinicView] = {}

    def _tell(self, answer: Told) -> None:
        """Called in the feed's thread."""
        self.post_message(self.Arrived(answer))

    def broke(self, error: Exception) -> None:
        """End the terminal because a fault of its own ended a thread, which would never answer any more."""
        self._tell(Broken(error))

    def compose(self) -> ComposeResult:
        """Lay out header, banner, alerts, the screens and the keys."""
        yield Static(id="header")
        yield Static(id="places")
        yield Static(id="banner")
        yield Static(id="alerts")
        with Container(id="body"):
            yield ContentSwitcher(id="views")
        yield KeyLine(show_command_palette=False)

    async def on_mount(self) -> None:
        """Show the frame; the rest comes when it is drawn."""
        self._arrange(self.size.width)
        self._draw_header()
        if self.is_headless:
            await self._begin()  # nobody waits for the frame
        else:
            self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        """Open the first screen; start the clock and the feed."""
        problems = list(self.preferences.problems)
        if self.preferences.keys:
            problems += self._take_keys()
        for problem in first_few(problems):
            self.notify(problem, severity="warning", timeout=15, markup=False)
        if not self._views:
            await self._open(self._place)
        if not self.is_headless:
            self._end_on_signals()
        self.set_interval(1.0, self._tick)
        self._feed.start()

    def _end_on_signals(self) -> None:
        """Leave the terminal as it was found when told to end from outside: else it echoes nothing any more."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one, and keeps it ignored
                asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)

    def _take_keys(self) -> list[str]:
        """Give the orders the keys this person chose; return a sentence about each that cannot be."""
        from clinic_ai.tui.keys import settled

        self.keys, problems = settled(self.preferences.keys)
        self.set_keymap(self.keys)
        return [f"{preferences_path()}: {problem}" for problem in problems]

    def on_unmount(self) -> None:
        """Fetch no more."""
        self._feed.stop()

    def on_resize(self, event: Resize) -> None:
        """Put details beside the lists if there is room, else below."""
        self._arrange(event.size.width)
        self._draw_header()
        if self._texts.get("#alerts"):
            self._draw_alerts()

    def _arrange(self, width: int) -> None:
        self.query_one("#body").set_class(width >= WIDE, "wide")

    # ------------------------------------------------------------ colours

    @property
    def ansi_theme(self) -> TerminalTheme:
        """What the names of colours look like in this theme."""
        look = LOOKS.get(self.theme)
        return super().ansi_theme if look is None else look.names

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line goes through before it is shown."""
        return [self._visible, *([self._no_colour] if self.no_color else super().get_line_filters())]

    async def choose_look(self) -> None:
        """Ask for other colours."""
        from clinic_ai.tui.screens import Choose

        def chosen(name: str | None) -> None:
            if name is not None:
                self.theme = name
                self.notify(f'theme = "{name}" in {preferences_path()} keeps it.', markup=False)

        self.push_screen(
            Choose("Which colours?", [(name, f"{name}: {look.purpose}") for name, look in LOOKS.items()]), chosen
        )

    # ------------------------------------------------------------ the screens

    @property
    def place(self) -> Place:
        """Where one is: the screen in front, by its key, title and purpose."""
        return self._place

    @property
    def view(self) -> ClinicView | None:
        """The screen in front."""
        return self._views.get(self._place.name)

    async def action_go(self, name: str) -> None:
        """Open a screen."""
        place = next((place for place in PLACES if place.name == name), None)
        if place is not None:
            await self._open(place)

    async def open_study(self, study_id: str) -> None:
        """Take a study in hand and open its screen."""
        self.study_id = study_id
        await self.action_go("study")

    async def _open(self, place: Place) -> None:
        self._place = place
        switcher = self.query_one("#views", ContentSwitcher)
        view = self._views.get(place.name)
        if view is None:
            view = self._views[place.name] = place.load()()
            await switcher.mount(view)
        switcher.current = view.id
        view.focus_first()
        if self.status is not None:
            view.status_changed(self.status)
        self.wish(view)
        self._draw_header()
        self.refresh_bindings()

    def wish(self, view: ClinicView) -> None:
        """Fetch what a view wants, if it is the one in front."""
        if view is self.view:
            self._feed.want(_Wished(view))

    # ------------------------------------------------------------ what the feed brings

    @on(Arrived)
    def _take(self, message: Arrived) -> None:
        answer = message.answer
        if self._emptied:
            return
        if isinstance(answer, Broken):
            raise answer.error
        if not self._asked:
            self._asked = True
            # By now the screen in front has its answer; loading takes nobody's time.
            threading.Thread(target=load_all, name="loading", daemon=True).start()
        before = self._standing
        if isinstance(answer, Lost):
            self._lose(answer)
        else:
            self._find(answer)
        self._draw_header()
        if before != self._standing:
            self.refresh_bindings()

    @property
    def _standing(self) -> tuple[bool, Role | None, bool]:
        """What decides which keys are there."""
        status = self.status
        return self.linked, None if status is None else status.role, status is not None and status.may_change

    def _find(self, picture: Picture) -> None:
        self.linked, self.lost = True, None
        self.status, self._note = picture.status, picture.note
        if self.frozen:
            return
        self._status_at = self.clock()
        self._set_shown("#banner", shown=False)
        self.query_one("#body").remove_class("stale")
        self._draw_alerts()
        self.told.publish(picture.status)
        view = self.view
        if view is None or picture.view != view.NAME:
            return
        view.status_changed(picture.status)
        if picture.refusal is not None:
            view.refuse(picture.refusal)
        elif picture.answer is not None:
            view.show(picture.answer)
        self.answered = view.NAME

    def _lose(self, lost: Lost) -> None:
        self.linked, self.lost = False, ClinicError(lost.sentence, remedy=lost.remedy)
        if self.frozen:
            return
        since = ""
        if self.status is not None:
            since = f" What you see is from {time.strftime('%H:%M:%S', time.localtime(self._status_at))}."
        self._put("#banner", Text(f"{lost.sentence}{since} {lost.remedy} Trying again every second."))
        self._set_shown("#banner", shown=True)
        self.query_one("#body").add_class("stale")

    def _fatal_error(self) -> None:
        """Say where a mistake of this program lies; Textual would print variables, and with them what studies show."""
        from clinic_ai.tui.faults import fault_text

        self._exit_renderables.append(fault_text(self._exception))
        self._close_messages_no_wait()

    # ------------------------------------------------------------ drawing

    def _put(self, place: str, text: Text, *, layout: bool = True) -> None:
        """Show a text unless it is shown already: over a slow line every redraw is seen.

        Without ``layout`` its place keeps its size, and nothing else is drawn.
        """
        if self._texts.get(place) != text:
            self._texts[place] = text
            self.query_one(place, Static).update(text, layout=layout)

    def _set_shown(self, place: str, *, shown: bool) -> None:
        """Show a place or not; to say again what is so already would lay the screen out anew."""
        widget = self.query_one(place)
        if widget.display != shown:
            widget.display = shown

    @property
    def _emptied(self) -> bool:
        """Whether the widgets are gone; a last answer of the feed may still come."""
        try:
            self.query_one("#header")
        except NoMatches:
            return True
        return False

    def _tick(self) -> None:
        if not self.is_headless and hung_up(sys.__stdin__):
            self.exit()  # the terminal is gone: Textual would read its end of file again and again, at full speed
        if self._emptied:
            return
        self._draw_header()
        if self.view is not None and not self.frozen:
            self.view.tick(self.clock())

    def _draw_header(self) -> None:
        if self._emptied:
            return
        width = self.size.width
        line = header_text(
            self.status,
            linked=self.linked,
            now=self.clock(),
            width=width,
            frozen=self.frozen,
            asked=self._asked,
            silent_s=self._feed.silent_s,
        )
        self._put("#header", line, layout=False)
        self._put("#places", places_text(PLACES, self._place, width), layout=False)

    def _draw_alerts(self) -> None:
        text = alerts_text(self.status, self._note, self.size.width - 2) if self.status else Text()
        self._set_shown("#alerts", shown=bool(text))
        self._put("#alerts", text)

    # ------------------------------------------------------------ keys

    def may_order(self, needed: Role) -> bool:
        """Return whether this person may do here what ``needed`` permits, now."""
        return not self.why_not(needed)

    def action_alerts(self) -> None:
        """Show all alerts."""
        from clinic_ai.tui.alerts_screen import AlertsScreen

        self.push_screen(AlertsScreen(self))

    def action_freeze(self) -> None:
        """Let the screen stand still, or go on."""
        self.frozen = not self.frozen
        self._draw_header()
        if not self.frozen:
            self._feed.poke()

    def action_copy(self) -> None:
        """Copy what is under the cursor, through the terminal (OSC 52)."""
        words = self.view.copied() if self.view is not None else ""
        if words:
            self.copy_to_clipboard(words)
            self.notify(f"Copied, if your terminal takes it: {shortened(words)}", markup=False)
        else:
            self.notify("There is nothing to copy here.")

    def copy_to_clipboard(self, text: str) -> None:
        """Copy a text through the terminal; nothing that cannot be seen in it is pasted elsewhere."""
        super().copy_to_clipboard(copyable(text))

    def action_find(self) -> None:
        """Find something to do by its name."""
        if not CommandPalette.is_open(cast("App[object]", self)):
            self.push_screen(CommandPalette(placeholder="What do you want to do?"))

    def why_not(self, needed: Role) -> str:
        """Return why this person may not do what ``needed`` permits, now; empty if they may."""
        status = self.status
        if status is None or not self.linked:
            return "the daemon does not answer"
        if not status.may_change:
            return "this is the read-only socket"
        return "" if status.role.covers(needed) else f"needs the role {needed.value}; yours is {status.role.value}"

    async def action_quit(self) -> None:
        """Close, unless something that was typed would be lost."""
        from clinic_ai.tui.screens import Unsaved

        if any(isinstance(screen, Unsaved) and screen.unsaved for screen in self.screen_stack):
            self.notify("Your words are not signed yet. Sign them (Ctrl+S) or leave them (Escape) first.")
            return
        await super().action_quit()

    def action_help(self) -> None:
        """Show the help."""
        from clinic_ai.tui.screens import HelpScreen

        self.push_screen(HelpScreen(self))

    def order(
        self, question: str | None, call: Callable[[TerminalClient], Answer], done: Callable[[Answer], None]
    ) -> None:
        """Ask, then do it in a thread; ``done`` gets the answer in this one. What is refused is said."""
        if question is None:
            self._do(call, done)
            return

        from clinic_ai.tui.screens import Confirm

        def decided(yes: bool | None) -> None:
            if yes:
                self._do(call, done)

        self.push_screen(Confirm(question), decided)

    @work(thread=True)
    def _do(self, call: Callable[[TerminalClient], Answer], done: Callable[[Answer], None]) -> None:
        try:
            with self.connect() as client:
                answer = call(client)
        except ClinicError as error:
            self.call_from_thread(self.notify, f"{error.message} {error.remedy}", severity="error", markup=False)
            return
        self.call_from_thread(done, answer)
        self._feed.poke()


def _client(home: Home, *, monitor: bool) -> AbstractContextManager[TerminalClient]:
    from clinic_ai.control.terminal_client import TerminalClient

    return TerminalClient(home, monitor=monitor)


def shortened(words: str, room: int = 60) -> str:
    """Return words on one line that is not longer than ``room``."""
    line = " ".join(words.split())
    return line if len(line) <= room else f"{line[: room - 1]}…"
