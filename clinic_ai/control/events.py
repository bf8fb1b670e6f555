"""The stream of changes: server-sent events read from the audit, so that a reader resumes where it stopped.

Every reader has a cursor of its own and no queue: a slow reader costs nothing and loses nothing. An event
says which thing moved and how; what it looks like now, the reader asks for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

from anyio import to_thread
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from clinic_ai.control.people import Peer
from clinic_ai.control.topics import Topics
from clinic_ai.control.views import EventView, TopicView
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.store import changes
from clinic_ai.store.database import Database

MAX_READERS = 16
"""Readers on each of the two sockets, so that no monitor takes the place of a clinician's terminal."""
MAX_OWN_READERS = 12
"""Readers of one user on a socket."""
POLL_S = 0.5
BEAT_S = 15.0
"""A comment is sent this often, so that a reader notices a dead daemon and a daemon a dead reader."""
BATCH = 200


class _Followed(StreamingResponse):
    """A stream that says when it is over, even if its reader was gone before the first byte: then nothing of it ran."""

    def __init__(self, content: AsyncIterator[bytes], *, media_type: str, when_over: Callable[[], None]) -> None:
        super().__init__(content, media_type=media_type)
        self._when_over = when_over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._when_over()


class Feed:
    """Serves the changes to so many readers at once as there are places."""

    def __init__(self, database: Database, topics: Topics) -> None:
        self._database = database
        self._topics = topics
        self._readers: Counter[tuple[int, bool]] = Counter()
        self._lock = threading.Lock()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every stream; called in the event loop that serves them."""
        self._closing.set()

    def follow(self, peer: Peer, after: int | None) -> Response:
        """Take a place and return the answer that streams what changes.

        Raise Conflict if there is no place, and NotFound if change number ``after`` has not happened: the reader knows
        another audit than this one, and would hear nothing until this has grown as long.
        """
        self._enter(peer, after)
        return _Followed(self.stream(after), media_type="text/event-stream", when_over=lambda: self._leave(peer))

    def _enter(self, peer: Peer, after: int | None) -> None:
        if after is not None and after > self._last():
            raise NotFound(
                f"There is no change number {after} yet; this home may have been restored.",
                remedy="Follow the events from now on, and ask for everything anew.",
            )
        with self._lock:
            here = sum(count for (_, readonly), count in self._readers.items() if readonly == peer.readonly)
            own = self._readers[peer.uid, peer.readonly]
            if here >= MAX_READERS or own >= MAX_OWN_READERS:
                who = f"{MAX_READERS} readers" if here >= MAX_READERS else f"{own} of your terminals"
                raise Conflict(f"{who} follow the events already.", remedy="Close a terminal that is not needed.")
            self._readers[peer.uid, peer.readonly] += 1

    def _leave(self, peer: Peer) -> None:
        with self._lock:
            self._readers[peer.uid, peer.readonly] -= 1
            self._readers += Counter()  # forgets who has none left

    async def stream(self, after: int | None) -> AsyncIterator[bytes]:
        """Yield the events after sequence number ``after`` (None: from now on), until the reader leaves."""
        silent, told = 0.0, self._topics.numbers()  # before the reader is told that nothing is missed from now on
        seq = after if after is not None else await to_thread.run_sync(self._last)
        yield _text(f": events after {seq}\n\n")
        while not self._closing.is_set():
            news = await to_thread.run_sync(self._after, seq)
            numbers = self._topics.numbers()
            if moved := [topic for topic, number in numbers.items() if told.get(topic) != number]:
                told, silent = numbers, 0.0
                yield _text("".join(map(_topic, moved)))
            if news:
                seq, silent = news[-1].seq, 0.0
                yield _text("".join(map(_event, news)))
                if len(news) == BATCH:
                    continue
            elif silent >= BEAT_S:
                silent = 0.0
                yield b": still here\n\n"
            silent += POLL_S
            await _wait(self._closing, POLL_S)

    def _last(self) -> int:
        with self._database.read() as connection:
            return changes.last_seq(connection)

    def _after(self, seq: int) -> list[EventView]:
        with self._database.read() as connection:
            return [EventView.model_validate(change) for change in changes.after(connection, seq, limit=BATCH)]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


def _event(event: EventView) -> str:
    return f"id: {event.seq}\nevent: change\ndata: {event.model_dump_json()}\n\n"


def _topic(topic: str) -> str:
    return f"event: topic\ndata: {TopicView(topic=topic).model_dump_json()}\n\n"


def _text(text: str) -> bytes:
    return text.encode()
