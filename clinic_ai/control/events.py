"""The stream of changes: server-sent events read from the audit, so that a reader resumes where it stopped.

Every reader has a cursor of its own and no queue: a slow reader costs nothing and loses nothing. An event
says which thing moved and how; what it looks like now, the reader asks for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator

from anyio import to_thread

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

    def enter(self, peer: Peer, after: int | None = None) -> None:
        """Take a place for a reader.

        Raise Conflict if there is none, and NotFound if change number ``after`` has not happened: the reader knows
        another audit than this one, and would hear nothing until this has grown as long.
        """
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

    def leave(self, peer: Peer) -> None:
        """Give the place back."""
        with self._lock:
            self._readers[peer.uid, peer.readonly] -= 1
            self._readers += Counter()  # forgets who has none left

    async def stream(self, peer: Peer, after: int | None) -> AsyncIterator[bytes]:
        """Yield the events after sequence number ``after`` (None: from now on), until the reader leaves."""
        try:
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
        finally:
            self.leave(peer)

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
