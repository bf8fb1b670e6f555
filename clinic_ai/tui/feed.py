"""Fetches what a screen shows when the daemon says that something changed, in threads of its own.

One thread follows the stream of changes, the other fetches, so that a slow daemon never makes a key wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clinic_ai.errors import ClinicError, Conflict, NotFound

if TYPE_CHECKING:
    # The client takes long to load: that happens in the feed's thread, when the frame stands already.
    from clinic_ai.control.terminal_client import TerminalClient
    from clinic_ai.control.views import EventView, StatusView, TopicView

RETRY_S = 1.0
"""A daemon that does not answer is asked again after this time."""
UNTOLD_S = 30.0
"""Without any news everything is fetched again after this time, in case a change was not told."""
CALM_S = 0.15
"""A burst of changes is one fetch: it waits this long for more of them."""
SHARE = 2.0
"""Between two fetches lies at least this many times what the first took, so that no terminal keeps a daemon busy."""

UNFOLLOWED_S = 5.0
"""Everything is fetched after this time while the stream of changes is refused, because too many follow it."""

HURRIED = 0.5
"""What a person asks for waits only this many times what the fetch before it took."""

Fetch = Callable[["TerminalClient"], object]
Again = Callable[["TerminalClient", "StatusView"], object]
"""Fetches only what a topic moved; the status is there already."""
Connect = Callable[[], AbstractContextManager["TerminalClient"]]


class Wish(Protocol):
    """What the screen in front wants: fetched in the feed's thread, so it must not touch a widget."""

    name: str
    topics: frozenset[str]
    fetch: Fetch
    again: Again | None
    """Does for ``fetch`` when nothing but a topic moved since; None: nothing does."""


@dataclass(frozen=True)
class Picture:
    """What the daemon said at one moment: the status, and what the view of this name had asked for.

    ``refusal`` stands in for the answer if the daemon refused it, because of a role or of a study that is gone.
    ``note`` says why changes are seen late, if they are.
    """

    status: StatusView
    view: str
    answer: object | None
    refusal: ClinicError | None = None
    note: str = ""


@dataclass(frozen=True)
class Lost:
    """The daemon did not answer, and why."""

    sentence: str
    remedy: str


@dataclass(frozen=True)
class Broken:
    """A fault of this program ended a thread: nothing new would ever be shown, so it must not pass unseen."""

    error: Exception


Told = Picture | Lost | Broken


class Feed:
    """Fetches what is wished when something changed or when poked; ``tell`` gets each answer, in a feed's thread."""

    def __init__(self, connect: Connect, *, tell: Callable[[Told], None]) -> None:
        self._connect = connect
        self._tell = tell
        self._wish: Wish | None = None
        self._note = ""
        self._asked_at: float | None = None
        self._poked = threading.Event()
        self._wanted = threading.Event()
        self._whole = threading.Event()
        """Set while something else than a topic moved: all is to be fetched."""
        self._stopping = threading.Event()
        self._linked = threading.Event()
        # Daemon threads: closing the screen must not wait for an answer.
        self._threads = [
            threading.Thread(target=self._work, args=(self._run,), name="feed", daemon=True),
            threading.Thread(target=self._work, args=(self._follow,), name="news", daemon=True),
        ]

    def start(self) -> None:
        """Start fetching."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Fetch no more; the answer on its way is not told."""
        self._stopping.set()
        self._poked.set()
        self._wanted.set()
        self._linked.set()

    def want(self, wish: Wish) -> None:
        """Fetch this from now on, and at once."""
        self._wish = wish
        self._whole.set()
        self._wanted.set()
        self._poked.set()

    def poke(self) -> None:
        """Fetch all of it at once."""
        self._whole.set()
        self._poked.set()

    @property
    def silent_s(self) -> float:
        """Seconds that a question waits for its answer, 0 if none does."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    def _work(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - thread boundary: the screen would show the past for ever
            if not self._stopping.is_set():
                self._tell(Broken(error))

    # ------------------------------------------------------------ fetching

    def _run(self) -> None:
        whole_at = -math.inf
        with self._connect() as client:
            while not self._stopping.is_set():
                self._poked.clear()
                self._wanted.clear()
                began = self._asked_at = time.monotonic()
                whole = self._whole.is_set() or began - whole_at > UNTOLD_S
                if whole:
                    self._whole.clear()
                    whole_at = began
                answer = self._fetch(client, whole=whole)
                self._asked_at = None
                took = time.monotonic() - began
                if self._stopping.is_set():
                    return
                self._tell(answer)
                if isinstance(answer, Lost):
                    whole_at = -math.inf
                    self._linked.clear()
                    self._poked.wait(RETRY_S)
                    continue
                self._linked.set()
                if self._wanted.wait(max(CALM_S, SHARE * took)):
                    self._stopping.wait(HURRIED * took)
                self._poked.wait(UNTOLD_S)

    def _fetch(self, client: TerminalClient, *, whole: bool) -> Picture | Lost:
        wish = self._wish
        try:
            status = client.status()
        except ClinicError as error:
            return Lost(error.message, error.remedy)
        if wish is None:
            return Picture(status, "", None, note=self._note)
        try:
            found = wish.fetch(client) if whole or wish.again is None else wish.again(client, status)
            return Picture(status, wish.name, found, note=self._note)
        except ClinicError as error:
            return Picture(status, wish.name, None, error, note=self._note)

    # ------------------------------------------------------------ what changed

    def _follow(self) -> None:
        self._linked.wait()
        after: int | None = None
        with self._connect() as client:
            while not self._stopping.is_set():
                pause = RETRY_S
                try:
                    for news in client.follow(after):
                        if self._stopping.is_set():
                            return
                        self._note = ""
                        after = self._heard(news, after)
                except NotFound:
                    after = None  # another home's audit: begin anew
                except Conflict as error:
                    pause = UNFOLLOWED_S
                    self._note = f"Changes are seen within {UNFOLLOWED_S:.0f} s: {error.message} {error.remedy}"
                except ClinicError:
                    pass  # whatever it is, the fetching thread says it
                self.poke()
                self._stopping.wait(pause)
                self._linked.wait()

    def _heard(self, news: EventView | TopicView, after: int | None) -> int | None:
        from clinic_ai.control.views import EventView

        if isinstance(news, EventView):
            self.poke()
            return news.seq
        wish = self._wish
        if news.topic == "start":
            self.poke()
        elif wish is not None and news.topic in wish.topics:
            self._poked.set()
        return after
