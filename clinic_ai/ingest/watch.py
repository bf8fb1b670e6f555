"""The inboxes: what lies in them, and which files have come to rest.

The rescan is the truth; inotify is only a hint that wakes it early, for on a network share the kernel never
sees what another host writes. A file has come to rest when two looks at least ``settle_s`` apart found the
same inode, size and time of change. Links are never followed, odd things never opened.
"""

from __future__ import annotations

import errno
import fnmatch
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from clinic_ai.settings import InboxSettings, IngestSettings

MAX_TRACKED = 20_000
"""Files of one inbox watched for coming to rest at the same time; further ones are looked at when these have gone."""
MAX_RESTED = 5_000
"""Files that one look brings; the others lie well where they are."""
MAX_ODD = 1_000
"""Things that are no files that one look brings: to note a hundred thousand links at once would hold up everything."""
RESTLESS_S = 600.0
"""A file that has not come to rest for this long, say a log that is written to, is no study on its way."""
MAX_DEPTH = 50
"""Folders inside folders that are looked into."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CLOSED = frozenset({errno.EACCES, errno.EPERM})


@dataclass(frozen=True)
class Inbox:
    """A watched folder; ``modality`` and ``body_part`` are of images whose folders do not say them."""

    source: str
    root: Path
    settle_s: float
    modality: str = ""
    body_part: str = ""
    priority: int = 0
    owner: str = ""
    """Who looks after what sends here, in the clinic's words."""
    device: int = 0
    """``st_dev`` of its root at the look that an entry is from; 0: not known."""
    whole: bool = False
    """Whether its files are whole from the moment they bear their name, as those are that the receiver put there."""


def inbox_of(inbox: InboxSettings, ingest: IngestSettings, home: Path) -> Inbox:
    """Return the inbox that a table of ``clinic.toml`` describes; a relative path starts at ``home``."""
    return Inbox(
        source=inbox.name,
        root=home / inbox.path,
        settle_s=inbox.settle_s or ingest.settle_s,
        modality=inbox.modality,
        body_part=inbox.body_part,
        priority=inbox.priority,
        owner=inbox.owner,
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lies in an inbox. ``raw_name`` is its path below the root as the file system has it."""

    inbox: Inbox
    raw_name: bytes
    size_bytes: int
    mtime_ns: int
    inode: int
    changed_at: float = 0.0
    """Time of its last change of any kind (``st_ctime``), which is when it came here or later; UTC seconds."""
    odd: str = ""
    """What it is if it is not a regular file: ``link``, ``too_deep``, ``special``, or ``closed`` to the appliance."""

    @property
    def name(self) -> str:
        """The path for people: bytes that are no UTF-8, and characters that do not print, are escaped."""
        return printable(self.raw_name)


def printable(raw_name: bytes) -> str:
    """Return a file name as text that is safe to show; at most 1000 characters, the end of it."""
    text = raw_name.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 1000 else f"…{text[-999:]}"


def look(
    inbox: Inbox, ignore: re.Pattern[str], root: int | None = None, beat: Callable[[], None] = lambda: None
) -> Iterator[Entry]:
    """Yield what lies in an inbox and below. Raise OSError if its root cannot be read.

    ``root`` is a descriptor of it if it is open already; ``beat`` is called for each folder.
    """
    if root is None:
        root = os.open(inbox.root, FOLDER)
        try:
            yield from look(inbox, ignore, root, beat)
        finally:
            os.close(root)
        return
    pending = [(b"", 0)]
    while pending:
        folder, depth = pending.pop()
        beat()
        try:
            found = _scan(root, folder)
        except OSError as error:
            if not folder:
                raise
            if error.errno in _CLOSED:
                yield Entry(inbox, folder, 0, 0, 0, odd="closed")
            continue  # else it was removed meanwhile; the next look tries again
        try:
            for entry in found:
                if ignore.match(entry.name):
                    continue
                raw_name = os.path.join(folder, os.fsencode(entry.name))  # noqa: PTH118 - bytes: names may be no text
                if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH:
                    pending.append((raw_name, depth + 1))
                elif (seen := _entry(inbox, raw_name, entry)) is not None:
                    yield seen
        finally:
            found.close()


class _Scan:
    """The entries of one folder. Read from a descriptor: what is mounted over its path meanwhile does not matter."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._entries = os.scandir(descriptor)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self._entries)

    def close(self) -> None:
        self._entries.close()
        os.close(self._descriptor)


def descend(root: int, folder: bytes) -> int:
    """Return a descriptor of a folder below the open folder ``root``, to be closed. Raise OSError if it is none.

    It is opened step by step: no link put in the way is followed, and its path may be longer than the kernel takes.
    """
    descriptor = os.open(b".", FOLDER, dir_fd=root)
    for step in filter(None, folder.split(b"/")):
        try:
            inner = os.open(step, FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _scan(root: int, folder: bytes) -> _Scan:
    descriptor = descend(root, folder)
    try:
        return _Scan(descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _entry(inbox: Inbox, raw_name: bytes, entry: os.DirEntry[str]) -> Entry | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:  # in a folder that may be read and not entered, names are all there is to see
        return Entry(inbox, raw_name, 0, 0, 0, odd="closed") if error.errno in _CLOSED else None  # else it is gone
    mode = status.st_mode
    odd = (
        "" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "too_deep" if stat.S_ISDIR(mode) else "special"
    )
    return Entry(inbox, raw_name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime, odd)


def ignore_pattern(globs: Iterable[str]) -> re.Pattern[str]:
    """Return one pattern for the names that are not looked at."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")


@dataclass(frozen=True)
class Look:
    """What one look at an inbox found."""

    rested: tuple[Entry, ...] = ()
    """Regular files that have come to rest."""
    odd: tuple[Entry, ...] = ()
    """What is no regular file, as far as nobody was told of it; the rest of very many in the next looks."""
    files: int = 0
    """Regular files that lie there, those left alone too."""
    oldest_at: float = math.inf
    """When the one that waits longest came or was changed last, UTC seconds; infinity if there is none."""
    newest_at: float = -math.inf
    """When the newest one came that is not left alone or restless, UTC seconds; negative infinity if there is none."""
    cut: bool = False
    """Whether there was more than one look may bring."""


@dataclass(frozen=True, slots=True)
class _Seen:
    shape: tuple[int, int, int]
    since: float
    first: float
    not_before: float = -math.inf


class Watch:
    """Remembers what each look at one inbox found, to know which files rest. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[bytes, _Seen] = {}
        self._left_alone: dict[bytes, tuple[int, float]] = {}  # name → time of change, and until when
        self._cut = False

    def look(self, inbox: Inbox, entries: Iterable[Entry], now: float) -> Look:
        """Take note of one look at the inbox. What is not among the entries is forgotten."""
        seen: dict[bytes, _Seen] = {}
        left_alone: dict[bytes, tuple[int, float]] = {}
        rested: list[Entry] = []
        odd: list[Entry] = []
        files, oldest_at, newest_at, cut = 0, math.inf, -math.inf, False
        for entry in entries:
            alone = self._left_alone.get(entry.raw_name)
            if not entry.odd:
                files += 1
                oldest_at = min(oldest_at, entry.changed_at)
            if alone is not None and alone[0] == entry.mtime_ns and alone[1] > now:
                left_alone[entry.raw_name] = alone
            elif entry.odd:
                if len(odd) < MAX_ODD:
                    odd.append(entry)
            elif len(seen) >= MAX_TRACKED:
                cut = True
            else:
                before = self._note(seen, entry, now)
                rests = inbox.whole or (now - before.since >= inbox.settle_s and before.not_before <= now)
                if rests:
                    rested.append(entry)
                if rests or now - before.first < RESTLESS_S:
                    newest_at = max(newest_at, entry.changed_at)
        self._seen, self._left_alone = seen, left_alone
        self._cut = cut or len(rested) > MAX_RESTED
        return Look(tuple(rested[:MAX_RESTED]), tuple(odd), files, oldest_at, newest_at, self._cut)

    def _note(self, seen: dict[bytes, _Seen], entry: Entry, now: float) -> _Seen:
        shape = (entry.inode, entry.size_bytes, entry.mtime_ns)
        before = self._seen.get(entry.raw_name)
        if before is None or before.shape != shape:
            before = _Seen(shape, now, now if before is None else before.first)
        seen[entry.raw_name] = before
        return before

    def forget(self, entries: Iterable[Entry]) -> None:
        """Forget files that were taken."""
        for entry in entries:
            self._seen.pop(entry.raw_name, None)

    def leave_alone(self, entry: Entry, until: float) -> None:
        """Pass over a file until then, or until it is changed; nobody waits for it."""
        self._seen.pop(entry.raw_name, None)
        self._left_alone[entry.raw_name] = (entry.mtime_ns, until)

    def hold(self, entry: Entry, until: float) -> None:
        """Let a file count as not come to rest until then at least."""
        before = self._seen.get(entry.raw_name)
        if before is not None:
            self._seen[entry.raw_name] = replace(before, not_before=until)

    def knows(self, raw_name: bytes) -> bool:
        """Return whether a file lay there at the last look."""
        return raw_name in self._seen or raw_name in self._left_alone

    def oldest(self) -> float:
        """Return since when the longest-waiting file has not come to rest, infinity if there is none."""
        if self._cut:
            return -math.inf  # some were not even noted
        return min((seen.since for seen in self._seen.values()), default=math.inf)

    def __len__(self) -> int:
        """Return how many files are being watched for coming to rest."""
        return len(self._seen)


class Hints:
    """Wakes the rescan early when the kernel tells of a new file; where it cannot, the rescan alone does."""

    def __init__(self, event: threading.Event) -> None:
        self._handler = _Wake(event)
        self._observer: BaseObserver | None = None

    def watch(self, roots: Sequence[Path]) -> bool:
        """Watch these folders instead of those before; return whether the kernel agreed to all of them."""
        self.close()
        observer = Observer()
        complete = True
        try:
            observer.start()
        except OSError:  # no inotify instance left
            return False
        for root in roots:
            try:
                # Not "opened" or "closed without writing": our own looks would wake us again and again.
                kinds: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileMovedEvent]
                observer.schedule(self._handler, str(root), recursive=True, event_filter=kinds)
            except (OSError, UnicodeError):  # no such folder, or no watches left
                complete = False
        self._observer = observer
        return complete

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


class _Wake(FileSystemEventHandler):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - what happened, the rescan finds out
        self._event.set()
