"""Takes files out of the inboxes into ``state/spool/<number>``, so that a crash at any line loses none.

The ledger says CLAIMING before a file moves; after that its bytes lie in the inbox or in the spool, never in
neither. On the same file system the move is one rename; else, or if the file is linked or owned elsewhere so
that others could still change it, the bytes are copied, synced and verified before the original goes.

A file that somebody has open for writing is not taken: what they write after a rename would change what is stored,
and after a copy it would be lost. The kernel says so by refusing a lease, see ``leases``; where there are none, on
network shares, a file must look the same before and after it was copied.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path

import structlog

from clinic_ai.disk.room import Room
from clinic_ai.ingest.leases import Lease, lease_holds, take_lease
from clinic_ai.ingest.watch import FOLDER, Entry, Inbox, descend
from clinic_ai.store.objects import fsync_directory, hash_descriptor

log = structlog.get_logger()

_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = _NO_FOLLOW | os.O_NONBLOCK  # opening a FIFO that took a file's place must not wait for a writer
_PIECE = 1 << 20
_NO_ANSWER = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}
)
"""What a share says whose server is gone, and a disk that was pulled out."""
_NEVER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY})
"""What is said of a name that was certainly not removed."""
_COPY = ".copy-"
_ORPHAN = ".orphan-"
_ODD = ".odd-"


class Taken(StrEnum):
    """What came of trying to take a file."""

    TAKEN = "taken"
    GONE = "gone"
    """It is not there any more, or not a regular file any more."""
    REFUSED = "refused"
    """The file system does not let us take it away now; it lies where it lay."""
    NO_SPACE = "no_space"
    """The disk of the spool is full; it lies where it lay."""
    CHANGED = "changed"
    """It is not as it was when it was looked at, or was written to meanwhile; it lies where it lay."""
    HELD_OPEN = "held_open"
    """Somebody has it open for writing; it lies where it lay."""
    OFFLINE = "offline"
    """Its inbox is not there any more, or does not answer; where it lies cannot be said now."""


class Spool:
    """The folder of files on their way. Only one process uses it."""

    def __init__(self, root: Path, room: Room | None = None) -> None:
        self.root = root
        self._room = room

    def path(self, file_id: int) -> Path:
        """Return where the bytes of a file lie while it is on its way."""
        return self.root / str(file_id)

    def take(self, claims: Iterable[tuple[int, Entry]], beat: Callable[[], None] = lambda: None) -> list[Taken]:
        """Move files in from the inboxes, durably as a whole; return what came of each.

        ``beat`` is called now and then, to say that it gets on.
        """
        results = []
        touched: dict[tuple[Path, bytes], int] = {}
        with ExitStack() as open_folders:
            for file_id, entry in claims:
                beat()
                folder, _, name = entry.raw_name.rpartition(b"/")
                place = (entry.inbox.root, folder)
                try:
                    if place not in touched:
                        touched[place] = descriptor = _open_folder(entry.inbox, folder)
                        open_folders.callback(os.close, descriptor)
                    results.append(self._take_one(touched[place], name, file_id, entry, beat))
                except _Offline:
                    results.append(Taken.OFFLINE)
                except OSError as error:
                    # What came in before something failed may lie nowhere else.
                    results.append(Taken.TAKEN if self.path(file_id).is_file() else outcome_of(error))
            fsync_directory(self.root)
            for descriptor in touched.values():
                _fsync_quietly(descriptor)
        return results

    def copy_in(self, file_id: int, path: Path) -> None:
        """Copy a person's own file in, and leave it where it lies. Raise OSError if it cannot be read."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._copy(descriptor, file_id, lambda: None)
        finally:
            os.close(descriptor)

    def bring_back(self, file_id: int, path: Path) -> None:
        """Move a file in that lay in the quarantine, durably. Raise OSError if it is not there or does not fit."""
        try:
            path.rename(self.path(file_id))
        except OSError as error:
            if error.errno != errno.EXDEV:  # the quarantine is on a disk of its own
                raise
            self.copy_in(file_id, path)
            path.unlink()
        fsync_directory(self.root)

    def sync_and_hash(self, file_id: int) -> tuple[str, int]:
        """Make the bytes durable; return their SHA-256 and number. Raise OSError if they cannot be read."""
        descriptor = os.open(self.path(file_id), _FILE)
        try:
            os.fsync(descriptor)
            return hash_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def discard(self, file_id: int) -> None:
        """Remove a file that is safely elsewhere; one that cannot be removed now is so at the next start."""
        try:
            self.path(file_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("spool.not_emptied", file=file_id, error=error.strerror)

    def numbers(self) -> set[int]:
        """Return the numbers of all files that lie here."""
        return {int(place.name) for place in self.root.iterdir() if place.name.isdecimal()}

    def orphans(self, known: set[int]) -> list[Path]:
        """Set aside files whose number is not ``known`` (of a database from a backup, say), and return them."""
        for number in self.numbers() - known:
            self.path(number).rename(self.root / f"{_ORPHAN}{number}")
        return sorted(self.root.glob(f"{_ORPHAN}*"))

    def sets_aside(self, name: str) -> bool:
        """Return whether ``orphans`` set a file aside under this name, and it still has it."""
        return name in {place.name for place in self.root.glob(f"{_ORPHAN}*")}

    def sweep(self) -> None:
        """Make the folder, and remove copies that a crash cut short: their originals are still there."""
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob(f"{_COPY}*"):
            leftover.unlink()

    def finish_move(self, file_id: int, entry: Entry) -> None:
        """Remove the original of a copy, if a crash came between the two; only if the bytes are the same."""
        folder, _, name = entry.raw_name.rpartition(b"/")
        try:
            descriptor = _open_folder(entry.inbox, folder)
        except (_Offline, OSError):
            return  # that inbox is not there now; if the original is, it will be a duplicate
        try:
            original = os.open(name, _FILE, dir_fd=descriptor)
            try:
                status = os.fstat(original)
                same = (
                    stat.S_ISREG(status.st_mode)
                    and take_lease(original) is not Lease.HELD_OPEN
                    and (status.st_size, status.st_mtime_ns) == (entry.size_bytes, entry.mtime_ns)
                    and hash_descriptor(original) == self.sync_and_hash(file_id)
                )
            finally:
                os.close(original)
            if same:
                os.unlink(name, dir_fd=descriptor)
        except OSError:
            return  # as above
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------

    def _take_one(self, folder: int, name: bytes, file_id: int, entry: Entry, beat: Callable[[], None]) -> Taken:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return Taken.GONE
        if (status.st_size, status.st_mtime_ns) != (entry.size_bytes, entry.mtime_ns):
            return Taken.CHANGED
        if entry.inbox.whole and status.st_nlink == 1:  # nobody else can reach it, and its writer was done with it
            try:
                return self._rename(folder, name, file_id, status)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            return self._take_open(folder, name, file_id, descriptor, beat)
        finally:
            os.close(descriptor)

    def _take_open(self, folder: int, name: bytes, file_id: int, descriptor: int, beat: Callable[[], None]) -> Taken:
        """Take a file that is open for reading, if nobody writes to it."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Taken.GONE
        lease = take_lease(descriptor)
        if lease is Lease.HELD_OPEN:
            return Taken.HELD_OPEN
        ours = os.geteuid() == status.st_uid  # our children are not root even if we are, and must be able to read it
        if lease is Lease.GRANTED and ours and status.st_nlink == 1:
            try:
                taken = self._rename(folder, name, file_id, status)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                broken = taken is Taken.TAKEN and not lease_holds(descriptor)
                return self._give_back(folder, name, file_id, descriptor, beat) if broken else taken
        self._copy(descriptor, file_id, beat)
        try:
            if lease is Lease.GRANTED and not lease_holds(descriptor):
                return self._drop(file_id, Taken.HELD_OPEN)
            # Opened anew, for only that makes an NFS client ask its server (nfs(5), close-to-open).
            if _shape_of(folder, name) != _shape(status):
                return self._drop(file_id, Taken.CHANGED)
        except OSError:
            self._drop(file_id, Taken.REFUSED)
            raise
        return self._remove_original(folder, name, file_id, status)

    def _remove_original(self, folder: int, name: bytes, file_id: int, seen: os.stat_result) -> Taken:
        try:
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno in _NEVER or _lies_there(folder, name, seen):
                self._drop(file_id, Taken.REFUSED)
                raise
            # A share may say so after its server has removed it: then the copy is all there is.
        return Taken.TAKEN

    def _rename(self, folder: int, name: bytes, file_id: int, seen: os.stat_result) -> Taken:
        """Rename a file in; what took its place in the last microseconds is put back, for nobody looked at it."""
        target = self.path(file_id)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "the spool has a file of this number already")
        os.rename(name, target, src_dir_fd=folder)
        found = target.lstat()
        if stat.S_ISREG(found.st_mode):
            return Taken.TAKEN if found.st_ino == seen.st_ino else self._put_back(folder, name, file_id)
        if stat.S_ISDIR(found.st_mode):
            try:
                os.rename(target, name, dst_dir_fd=folder)
            except OSError:  # and again something took its place
                target.rename(self.root / f"{_ODD}{file_id}")
        else:
            target.unlink()  # a link, pipe or device
        return Taken.GONE

    def _put_back(self, folder: int, name: bytes, file_id: int) -> Taken:
        try:
            os.link(self.path(file_id), name, dst_dir_fd=folder)
        except FileExistsError:
            return Taken.TAKEN  # the next one of its name is there already: this one has no other place
        return self._drop(file_id, Taken.CHANGED)

    def _give_back(self, folder: int, name: bytes, file_id: int, descriptor: int, beat: Callable[[], None]) -> Taken:
        """Put a file back that somebody began to open for writing while it was renamed; they wait for our lease."""
        target = self.path(file_id)
        try:
            os.link(target, name, dst_dir_fd=folder)
        except FileExistsError:  # the next one of its name is there already: keep this one, out of their reach
            self._copy(descriptor, file_id, beat)  # which takes the place of what they could still change
            return Taken.TAKEN
        return self._drop(file_id, Taken.HELD_OPEN)

    def _drop(self, file_id: int, result: Taken) -> Taken:
        self.path(file_id).unlink(missing_ok=True)
        return result

    def _copy(self, descriptor: int, file_id: int, beat: Callable[[], None]) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if self._room is not None and self._room.shortage(status.st_size) is not None:
            raise OSError(errno.ENOSPC, "the reserve of the disk is not for what comes in")
        temporary = self.root / f"{_COPY}{file_id}"
        try:
            with temporary.open("xb") as out:
                digest = hashlib.sha256()
                offset = 0
                while piece := os.pread(descriptor, _PIECE, offset):
                    out.write(piece)
                    digest.update(piece)
                    offset += len(piece)
                    beat()
                out.flush()
                os.fsync(out.fileno())
            with temporary.open("rb") as written:
                if hash_descriptor(written.fileno()) != (digest.hexdigest(), offset):
                    raise OSError(errno.EIO, "the copy differs from the original")
            temporary.rename(self.path(file_id))
        finally:
            temporary.unlink(missing_ok=True)
        try:
            fsync_directory(self.root)
        except OSError:
            self.path(file_id).unlink(missing_ok=True)  # its original stays
            raise


class _Offline(Exception):
    """The folder of an inbox is not where it was when it was looked at."""


def _shape(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _shape_of(folder: int, name: bytes) -> tuple[int, int, int]:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        return _shape(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _lies_there(folder: int, name: bytes, seen: os.stat_result) -> bool:
    """Return whether a file certainly was not removed."""
    try:
        return _shape_of(folder, name) == _shape(seen)
    except OSError:
        return False


def outcome_of(error: OSError) -> Taken:
    """Return what came of trying to take a file, from the error it met."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Taken.NO_SPACE
    if error.errno in _NO_ANSWER:
        return Taken.OFFLINE
    if error.errno == errno.EAGAIN:  # a file server holds a lease of its own for a client that writes
        return Taken.HELD_OPEN
    # ELOOP: a link took the place of a folder or file, which is then no file of ours any more.
    return Taken.GONE if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP} else Taken.REFUSED


def _open_folder(inbox: Inbox, folder: bytes) -> int:
    """Open a folder below an inbox, following no link.

    Raise _Offline if the inbox is not there, or on another device than when it was looked at.
    """
    try:
        root = os.open(inbox.root, FOLDER)
    except FileNotFoundError as error:
        raise _Offline from error
    try:
        if inbox.device and os.fstat(root).st_dev != inbox.device:
            raise _Offline
        return descend(root, folder)
    finally:
        os.close(root)


def _fsync_quietly(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network shares cannot; the file's own name in the spool is what must be durable
