"""The daemon's side of the receiver: keeps the child listening, and notes who called and who was refused.

What the child acknowledged lies in ``state/incoming/<peer>/``, synced, and is an inbox like any other: the same
claiming takes it, and a crash of either process loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Connection

from clinic_ai.confinement import Confinement
from clinic_ai.disk.room import Room
from clinic_ai.errors import ChildError, ClinicError
from clinic_ai.home import Home
from clinic_ai.ingest.refusals import Refusals
from clinic_ai.ingest.watch import Inbox
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.settings import NetworkSettings, PeerSettings, Settings
from clinic_ai.store import alerts, audit
from clinic_ai.store.database import Database
from clinic_ai.store.objects import fsync_directory
from clinic_ai.tasks import AttendReport, AttendTask, Caller, Listening, ListenTask, Peer, Refusal

log = structlog.get_logger()

ACTOR = "receiver"
SUBJECT = "network"
MEMORY_BYTES = 1 << 30
START_TIMEOUT_S = 60.0
ATTEND_S = 0.5
HANG_S = 30.0
"""A child that does not report for this long hangs, and is replaced."""
SHORTEST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 60.0

REASONS = {
    "unknown_address": "no peer may call from its address",
    "unknown_peer": "no peer has its AE title and address",
    "wrong_called_title": "it called another AE title than network.ae_title",
    "too_many": "there are network.max_associations already",
    "no_request": "it asked for no association: no DICOM, no TLS or a wrong certificate, or it broke off",
    "others": "further callers, not named one by one",
    "no_room": "the disk takes no more, or has less free than disk.reserve_mb",
    "too_large": "it is larger than ingest.max_file_mb",
    "no_data": "its command came without a data set",
}
"""Why an association or an object was refused, by the code in the audit."""


@dataclass(frozen=True)
class ReceiverView:
    """How the receiver stands. Counts are since the daemon started."""

    enabled: bool
    listening: bool
    sentence: str
    open: int
    stored: int
    refused: int


@dataclass(frozen=True)
class _Wanted:
    """The settings a child listens by."""

    network: NetworkSettings
    reserve_mb: int
    max_file_mb: int

    @classmethod
    def of(cls, settings: Settings) -> _Wanted:
        return cls(settings.network, settings.disk.reserve_mb, settings.ingest.max_file_mb)


def received(folder: Path, peers: Iterable[PeerSettings]) -> list[Inbox]:
    """Return the folders of peers as inboxes, those of peers that were removed from the settings too."""
    priorities = {peer.name: peer.priority for peer in peers}
    try:
        names = sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    except FileNotFoundError:
        return []
    return [
        Inbox(source=name, root=folder / name, settle_s=0.0, priority=priorities.get(name, 0), whole=True)
        for name in names
    ]


class Receiver:
    """Owns the receiver child. ``step`` is for one lane; ``view`` may be called from any thread."""

    def __init__(
        self,
        *,
        home: Home,
        settings: Callable[[], Settings],
        database: Database,
        crew: Crew,
        on_received: Callable[[], None],
        room: Room | None = None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._database = database
        self._crew = crew
        self._on_received = on_received
        self._room = room or Room(home.state, lambda: settings().disk.reserve_mb << 20)
        self._child: Child | None = None
        self._wanted = _Wanted.of(settings())
        self._not_before = 0.0
        self._failures = 0
        self._trouble = ""
        self._port = 0
        self._open = self._stored = self._refused = 0
        self._no_room = True
        """Whether there may be an alert that the disk takes no objects; an earlier start may have left one."""
        self._associations, self._objects = Refusals(), Refusals()

    def step(self) -> bool:
        """Listen, and wait for news for half a second; return whether there is any point in doing so again."""
        wanted = _Wanted.of(self._settings())
        if wanted != self._wanted:
            self._wanted, self._not_before, self._failures = wanted, 0.0, 0
            self._end()
        if not wanted.network.enabled:
            return False
        if time.monotonic() < self._not_before:
            return False
        try:
            if self._child is None:
                self._child = self._listen(wanted)
            task = AttendTask(wait_s=ATTEND_S, waiting=self._waiting())
            report = self._child.call("attend", task, AttendReport, timeout_s=ATTEND_S + HANG_S)
        except (ClinicError, OSError) as error:
            self._note_down(error)
            return False
        self._failures = 0
        self._note(report)
        return True

    def _waiting(self) -> tuple[str, ...]:
        """Return the peers that have to wait for room; the child looks after the reserve itself, object by object."""
        peers = (peer.name for peer in self._wanted.network.peer)
        return tuple(name for name in peers if self._room.shortage(source=name) is not None)

    def close(self) -> None:
        """End the child; what it acknowledged is on the disk."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def view(self) -> ReceiverView:
        """Return how it stands."""
        network = self._wanted.network
        listening = self._child is not None and self._port > 0
        if not network.enabled:
            words = "off"
        elif self._trouble:
            words = self._trouble
        elif not listening:
            words = "starting"
        else:
            tls = " with TLS" if network.tls_certificate else ""
            nobody = "" if network.peer else "; nobody may send, for there is no network.peer"
            words = f"listening at {network.bind} port {self._port} as {network.ae_title}{tls}{nobody}"
        return ReceiverView(network.enabled, listening, words, self._open, self._stored, self._refused)

    # ------------------------------------------------------------

    def _listen(self, wanted: _Wanted) -> Child:
        """Start a child that listens. Raise ClinicError or OSError if it cannot."""
        network = wanted.network
        self._prepare(network)
        child = self._crew.start(
            ChildSpec(
                kind="receiver",
                name="receiver",
                confinement=Confinement(
                    network=True, data=MEMORY_BYTES, file_size=wanted.max_file_mb << 20, open_files=1024
                ),
                environment=(("MALLOC_ARENA_MAX", "2"),),
            )
        )
        try:
            self._port = child.call("listen", _task(wanted, self._home), Listening, timeout_s=START_TIMEOUT_S).port
        except ClinicError:
            child.kill()
            raise
        log.info("network.listening", bind=network.bind, port=self._port, peers=len(network.peer))
        if not network.peer:
            log.warning("network.no_peers", sentence="The receiver lets nobody in: there is no [[network.peer]].")
        self._trouble = ""
        with self._database.write() as connection:
            alerts.withdraw(connection, "receiver_down", SUBJECT)
            details = {"port": self._port, "peers": len(network.peer), "tls": bool(network.tls_certificate)}
            audit.record(connection, actor=ACTOR, action="network.listening", subject=SUBJECT, details=details)
        return child

    def _prepare(self, network: NetworkSettings) -> None:
        """Make the folders, and remove what was half received: nobody was told that it arrived."""
        arriving = self._home.incoming / ".arriving"
        arriving.mkdir(mode=0o700, exist_ok=True)
        for leftover in arriving.iterdir():
            leftover.unlink()
        wanted = {peer.name for peer in network.peer}
        for name in wanted:
            (self._home.incoming / name).mkdir(mode=0o700, exist_ok=True)
        for place in self._home.incoming.iterdir():
            if place.name not in wanted and place != arriving:
                try:
                    place.rmdir()
                except OSError:
                    pass  # it still holds something, which ingest takes
        fsync_directory(self._home.incoming)

    def _end(self) -> None:
        self.close()
        self._open, self._port, self._trouble = 0, 0, ""
        with self._database.write() as connection:
            alerts.withdraw(connection, "receiver_down", SUBJECT)

    def _note_down(self, error: ClinicError | OSError) -> None:
        """Say why nobody can send now, and when it is tried again."""
        self.close()
        self._open = 0
        if self._crew.closed:
            return  # we are stopping, and ended it ourselves
        self._failures += 1
        pause = min(LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S * 2 ** min(self._failures - 1, 10))
        self._not_before = time.monotonic() + pause
        if isinstance(error, ClinicError):
            sentence, remedy = error.message, error.remedy
        else:
            sentence, remedy = f"The folder of received scans cannot be used: {error.strerror}.", ""
        if isinstance(error, ChildError) and not remedy:
            remedy = "It is started again; what it acknowledged is safe. `clinic-ai doctor` looks for the cause."
        self._trouble = sentence
        log.error("network.down", sentence=sentence, again_in_s=pause)
        with self._database.write() as connection:
            alerts.raise_alert(connection, "receiver_down", SUBJECT, f"Nobody can send: {sentence}", remedy)

    def _note(self, report: AttendReport) -> None:
        self._open = report.open
        self._stored += report.stored
        self._refused += sum(refusal.count for refusal in report.refusals)
        now = time.monotonic()
        due = self._associations.worth_saying(report.refusals, now)
        objects = self._objects.worth_saying(report.objects, now)
        if report.opened or report.ended or due or objects or report.objects or (self._no_room and report.stored):
            with self._database.write() as connection:
                _record(connection, report, due, objects)
                self._note_objects(connection, report)
        for refusal in due:
            why, count = REASONS.get(refusal.reason, ""), refusal.count
            log.warning("network.refused", reason=refusal.reason, sentence=why, count=count, **_who(refusal.caller))
        for refusal in objects:
            why, count = REASONS.get(refusal.reason, ""), refusal.count
            log.warning(
                "network.object_refused", reason=refusal.reason, sentence=why, count=count, **_who(refusal.caller)
            )
        if report.stored:
            self._on_received()

    def _note_objects(self, connection: Connection, report: AttendReport) -> None:
        """Tell people of objects that cannot come in, and that they can again."""
        crowded = [refusal.caller.peer for refusal in report.objects if refusal.reason == "no_room"]
        if any(self._room.shortage(source=peer) is None for peer in crowded):
            # Else the keeper of the disk says it, for all ways in at once.
            self._no_room = True
            alerts.raise_alert(
                connection,
                "no_room_to_receive",
                SUBJECT,
                f"An object was refused: with it, the disk of {self._home.incoming} would have had less free than "
                f"{self._wanted.reserve_mb} MiB, or it took no more.",
                "Free space on that disk; senders then succeed by themselves or have to send again.",
            )
        elif report.stored and self._no_room:
            self._no_room = False
            alerts.withdraw(connection, "no_room_to_receive", SUBJECT)
        for peer in {refusal.caller.peer for refusal in report.objects if refusal.reason == "too_large"}:
            alerts.raise_alert(
                connection,
                "too_large_to_receive",
                peer,
                f"An object of {peer} was refused: it is larger than {self._wanted.max_file_mb} MiB.",
                "If it is a scan, raise ingest.max_file_mb in clinic.toml and send it again.",
            )


def _record(connection: Connection, report: AttendReport, refusals: list[Refusal], objects: list[Refusal]) -> None:
    """Write who came, who went and who was refused into the audit: titles and addresses, nothing of patients."""

    def note(action: str, caller: Caller, **more: object) -> None:
        subject = caller.peer or SUBJECT
        audit.record(connection, actor=ACTOR, action=action, subject=subject, details={**_who(caller), **more})

    for caller in report.opened:
        note("association.accepted", caller)
    for end in report.ended:
        action = "association.released" if end.released else "association.aborted"
        note(action, end.caller, stored=end.stored, refused=end.refused)
    for refusal in refusals:
        note("association.refused", refusal.caller, reason=refusal.reason, count=refusal.count)
    for refusal in objects:
        note("object.refused", refusal.caller, reason=refusal.reason, count=refusal.count)


def _who(caller: Caller) -> dict[str, str]:
    return {"ae_title": caller.ae_title, "address": caller.address}


def _task(wanted: _Wanted, home: Home) -> ListenTask:
    network = wanted.network

    def place(path: str) -> str:
        return str(home.path / path) if path else ""

    return ListenTask(
        bind=network.bind,
        port=network.port,
        ae_title=network.ae_title,
        peers=tuple(Peer(name=peer.name, ae_title=peer.ae_title, host=peer.host) for peer in network.peer),
        folder=str(home.incoming),
        reserve_bytes=wanted.reserve_mb << 20,
        max_bytes=wanted.max_file_mb << 20,
        max_pdu=network.max_pdu,
        max_associations=network.max_associations,
        timeout_s=network.timeout_s,
        tls_certificate=place(network.tls_certificate),
        tls_key=place(network.tls_key),
        tls_ca=place(network.tls_ca),
    )
