"""What could not be used: ``quarantine/<date>-<number>/`` with the bytes as ``file`` and why in ``reason.json``.

The reason is on the disk before the file comes to lie beside it, and both before the ledger says so: whoever
looks at a file in quarantine always finds its reason. On the way out it is the other way round: the ledger says
first what a person decided, then the file leaves, and the reason goes last.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.domain import Word
from clinic_ai.store.objects import fsync_directory

FILE = "file"
REASON = "reason.json"


class Reason(Word):
    """``reason.json``: why a file is here, in words, and where it came from."""

    code: str
    sentence: str
    remedy: str
    file_number: int
    original_name: str
    source: str
    sha256: str
    size_bytes: int
    seen_at: str
    quarantined_at: str


@dataclass(frozen=True)
class Quarantine:
    """The folder of files that could not be used."""

    root: Path

    def place(self, file_id: int, seen_at: float) -> Path:
        """Return the folder for a file; ``seen_at`` (UTC seconds) is the one of its ledger row."""
        return self.root / f"{time.strftime('%Y%m%d', time.gmtime(seen_at))}-{file_id}"

    def holds(self, file_id: int, seen_at: float) -> bool:
        """Return whether the file lies here; a link that somebody put in its place does not count."""
        try:
            return stat.S_ISREG(self.file(file_id, seen_at).lstat().st_mode)
        except FileNotFoundError:
            return False

    def put(self, path: Path, seen_at: float, reason: Reason) -> None:
        """Move the file at ``path`` in here with its reason, durably. Doing it again after a crash is harmless."""
        place = self.place(reason.file_number, seen_at)
        place.mkdir(parents=True, exist_ok=True)
        _write(place / REASON, reason.model_dump_json(indent=2) + "\n")
        try:
            path.rename(place / FILE)
        except OSError as error:
            if error.errno != errno.EXDEV:  # the quarantine is on a disk of its own
                raise
            temporary = place / f".{FILE}.tmp"
            shutil.copyfile(path, temporary)
            _sync(temporary)
            temporary.rename(place / FILE)
            fsync_directory(place)
            path.unlink()
        fsync_directory(place)
        fsync_directory(self.root)

    def file(self, file_id: int, seen_at: float) -> Path:
        """Return where the bytes of a file lie that ``holds`` is true for."""
        return self.place(file_id, seen_at) / FILE

    def remove(self, file_id: int, seen_at: float) -> None:
        """Remove what is here of a file whose bytes are safely elsewhere, or not wanted. Harmless if there is nothing.

        What a person put beside it stays, and so then does its folder.
        """
        place = self.place(file_id, seen_at)
        for leftover in (FILE, f".{FILE}.tmp", REASON, f".{REASON}.tmp"):
            (place / leftover).unlink(missing_ok=True)
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            return
        fsync_directory(self.root)

    def numbers(self) -> list[int]:
        """Return the numbers of the files that have a place here."""
        found = (place.name.partition("-")[2] for place in self.root.iterdir())
        return sorted(int(number) for number in found if number.isdecimal())


def utc(seconds: float) -> str:
    """Return a time as people and programs read it, such as ``2026-11-21T03:01:43Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.rename(path)
    fsync_directory(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
