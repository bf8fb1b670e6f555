"""Fetches pictures in a thread of its own, so that scrolling through slices waits for nothing else.

Whatever was wanted while one was on its way, only the newest is fetched next.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from clinic_ai.control.preview_views import PreviewView
from clinic_ai.errors import ClinicError
from clinic_ai.tui.feed import Connect
from clinic_ai.tui.showing import Looking


@dataclass(frozen=True)
class Want:
    """A picture for a place of so many pixels."""

    looking: Looking
    columns: int
    rows: int


@dataclass(frozen=True)
class Came:
    """A picture, or why there is none."""

    want: Want
    picture: PreviewView | None
    error: ClinicError | None = None


class PictureFeed:
    """Fetches the newest picture that is wanted. ``tell`` gets every answer, ``broke`` what ended it, in its thread."""

    def __init__(self, connect: Connect, *, tell: Callable[[Came], None], broke: Callable[[Exception], None]) -> None:
        self._connect = connect
        self._tell = tell
        self._broke = broke
        self._reader = secrets.token_hex(8)
        self._wanted: Want | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)

    def want(self, want: Want) -> None:
        """Fetch this next."""
        with self._changed:
            self._wanted = want
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Fetch no more."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - thread boundary: no picture would ever come any more
            if not self._stopping:
                self._broke(error)

    def _run(self) -> None:
        with self._connect() as client:
            while (want := self._next()) is not None:
                looking = want.looking
                try:
                    picture = client.preview(
                        looking.study_id,
                        columns=want.columns,
                        rows=want.rows,
                        stack=looking.stack,
                        image=looking.image,
                        preset=looking.preset,
                        window=looking.window,
                        overlay=looking.overlay,
                        reader=self._reader,
                    )
                except ClinicError as error:
                    came = Came(want, None, error)
                else:
                    came = Came(want, picture)
                if not self._stopping:
                    self._tell(came)

    def _next(self) -> Want | None:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted is not None or self._stopping)
            want, self._wanted = self._wanted, None
            return None if self._stopping else want
