"""A CD, a stick or a folder that a person imports: what lies on it, read with that person's rights and left as it is.

No link is followed and no DICOMDIR is read: the files themselves say what they are, and an index can be wrong.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clinic_ai.errors import NotFound

PIECE = 1 << 20
MAX_DEPTH = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PICTURES = frozenset({"bmp", "gif", "ico", "jpeg", "jpg", "png", "svg"})
_PROGRAMS = frozenset(
    {
        "bat",
        "cab",
        "cfg",
        "chm",
        "class",
        "cmd",
        "com",
        "css",
        "dll",
        "doc",
        "docx",
        "dylib",
        "exe",
        "htm",
        "html",
        "inf",
        "ini",
        "jar",
        "js",
        "json",
        "lnk",
        "log",
        "md",
        "msi",
        "ocx",
        "pdf",
        "rtf",
        "sh",
        "so",
        "sys",
        "ttf",
        "txt",
        "url",
        "xml",
        "xsl",
        "zip",
    }
)
"""Ends of names that the viewers of patients' CDs are made of; a file with one is looked into before it is left."""
_SAMPLE = 20


@dataclass(frozen=True)
class MediumFile:
    """A file as its folder shows it; ``raw_name`` is the path below the medium's folder."""

    raw_name: bytes
    size_bytes: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The path for people."""
        return self.raw_name.decode("utf-8", "backslashreplace")


@dataclass
class Survey:
    """What lies on a medium: the files to be imported, what is left there and why, what cannot be read and why."""

    files: list[MediumFile] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Size of all files to be imported."""
        return sum(file.size_bytes for file in self.files)

    def listing(self) -> str:
        """Return the SHA-256 over names, sizes and times: the same for the same medium."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(b"%s\0%d\0%d\0" % (file.raw_name, file.size_bytes, file.mtime_ns))
        return digest.hexdigest()


DICOMDIR = "DICOMDIR: an index is not followed, the files themselves are read"
LINKS = "symbolic links: they are never followed"
SPECIAL = "pipes, sockets or devices"
DEEP = f"folders more than {MAX_DEPTH} deep"
PROGRAMS = "programs and texts, such as those of a viewer; --all imports them too"
PICTURES = "pictures beside DICOM files, such as those of a viewer; --all imports them too"


class Medium:
    """An open folder; ``with`` closes it. Raise NotFound if it is no folder that can be read."""

    def __init__(self, path: Path) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(
                f"{path} cannot be imported: {error.strerror}.",
                remedy="Name the folder of the medium, such as /media/cd.",
            ) from error

    def __enter__(self) -> Medium:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the folder."""
        os.close(self._root)

    def survey(self, *, everything: bool = False) -> Survey:
        """Look at the whole medium. With ``everything`` no file is left for its kind."""
        survey = Survey()
        pictures: list[MediumFile] = []
        for file in self._walk(survey):
            name = file.raw_name.rpartition(b"/")[2].decode("ascii", "replace").lower()
            end = name.rpartition(".")[2] if "." in name else ""
            if name == "dicomdir":
                _count(survey.left, DICOMDIR)
            elif not everything and end in _PROGRAMS and not self._is_dicom(file):
                _count(survey.left, PROGRAMS)
            elif not everything and end in _PICTURES and not self._is_dicom(file):
                pictures.append(file)
            else:
                survey.files.append(file)
        # On a medium of scans, pictures are buttons and logos; each would become a study of its own.
        if DICOMDIR in survey.left or any(map(self._is_dicom, survey.files[:_SAMPLE])):
            if pictures:
                survey.left[PICTURES] = len(pictures)
        else:
            survey.files += pictures
        survey.files.sort(key=lambda file: file.raw_name)
        return survey

    def digest(self, file: MediumFile) -> str:
        """Return the SHA-256 of a file. Raise OSError if it cannot be read to its end."""
        digest = hashlib.sha256()
        for piece in self.read(file):
            digest.update(piece)
        return digest.hexdigest()

    def read(self, file: MediumFile) -> Iterator[bytes]:
        """Yield the bytes of a file. Raise OSError if it cannot be read to its end, or has another size by now."""
        with os.fdopen(self._open(file.raw_name), "rb", buffering=0) as opened:
            size = 0
            while piece := opened.read(PIECE):
                size += len(piece)
                yield piece
        if size != file.size_bytes:
            raise OSError(None, "it was changed while it was read")

    # ------------------------------------------------------------

    def _walk(self, survey: Survey) -> Iterator[MediumFile]:
        pending = [(b"", 1)]
        while pending:
            folder, depth = pending.pop()
            try:
                descriptor = os.open(folder or b".", _FOLDER, dir_fd=self._root)
                try:
                    with os.scandir(descriptor) as entries:
                        found = sorted(entries, key=lambda entry: entry.name)
                    for entry in found:
                        raw_name = os.path.join(folder, os.fsencode(entry.name))  # noqa: PTH118 - names may be no text
                        if entry.is_dir(follow_symlinks=False):
                            if depth < MAX_DEPTH:
                                pending.append((raw_name, depth + 1))
                            else:
                                _count(survey.left, DEEP)
                        elif (file := _file(entry, raw_name, survey)) is not None:
                            yield file
                finally:
                    os.close(descriptor)
            except OSError as error:
                survey.unreadable.append(((folder or b".").decode("utf-8", "backslashreplace"), why(error)))

    def _is_dicom(self, file: MediumFile) -> bool:
        try:
            with os.fdopen(self._open(file.raw_name), "rb") as opened:
                return opened.read(132)[128:] == b"DICM"
        except OSError:
            return True  # not one to be left in silence: reading it says why not

    def _open(self, raw_name: bytes) -> int:
        try:
            descriptor = os.open(raw_name, _FILE | os.O_NOATIME, dir_fd=self._root)
        except PermissionError:  # only its owner may leave the time of access as it is
            descriptor = os.open(raw_name, _FILE, dir_fd=self._root)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(None, "it is no regular file any more")
        return descriptor


def why(error: OSError) -> str:
    """Return in words why a file cannot be read."""
    return error.strerror or "it cannot be read"


def _file(entry: os.DirEntry[str], raw_name: bytes, survey: Survey) -> MediumFile | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        survey.unreadable.append((raw_name.decode("utf-8", "backslashreplace"), why(error)))
        return None
    if stat.S_ISLNK(status.st_mode):
        _count(survey.left, LINKS)
    elif not stat.S_ISREG(status.st_mode):
        _count(survey.left, SPECIAL)
    else:
        return MediumFile(raw_name, status.st_size, status.st_mtime_ns)
    return None


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
