"""The inboxes: what lies in them, and which files have come to rest.

The rescan is the truth; inotify is only a hint that wakes it early, for on a network share the kernel never
sees what another host writes. A file has come to rest when two looks at least ``settle_s`` apart found the
same inode, size and time of change. Links are never followed, odd things never opened.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from clinic_ai.settings import InboxSettings, IngestSettings

MAX_TRACKED = 200_000
"""Files watched for coming to rest at the same time; further ones are looked at when these have gone."""
MAX_DEPTH = 50
"""Folders inside folders that are looked into."""


@dataclass(frozen=True)
class Inbox:
    """A watched folder; ``modality`` and ``body_part`` are of images whose folders do not say them."""

    source: str
    root: Path
    settle_s: float
    modality: str = ""
    body_part: str = ""
    priority: int = 0
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
    )


@dataclass(frozen=True)
class Entry:
    """Something that lies in an inbox. ``raw_name`` is its path below the root as the file system has it."""

    inbox: Inbox
    raw_name: bytes
    size_bytes: int
    mtime_ns: int
    inode: int
    odd: str = ""
    """What it is if it is not a regular file: ``link``, ``too_deep`` or ``special``."""

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


def look(inbox: Inbox, ignore: re.Pattern[str]) -> Iterator[Entry]:
    """Yield what lies in an inbox and below. Raise OSError if its root cannot be read."""
    root = os.fsencode(inbox.root)
    pending = [(b"", 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118 - bytes, as names may be no text
                found = list(entries)
        except OSError:
            if not folder:
                raise
            continue  # it was removed meanwhile, or is not ours to read; the next look tries again
        for entry in found:
            if ignore.match(os.fsdecode(entry.name)):
                continue
            raw_name = os.path.join(folder, entry.name)  # noqa: PTH118
            if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH:
                pending.append((raw_name, depth + 1))
            elif (seen := _entry(inbox, raw_name, entry)) is not None:
                yield seen


def _entry(inbox: Inbox, raw_name: bytes, entry: os.DirEntry[bytes]) -> Entry | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # gone
    mode = status.st_mode
    odd = (
        "" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "too_deep" if stat.S_ISDIR(mode) else "special"
    )
    return Entry(inbox, raw_name, status.st_size, status.st_mtime_ns, status.st_ino, odd)


def ignore_pattern(globs: Iterable[str]) -> re.Pattern[str]:
    """Return one pattern for the names that are not looked at."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")


@dataclass
class Watch:
    """Remembers what each look found, to know which files have come to rest. Times are monotonic seconds."""

    _seen: dict[tuple[str, bytes], tuple[tuple[int, int, int], float]] = field(default_factory=dict)

    def settled(self, inbox: Inbox, entries: Iterable[Entry], now: float) -> list[Entry]:
        """Take note of one look at an inbox; return the regular files that have come to rest."""
        rested, present = [], set()
        for entry in entries:
            key = (inbox.source, entry.raw_name)
            present.add(key)
            shape = (entry.inode, entry.size_bytes, entry.mtime_ns)
            before = self._seen.get(key)
            if before is None and len(self._seen) >= MAX_TRACKED:
                continue
            if before is None or before[0] != shape:
                self._seen[key] = (shape, now)
            elif now - before[1] >= inbox.settle_s:
                rested.append(entry)
        gone = [key for key in self._seen if key[0] == inbox.source and key not in present]
        for key in gone:
            del self._seen[key]
        return rested

    def forget(self, entries: Iterable[Entry]) -> None:
        """Forget files that were taken."""
        for entry in entries:
            self._seen.pop((entry.inbox.source, entry.raw_name), None)

    def oldest(self, source: str) -> float:
        """Return since when the longest-waiting file of an inbox has not come to rest, infinity if there is none."""
        return min((since for (inbox, _), (_, since) in self._seen.items() if inbox == source), default=math.inf)

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
