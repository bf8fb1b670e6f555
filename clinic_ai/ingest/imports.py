"""Media that people import: a CD, a stick or any folder, read by their own command line and sent over the socket.

A file is written aside, compared with its hash, synced, and only then gets its name in
``state/imports/<source>/<import>/``, which is an inbox like the folder of a peer: nothing half-received is ever taken.
An import is named after its source and what lies on the medium, so that the same medium is the same import, and what
came before a crash is not sent twice.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clinic_ai.disk.room import Room
from clinic_ai.domain import Fate
from clinic_ai.errors import InputError, NotFound
from clinic_ai.ingest.watch import Inbox
from clinic_ai.store import audit, imports
from clinic_ai.store.database import Database
from clinic_ai.store.imports import Summary
from clinic_ai.store.objects import fsync_directory

ARRIVING = ".arriving"
MAX_STEPS = 40
"""Folders inside folders of a medium."""
MAX_AT_ONCE = 16
"""Imports that are remembered; of each is known what was received before, which is much for a large medium."""
_NAME_BYTES = 255
_PATH_BYTES = 3000


@dataclass(frozen=True)
class Listed:
    """A file of a medium as its folder shows it; ``raw_name`` is its path below the folder that is imported."""

    raw_name: bytes
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class ImportState:
    """How an import stands. ``waiting``: something was received and not yet taken into the ledger."""

    import_id: str
    source: str
    max_file_bytes: int
    waiting: bool
    summary: Summary


@dataclass
class _Import:
    import_id: str
    source: str
    first: int
    """Number in the ledger before which nothing of it lies."""
    here: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """What was received before, by name: size and time of change."""


class Imports:
    """All imports of this run of the daemon. Any thread may call it."""

    def __init__(
        self,
        *,
        folder: Path,
        database: Database,
        room: Room,
        max_file_bytes: Callable[[], int],
        on_received: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._database = database
        self._room = room
        self._max_file_bytes = max_file_bytes
        self._on_received = on_received
        self._imports: dict[str, _Import] = {}
        self._beginning = threading.Lock()
        self._naming = threading.Lock()
        """Held while folders are made for a file and while empty ones are removed."""

    def sweep(self) -> None:
        """Remove what was half received when the daemon ended, and folders that are empty by now."""
        arriving = self._folder / ARRIVING
        arriving.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in arriving.iterdir():
            leftover.unlink()
        self.tidy()

    def begin(self, source: str, listing: str, files: int, size_bytes: int, by: str) -> ImportState:
        """Begin an import, or go on with it; ``listing`` is the SHA-256 of what lies on the medium.

        Raise HomeError if there is no room for it.
        """
        self._room.require(source=source)
        both = hashlib.sha256(source.encode() + b"\0" + bytes.fromhex(listing)).digest()
        import_id = "I-" + base64.b32encode(both)[:8].decode()
        prefix = f"{import_id}/".encode()
        with self._database.read() as connection:  # it reads the whole ledger, and nobody may wait for that to write
            before = imports.files_below(connection, source, prefix)
            first = min((row.file_id for row in before), default=imports.next_number(connection))
        with self._database.write() as connection:
            details = {"import": import_id, "files": files, "bytes": size_bytes, "here_already": len(before)}
            audit.record(connection, actor=by, action="import.begun", subject=source, details=details)
        begun = _Import(import_id, source, first)
        for row in before:
            if row.fate not in {Fate.VANISHED, Fate.IGNORED}:
                begun.here[row.raw_name.removeprefix(prefix)] = (row.size_bytes, row.mtime_ns)
        with self._beginning:
            self._imports.pop(import_id, None)
            self._imports[import_id] = begun
            for oldest in list(self._imports)[:-MAX_AT_ONCE]:
                del self._imports[oldest]
        return self.state(import_id)

    def here_already(self, import_id: str, files: Sequence[Listed]) -> list[int]:
        """Return which of these files, by their place in the list, were received before. Raise NotFound."""
        one = self._get(import_id)
        return [number for number, file in enumerate(files) if self._is_here(one, file)]

    def receive(self, import_id: str, file: Listed, sha256: str) -> Arrival:
        """Begin to receive a file.

        Raise NotFound, InputError if it can have no such name or size, and HomeError if there is no room for it.
        """
        one = self._get(import_id)
        place = self._place(one, file.raw_name)
        if file.size_bytes > self._max_file_bytes():
            raise InputError(
                "too_large",
                f"The file has {file.size_bytes >> 20} MiB; this appliance takes at most "
                f"{self._max_file_bytes() >> 20} MiB.",
                remedy="If it is a scan, raise ingest.max_file_mb in clinic.toml.",
            )
        self._room.require(file.size_bytes, source=one.source)
        temporary = self._folder / ARRIVING / secrets.token_hex(16)
        return Arrival(temporary, file, sha256, lambda: self._keep(temporary, place))

    def _keep(self, temporary: Path, place: Path) -> None:
        """Give a synced file its name, durably."""
        with self._naming:
            folders = _make(place.parent, self._folder)
            temporary.rename(place)
        for folder in folders:
            try:
                fsync_directory(folder)
            except FileNotFoundError:
                pass  # ingest has taken the file, which synced it where it is now, and the empty folder was removed
        self._on_received()

    def state(self, import_id: str) -> ImportState:
        """Return how an import stands. Raise NotFound if nothing is known of it, or not any more."""
        one = self._get(import_id)
        tree = self._folder / one.source / import_id
        waiting = _has_file(tree)  # before the ledger: what is taken in between is in the ledger then
        with self._database.read() as connection:
            summary = imports.summary_below(connection, one.source, f"{import_id}/".encode(), one.first)
        if not waiting:
            self.tidy()
        return ImportState(import_id, one.source, self._max_file_bytes(), waiting, summary)

    def finish(self, import_id: str, sent: int, unreadable: int, by: str) -> None:
        """Note that a person's command line has sent all it could. Raise NotFound."""
        one = self._get(import_id)
        one.here = {}  # nobody asks any more, and the next one to begin it looks again
        with self._database.write() as connection:
            details = {"import": import_id, "sent": sent, "unreadable": unreadable}
            audit.record(connection, actor=by, action="import.sent", subject=one.source, details=details)

    def tidy(self) -> None:
        """Remove folders of imports in which nothing lies any more."""
        with self._naming:
            _prune(self._folder, keep={self._folder / ARRIVING})

    # ------------------------------------------------------------

    def _get(self, import_id: str) -> _Import:
        one = self._imports.get(import_id)
        if one is None:
            raise NotFound(
                f"The daemon knows no import {import_id}; it was started again meanwhile, or began many others.",
                remedy="Run the same `clinic-ai import` again; nothing is imported twice.",
            )
        return one

    def _place(self, one: _Import, raw_name: bytes) -> Path:
        steps = raw_name.split(b"/")
        fits = all(step not in {b"", b".", b".."} and b"\0" not in step and len(step) <= _NAME_BYTES for step in steps)
        if not fits or len(steps) > MAX_STEPS or len(raw_name) > _PATH_BYTES:
            raise InputError(
                "bad_name",
                "A file of this name, or so deep in folders, cannot be imported.",
                remedy="Copy it to a folder further up, under a shorter name, and import that.",
            )
        return self._folder.joinpath(one.source, one.import_id, *map(os.fsdecode, steps))

    def _is_here(self, one: _Import, file: Listed) -> bool:
        if one.here.get(file.raw_name) == (file.size_bytes, file.mtime_ns):
            return True
        try:
            status = self._place(one, file.raw_name).lstat()
        except (OSError, InputError):
            return False
        return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)


class Arrival:
    """One file on its way: ``write`` its bytes, then ``keep`` it or ``give_up``."""

    def __init__(self, temporary: Path, file: Listed, sha256: str, keep: Callable[[], None]) -> None:
        self._temporary = temporary
        self._file = file
        self._sha256 = sha256
        self._keep = keep
        self._out = temporary.open("xb")
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Append bytes. Raise OSError if the disk does not take them."""
        self._out.write(piece)
        self._digest.update(piece)

    def keep(self) -> None:
        """Let it have its name, durably. Raise InputError if these are not the bytes that were announced."""
        if (self._digest.hexdigest(), self._out.tell()) != (self._sha256, self._file.size_bytes):
            self.give_up()
            raise InputError(
                "other_bytes",
                "What arrived are not the bytes that were announced.",
                remedy="The medium may read differently each time; clean it, and run the same command again.",
            )
        self._out.flush()
        os.utime(self._out.fileno(), ns=(self._file.mtime_ns, self._file.mtime_ns))
        os.fsync(self._out.fileno())
        self._out.close()
        self._keep()

    def give_up(self) -> None:
        """Remove what arrived of it."""
        self._out.close()
        self._temporary.unlink(missing_ok=True)


def imported(folder: Path, inboxes: Sequence[Inbox]) -> list[Inbox]:
    """Return the folders of imports as inboxes; one that has the name of an inbox has its hints and its priority."""
    try:
        names = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name != ARRIVING)
    except FileNotFoundError:
        return []
    named = {inbox.source: inbox for inbox in inboxes}
    return [
        replace(named.get(name, Inbox(name, folder, 0.0)), root=folder / name, settle_s=0.0, whole=True)
        for name in names
    ]


def _make(folder: Path, root: Path) -> list[Path]:
    """Make a folder below ``root``; return those to be synced."""
    new, step = [], folder
    while step != root and not step.is_dir():
        new.append(step)
        step = step.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [folder, *(made.parent for made in new)]


def _has_file(folder: Path) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _prune(root: Path, keep: set[Path]) -> None:
    """Remove the empty folders below ``root``, from the inside out."""
    for folder, _, _ in os.walk(root, topdown=False):
        place = Path(folder)
        if place != root and place not in keep:
            try:
                place.rmdir()
            except OSError:
                pass  # something lies in it, which ingest takes
