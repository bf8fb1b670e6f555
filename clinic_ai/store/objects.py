"""Stored bytes by their SHA-256: ``objects/ab/cdef…``, written once, never changed.

Durable in the order temp → fsync → link or rename → fsync of the directory. A stored object is read-only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clinic_ai.errors import HomeError, NotFound

_CHUNK = 1 << 20


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
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(fsync_directory, paths):
            pass


def hash_descriptor(descriptor: int) -> tuple[str, int]:
    """Return SHA-256 and size of an open file, read from its start."""
    digest, size = hashlib.sha256(), 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, _CHUNK):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


class ObjectStore:
    """The store below one directory; only the daemon writes to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Return where the object lies. Raise NotFound if it is not there."""
        place = self._place(sha256)
        if not place.is_file():
            raise NotFound(
                f"The stored object {sha256[:12]} is missing from {self.root}.",
                remedy="Restore state/objects from a backup; the ledger names the file it came from.",
            )
        return place

    def has(self, sha256: str) -> bool:
        """Return whether the object is there."""
        return self._place(sha256).is_file()

    def adopt_file(self, source: Path, sha256: str) -> None:
        """Link ``source``, a file of this file system already known to have this hash and synced, into the store.

        ``source`` stays until the caller removes it, so that a crash in between loses nothing.
        """
        place = self._prepare(sha256)
        try:
            os.link(source, place, follow_symlinks=False)
        except FileExistsError:
            return
        place.chmod(0o440)
        fsync_directory(place.parent)

    def adopt_files(self, files: Iterable[tuple[Path, str]]) -> None:
        """Adopt many files, each with its SHA-256, and sync each directory once; see ``adopt_file``."""
        folders = {self.root}
        for source, sha256 in files:
            place = self._place(sha256)
            place.parent.mkdir(parents=True, exist_ok=True)
            folders.add(place.parent)
            try:
                os.link(source, place, follow_symlinks=False)
            except FileExistsError:
                continue
            place.chmod(0o440)
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

    def sweep(self) -> int:
        """Remove temporary files a crash left; return how many."""
        leftovers = list(self.root.glob(".tmp-*"))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256[2:]

    def _prepare(self, sha256: str) -> Path:
        place = self._place(sha256)
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
