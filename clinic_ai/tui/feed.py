"""Fetches what the screen shows, in a thread of its own, so that a slow daemon never makes a key wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from clinic_ai.control.client import Client
from clinic_ai.control.views import StatusView, StudyRow, StudyView
from clinic_ai.errors import ClinicError, NotFound
from clinic_ai.home import Home

PERIOD_S = 1.0
ROWS = 500
"""Studies shown; the newest. ``clinic-ai study list --limit`` shows more."""


@dataclass(frozen=True)
class Picture:
    """What the daemon said at one moment. ``study`` is the selected one, None if none is."""

    status: StatusView
    studies: tuple[StudyRow, ...]
    study: StudyView | None


@dataclass(frozen=True)
class Lost:
    """The daemon did not answer, and why."""

    sentence: str
    remedy: str


class Feed:
    """Fetches once a second and whenever poked. ``tell`` gets every answer, in the feed's thread."""

    def __init__(self, home: Home, *, monitor: bool, tell: Callable[[Picture | Lost], None]) -> None:
        self._home = home
        self._monitor = monitor
        self._tell = tell
        self._selected: str | None = None
        self._poked = threading.Event()
        self._stopping = False
        # A daemon thread: closing the screen must not wait for an answer.
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Start fetching."""
        self._thread.start()

    def stop(self) -> None:
        """Fetch no more; the answer on its way is not told."""
        self._stopping = True
        self._poked.set()

    def select(self, study_id: str | None) -> None:
        """Fetch the details of this study from now on."""
        if study_id != self._selected:
            self._selected = study_id
            self._poked.set()

    def poke(self) -> None:
        """Fetch at once."""
        self._poked.set()

    def _run(self) -> None:
        with Client(self._home, monitor=self._monitor) as client:
            while not self._stopping:
                self._poked.clear()
                answer = self._fetch(client)
                if not self._stopping:
                    self._tell(answer)
                self._poked.wait(PERIOD_S)

    def _fetch(self, client: Client) -> Picture | Lost:
        selected = self._selected
        try:
            status = client.status()
            page = client.studies(limit=ROWS)
            study = None if selected is None else _study(client, selected)
        except ClinicError as error:
            return Lost(error.message, error.remedy)
        return Picture(status, page.studies, study)


def _study(client: Client, study_id: str) -> StudyView | None:
    try:
        return client.study(study_id)
    except NotFound:
        return None
