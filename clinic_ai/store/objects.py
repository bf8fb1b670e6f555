"""Stored bytes by their SHA-256: ``objects/ab/cdef…``, written once, never changed.

Durable in the order temp → fsync → link or rename → fsync of the directory. A stored object is read-only. Its status
change time (ctime) is when it was last adopted: adopting what is there already renews it, under the lock that
discarding takes, so that nothing is discarded between being adopted and being committed by whoever adopted it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.errors import HomeError, NotFound

_CHUNK = 1 << 20
_REST = re.compile(r"[0-9a-f]{62}")
SLICES = tuple(f"{number:02x}" for number in range(256))
"""The folders of a store: since names are hashes, each holds about a 256th of it, chosen at random."""


def fsync_directory(path: Path) -> None:
    """Make renames and links in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directories(paths: Collection[Path]) -> None:
    """Make renames and links in many directories survive a power cut.

    In parallel: the file system then commits them together, which here took a thirtieth of the time.
    """
    for _ in _syncers().map(fsync_directory, paths):
        pass


@functools.cache
def _syncers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8, thread_name_prefix="sync")


os.register_at_fork(after_in_child=_syncers.cache_clear)  # threads do not come along


def hash_descriptor(descriptor: int) -> tuple[str, int]:
    """Return SHA-256 and size of an open file, read from its start."""
    digest, size = hashlib.sha256(), 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, _CHUNK):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


@dataclass(frozen=True)
class StoredObject:
    """An object as its folder shows it; ``adopted_at`` is UTC seconds."""

    sha256: str
    size_bytes: int
    adopted_at: float


class ObjectStore:
    """The store below one directory; only the daemon writes to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._grown: dict[str, int] = {}

    def path(self, sha256: str) -> Path:
        """Return where the object lies. Raise NotFound if it is not there."""
        place = self.place(sha256)
        if not place.is_file():
            raise NotFound(
                f"The stored object {sha256[:12]} is missing from {self.root}.",
                remedy="Restore state/objects from a backup; the ledger names the file it came from.",
            )
        return place

    def place(self, sha256: str) -> Path:
        """Return where the object lies, or would lie if it were there."""
        return self.root / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Return whether the object is there."""
        return self.place(sha256).is_file()

    def renew(self, sha256: str) -> bool:
        """Return whether the object is there; if so, it is as safe from being discarded as one adopted just now."""
        with self._lock:
            try:
                self.place(sha256).chmod(0o440)
            except FileNotFoundError:
                return False
        return True

    def adopt_file(self, source: Path, sha256: str) -> None:
        """Link ``source``, a file of this file system already known to have this hash and synced, into the store.

        ``source`` stays until the caller removes it, so that a crash in between loses nothing.
        """
        place = self._prepare(sha256)
        if self._link(source, place):
            fsync_directory(place.parent)

    def adopt_files(self, files: Iterable[tuple[Path, str]]) -> None:
        """Adopt many files, each with its SHA-256, and sync each directory once; see ``adopt_file``."""
        folders = {self.root}
        for source, sha256 in files:
            place = self.place(sha256)
            place.parent.mkdir(parents=True, exist_ok=True)
            folders.add(place.parent)
            self._link(source, place)
        fsync_directories(folders)

    def write_descriptor(self, descriptor: int) -> tuple[str, int]:
        """Copy an open file into the store; return its SHA-256 and size. Raise HomeError if the disk is full."""
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.root / f".tmp-{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as out:
                os.lseek(descriptor, 0, os.SEEK_SET)
                with os.fdopen(os.dup(descriptor), "rb") as source:
                    shutil.copyfileobj(source, out, _CHUNK)
                out.flush()
                os.fsync(out.fileno())
            with temporary.open("rb") as written:
                sha256, size = hash_descriptor(written.fileno())
            self.adopt_file(temporary, sha256)
        except OSError as error:
            raise _full(error, self.root) from error
        finally:
            temporary.unlink(missing_ok=True)
        return sha256, size

    def write_bytes(self, content: bytes) -> tuple[str, int]:
        """Store bytes; return their SHA-256 and size. Raise HomeError if the disk is full."""
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.root / f".tmp-{secrets.token_hex(8)}"
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            with temporary.open("xb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            self.adopt_file(temporary, sha256)
        except OSError as error:
            raise _full(error, self.root) from error
        finally:
            temporary.unlink(missing_ok=True)
        return sha256, len(content)

    def verify(self, sha256: str) -> bool:
        """Return whether the stored bytes still have their hash."""
        with self.path(sha256).open("rb") as stored:
            return hash_descriptor(stored.fileno())[0] == sha256

    def in_slice(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose hash begins with these two digits, in no order."""
        try:
            entries = os.scandir(self.root / prefix)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if not _REST.fullmatch(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # discarded meanwhile
                yield StoredObject(prefix + entry.name, status.st_size, status.st_ctime)

    def discard(self, sha256: str, *, adopted_before: float) -> int:
        """Remove an object that nobody needs any more; return the bytes that freed.

        0 if it is not there, or was adopted at ``adopted_before`` (UTC seconds) or later, perhaps by somebody whose
        transaction is still to come. A power cut may bring it back, as an object that nobody needs.
        """
        place = self.place(sha256)
        with self._lock:
            try:
                status = place.lstat()
                if status.st_ctime >= adopted_before:
                    return 0
                place.unlink()
            except FileNotFoundError:
                return 0
            self._grown[sha256[:2]] = self._grown.get(sha256[:2], 0) - status.st_size
        return status.st_size

    def set_aside(self, sha256: str) -> Path:
        """Move a damaged object out of its place, so that a whole copy of it can be stored; return where it is now."""
        aside = self.root / f".damaged-{sha256}"
        with self._lock:
            self.place(sha256).rename(aside)
        fsync_directory(self.root)
        return aside

    def take_growth(self, prefix: str) -> int:
        """Return by how many bytes a slice grew since this was asked last, and begin to count anew."""
        with self._lock:
            return self._grown.pop(prefix, 0)

    def growth(self) -> int:
        """Return by how many bytes all slices grew, each since ``take_growth`` was asked of it last."""
        with self._lock:
            return sum(self._grown.values())

    def sweep(self) -> int:
        """Remove temporary files a crash left; return how many."""
        leftovers = list(self.root.glob(".tmp-*"))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def _link(self, source: Path, place: Path) -> bool:
        """Link a file to its place, or renew when the object there was adopted; return whether it is new."""
        with self._lock:
            try:
                os.link(source, place, follow_symlinks=False)
            except FileExistsError:
                new = False
            else:
                new = True
                prefix = place.parent.name
                self._grown[prefix] = self._grown.get(prefix, 0) + place.lstat().st_size
            place.chmod(0o440)  # which renews the time too
        return new

    def _prepare(self, sha256: str) -> Path:
        place = self.place(sha256)
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            fsync_directory(self.root)
        return place


def is_full(error: OSError) -> bool:
    """Return whether the disk or somebody's share of it is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def _full(error: OSError, root: Path) -> Exception:
    if is_full(error):
        return HomeError(
            f"The disk of {root} is full; nothing was lost, the work waits.",
            remedy="Free space on that disk; the appliance goes on by itself.",
        )
    return error
