"""The terminal's screens on made data: no daemon, a clock that stands, and every message to the daemon written down."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Footer

from clinic_ai.control.queue_views import QueuePage
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import EventView, PolicyView, Role, StatusView, TopicView
from clinic_ai.errors import ClinicError
from clinic_ai.home import Home
from clinic_ai.tui.app import ClinicApp

NOW = 1_795_262_400.0
"""2026-11-21 12:00:00 UTC; the clock of every picture. Tests set TZ to UTC."""

SIZES = ((80, 24), (140, 40))
PATIENCE_S = 60.0
"""Beside other tests a screen may take long."""
Script = Callable[[ClinicApp, Pilot[None]], Awaitable[None]]


def made_status(**changes: Any) -> StatusView:
    """Return the status of a daemon at rest, with what a test wants otherwise."""
    resting: dict[str, Any] = {
        "version": "0.1.0",
        "clinic": "Test clinic",
        "home": "/var/lib/clinic-ai",
        "now": NOW,
        "started_at": NOW - 7200,
        "person": "tess",
        "role": Role.ADMINISTRATOR,
        "may_change": True,
        "studies": {},
        "jobs": {},
        "files": {},
        "artefacts": {},
        "engines": (),
        "children": (),
        "daemon_resident_bytes": 110 << 20,
        "disk_free_bytes": 200 << 30,
        "alerts": (),
        "inboxes": (),
        "policy": PolicyView(pack=None),
        "models": (),
        "plugins": ("xray",),
        "plugin_problems": (),
    }
    return StatusView.model_validate(resting | changes)


class Exhibit:
    """Stands in for the client: gives what it was given, by name of the method, and writes down each call.

    An answer may be a value, an error to raise, or a function of the arguments. ``calls`` leaves out what only reads
    the status or follows the changes.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None, *, status: StatusView | None = None) -> None:
        self.answers: dict[str, Any] = dict(answers or {})
        self.answers.setdefault("status", made_status() if status is None else status)
        # The screen that is opened first asks for it, whichever is looked at afterwards.
        self.answers.setdefault("queue", QueuePage(studies=(), offset=0, total=0, place=None))
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.news: list[EventView | TopicView] = []
        self._moved = threading.Event()
        self._told = 0
        self.closed = False

    @contextmanager
    def connect(self) -> Iterator[TerminalClient]:
        """Give itself as a client."""
        yield cast(TerminalClient, self)

    def follow(self, after: int | None = None) -> Iterator[EventView | TopicView]:
        """Yield the news as they are told, until closed."""
        yield TopicView(topic="start")
        while not self.closed:
            self._moved.clear()
            while self._told < len(self.news):
                self._told += 1
                yield self.news[self._told - 1]
            self._moved.wait()

    def told(self) -> int:
        """Return how many of the news were heard."""
        return self._told

    def tell(self, news: EventView | TopicView) -> None:
        """Let the stream of changes say something."""
        self.news.append(news)
        self._moved.set()

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self._moved.set()

    def sent(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return the arguments of each call of a method so far."""
        return [(arguments, keywords) for called, arguments, keywords in self.calls if called == name]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the method of the client that gives the answer of this name."""
        if name.startswith("_") or name not in self.answers:
            raise AttributeError(f"The exhibit has no answer to {name}")

        def answer(*arguments: Any, **keywords: Any) -> Any:
            if name != "status":
                self.calls.append((name, arguments, keywords))
            given = self.answers[name]
            if isinstance(given, ClinicError):
                raise given
            return given(*arguments, **keywords) if callable(given) else given

        return answer


def play(exhibit: Exhibit, script: Script, *, size: tuple[int, int] = (80, 24), place: str = "queue") -> None:
    """Run the app on an exhibit without a terminal, open a screen, and do as the script says."""

    async def run() -> None:
        app = ClinicApp(Home(Path("/nowhere")), clock=lambda: NOW, connect=exhibit.connect)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            if place != "queue":
                await app.action_go(place)
            await script(app, pilot)

    try:
        asyncio.run(run())
    finally:
        exhibit.close()


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: str) -> None:
    """Let the app work until the condition holds; the feed's thread announces nothing to wait for."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < PATIENCE_S, f"{what}; the screen:\n{screen(pilot.app)}"
        await pilot.pause(min(0.2, max(0.02, waited / 10)))


async def shows(pilot: Pilot[None], words: str) -> None:
    """Wait until the words stand on the screen."""
    await until(pilot, lambda: words in screen(pilot.app), f"{words!r} should be shown")


async def still(pilot: Pilot[None]) -> str:
    """Return what is on the screen, as text, once all of it is drawn and stands still."""
    await until(pilot, lambda: _keys_are_drawn(pilot.app), "the line of keys should be drawn")
    seen, before = screen(pilot.app), ""
    while seen != before:
        await pilot.pause(0.1)
        seen, before = screen(pilot.app), seen
    return seen


def _keys_are_drawn(app: App[Any]) -> bool:
    """Say whether the line of keys shows what may be pressed now: it is made anew a moment after the rest."""
    wanted = {binding.action for _, binding, _, _ in app.screen.active_bindings.values() if binding.show}
    drawn = [list(cast(Any, footer).query("FooterKey")) for footer in app.screen.query(Footer)]
    return all({key.action for key in keys} == wanted and all(key.region for key in keys) for keys in drawn)


def screen(app: App[Any]) -> str:
    """Return what is on the screen, as text, a line a row."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def picture(exhibit: Exhibit, place: str, words: str, *, size: tuple[int, int], after: Script | None = None) -> str:
    """Return a screen as text once the words stand on it; ``after`` may press keys first."""
    taken = ""

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        nonlocal taken
        if after is not None:
            await after(app, pilot)
        await shows(pilot, words)
        taken = await still(pilot)

    play(exhibit, script, size=size, place=place)
    return taken
