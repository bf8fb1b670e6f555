"""The door of the control room: knows who knocks, lets in whom clinic.toml names, and writes down whom it refuses."""

from __future__ import annotations

import math
import re
import threading
import time
import traceback

import anyio
import structlog
from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinic_ai.control.pace import PER_SECOND, Pace
from clinic_ai.control.people import Peer, Person, role_of, user_name
from clinic_ai.control.problems import problem, response
from clinic_ai.control.services import Services
from clinic_ai.control.views import ProblemView
from clinic_ai.store import audit

log = structlog.get_logger()

MAX_BODY_BYTES = 64 * 1024
BODY_S = 30.0
"""A request whose body has not come in this time is answered without it: its place is for others."""
READING = frozenset({"GET", "HEAD"})
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REPEAT_S = 60.0
"""The same refusal is written down once in this time, so that a loop cannot fill the disk."""
_REMEMBERED = 256
_OF_AN_IMPORT = re.compile(r"/v1/imports/[A-Z0-9-]+/files")


class Refusals:
    """Writes refused requests into the audit, each kind once a minute, with how many more there were since."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def note(self, name: str, method: str, path: str, reason: str) -> None:
        """Write down that ``name`` was refused."""
        method = method if method in READING | _CHANGING else "another"  # anybody can make up any number of them
        key, now = (name, method, reason), time.monotonic()
        with self._lock:
            noted, more = self._seen.get(key, (-REPEAT_S, 0))
            if now - noted < REPEAT_S:
                self._seen[key] = (noted, more + 1)
                return
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[key] = (now, 0)
        with self._services.database.write() as connection:
            audit.record(
                connection,
                actor=name,
                action="access.refused",
                subject=path[:200],
                details={"method": method, "reason": reason, "since_the_last": more},
            )
        log.warning("access.refused", person=name, method=method, reason=reason)


class Door:
    """ASGI middleware around everything. The server's protocol left the peer in ``scope["state"]``."""

    def __init__(self, app: ASGIApp, *, services: Services, refusals: Refusals, pace: Pace) -> None:
        self._app = app
        self._pace = pace
        self._services = services
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or answer it with the reason why not."""
        if scope["type"] != "http":
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            answer: ASGIApp
            # Files of an import have limits of their own, and are as many as a medium holds.
            wait_s = 0.0 if _brings_a_file(scope) else self._wait_s(scope["state"]["peer"])
            if wait_s > 0:
                answer = await to_thread.run_sync(self._slow_down, scope, wait_s)
            else:
                refusal = await to_thread.run_sync(self._examine, scope)
                answer = self._app if refusal is None else response(refusal)
            await answer(scope, receive if _brings_a_file(scope) else _in_time(receive), watch)
        except Exception as error:  # noqa: BLE001 - boundary of the room: one bad request must not end the others
            # The text of a foreign exception may hold personal data; where it happened does not.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("request.failed", kind=type(error).__name__, place=f"{frame.filename}:{frame.lineno}")
            if not started:
                failed = problem(500, "The daemon made a mistake.", remedy="The log names the place; please report it.")
                await response(failed)(scope, receive, send)

    def _wait_s(self, peer: Peer) -> float:
        return self._pace.take(peer.uid, readonly=peer.readonly)

    def _slow_down(self, scope: Scope, wait_s: float) -> Response:
        name = user_name(scope["state"]["peer"].uid)
        self._refusals.note(name, scope["method"], scope["path"], "too many requests")
        refusal = problem(
            429,
            f"{name} asks too often: more than {PER_SECOND:.0f} times a second for a while.",
            remedy="Close terminals that are not needed and slow scripts down; then ask again.",
            error="TooManyRequests",
        )
        return response(refusal, {"Retry-After": str(math.ceil(wait_s))})

    def _examine(self, scope: Scope) -> ProblemView | None:
        peer: Peer = scope["state"]["peer"]
        name, method = user_name(peer.uid), scope["method"]
        if peer.child:
            # It reads what came from outside and has the daemon's uid: else it would be an administrator.
            self._refusals.note(name, method, scope["path"], "a child of the daemon")
            return problem(
                403,
                "A process that the daemon started asks for nothing here.",
                remedy="Ask from a shell of your own. If nobody did this, look at the plugins and the audit.",
                error="NotAllowed",
            )
        role = role_of(peer.uid, self._services.settings().control)
        if role is None:
            self._refusals.note(name, method, scope["path"], "unknown person")
            return problem(
                403,
                f"The user {name} has no role here.",
                remedy="An administrator names the user in [control] of clinic.toml and reloads.",
                error="NotAllowed",
            )
        if peer.readonly and method not in READING:
            self._refusals.note(name, method, scope["path"], "monitor socket")
            return problem(
                403,
                "The monitor socket only reads.",
                remedy="Use the control socket to change things.",
                error="NotAllowed",
            )
        scope["state"]["person"] = Person(name=name, uid=peer.uid, role=role)
        file_bytes = self._services.settings().ingest.max_file_mb << 20
        return _oversized(scope, file_bytes if _brings_a_file(scope) else MAX_BODY_BYTES)


def _brings_a_file(scope: Scope) -> bool:
    """Return whether the body is a file of an import, which may be large and has time limits of its own."""
    return scope["method"] == "PUT" and _OF_AN_IMPORT.fullmatch(scope["path"]) is not None


def _in_time(receive: Receive) -> Receive:
    """Return ``receive`` so that it raises HTTPException if the body takes too long; what follows it may take any."""
    until = anyio.current_time() + BODY_S
    whole = False

    async def limited() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            with anyio.fail_after(until - anyio.current_time()):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, "The request came to a halt.") from error
        whole = not message.get("more_body", False)
        return message

    return limited


def _oversized(scope: Scope, limit: int) -> ProblemView | None:
    headers = {key: value for key, value in scope["headers"] if key in {b"content-length", b"transfer-encoding"}}
    if b"transfer-encoding" in headers:
        return problem(411, "The request does not say how long it is.", remedy="Send a Content-Length header.")
    # The HTTP parser has refused whatever is no number, and reads no more than what is announced.
    if int(headers.get(b"content-length", b"0")) > limit:
        remedy = "Send less; paths, not files." if limit == MAX_BODY_BYTES else "ingest.max_file_mb is the limit."
        return problem(413, f"The request is larger than {limit} bytes.", remedy=remedy)
    return None
