"""Binds the two sockets and serves the API on them, in a thread with an event loop of its own.

uvicorn's own Unix sockets are 0666 and hide who is connected. So the sockets are bound here, closed to
others from their first moment, and the protocol asks the kernel for the peer of each connection.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import uvicorn
from anyio import to_thread
from uvicorn.protocols.http.h11_impl import H11Protocol

from clinic_ai.control.app import create_app
from clinic_ai.control.pace import Pace
from clinic_ai.control.people import peer_of
from clinic_ai.control.services import Services
from clinic_ai.control.sockets import bind
from clinic_ai.errors import HomeError
from clinic_ai.home import Home

THREADS = 8
"""Requests that are worked on at the same time; each may hold a connection to the database."""
MAX_CONNECTIONS = 64
"""Connections to one socket that are answered; each socket has its own, so that no monitor keeps a clinician out."""
MAX_HELD = 128
"""Connections to one socket held open, each beyond them is cut: nobody is to use up the daemon's files."""
MAX_OWN = 48
"""Connections of one user to one socket, each beyond them is cut: some are left for everybody else."""
FIRST_REQUEST_S = 30.0
"""A connection that has not sent a whole request in this time is cut."""
MAX_HEAD_BYTES = 16 * 1024
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def _protocol_for(*, readonly: bool) -> type[H11Protocol]:
    """Return the protocol that leaves the peer of each connection in ``scope["state"]`` of its requests."""

    class PeerProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            """Ask the kernel who is there, before a byte is read."""
            peer = peer_of(transport.get_extra_info("socket"), readonly=readonly)
            self.app_state = {**self.app_state, "peer": peer}  # a new dict: the old one is shared by all connections
            super().connection_made(transport)
            if len(self.connections) > MAX_HELD or self._own() > MAX_OWN:
                transport.abort()
            self.loop.call_later(FIRST_REQUEST_S, self._cut_if_silent)

        def _own(self) -> int:
            uid = self.app_state["peer"].uid
            return sum(other.app_state["peer"].uid == uid for other in self.connections)

        def _cut_if_silent(self) -> None:
            if self.cycle is None:
                self.transport.abort()

    return PeerProtocol


class _Server(uvicorn.Server):
    """uvicorn, saying when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class ControlServer:
    """The API on ``run/control.sock`` and ``run/monitor.sock`` of a home."""

    def __init__(self, home: Home, services: Services, *, group: str = "", pace: Pace | None = None) -> None:
        self._home = home
        self._group = group
        self._app = create_app(services, pace)
        self._servers = [
            (home.control_socket, self._server_of(readonly=False)),
            (home.monitor_socket, self._server_of(readonly=True)),
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._sockets: list[socket.socket] = []
        self._bound: list[Path] = []

    def start(self) -> None:
        """Bind both sockets and serve. Raise HomeError if one is taken, cannot be made or its path is too long."""
        try:
            for path, _ in self._servers:
                self._sockets.append(bind(path, self._group))
                self._bound.append(path)
        except HomeError:
            self._unbind()
            raise
        self._thread.start()
        if not all(server.listening.wait(START_TIMEOUT_S) for _, server in self._servers):
            self.stop()
            raise HomeError("The control sockets did not start to listen.", remedy="See the log for the reason.")

    def stop(self) -> None:
        """Answer what was asked, end the streams, close and remove the sockets."""
        for _, server in self._servers:
            server.should_exit = True
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(self._app.state.feed.close)
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)
        self._unbind()

    def _server_of(self, *, readonly: bool) -> _Server:
        return _Server(
            uvicorn.Config(
                self._app,
                http=_protocol_for(readonly=readonly),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # the door logs what matters, in our form
                access_log=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=3,
            )
        )

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        pairs = zip(self._servers, self._sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[bound]) for (_, server), bound in pairs))

    def _unbind(self) -> None:
        for path in self._bound:
            path.unlink(missing_ok=True)
        for bound in self._sockets:
            bound.close()
        self._bound, self._sockets = [], []
