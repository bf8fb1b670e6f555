"""What the control API says of folders: inboxes, imports of media, and originals that go out again.

Times are UTC seconds since the epoch, sizes bytes. A name of a file is base64url of the bytes the file system has.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import Field, StringConstraints

from clinic_ai.control.views import Line, Order, View
from clinic_ai.domain import Sha256
from clinic_ai.errors import InputError
from clinic_ai.settings.kinds import SourceName

MAX_LISTED = 200
"""Files asked about at once."""
RawName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,6000}={0,2}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
NanoSeconds = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class InboxAcceptance(Order):
    """Take the file system that lies at an inbox now as its own; ``file_system`` is how it was shown to the person."""

    name: Line
    file_system: Annotated[str, StringConstraints(min_length=1, max_length=5000)]


class ImportOrder(Order):
    """Begin an import, or go on with it; ``listing`` is the hash of names, sizes and times of all its files."""

    source: SourceName
    listing: Sha256
    files: Count
    size_bytes: Count


class ImportFile(Order):
    """A file of a medium as its folder shows it."""

    name: RawName
    size_bytes: Count
    mtime_ns: NanoSeconds


class ImportListing(Order):
    """Which of these files were received before?"""

    files: Annotated[tuple[ImportFile, ...], Field(max_length=MAX_LISTED)]


class ImportEnd(Order):
    """All was sent that could be read."""

    sent: Count
    unreadable: Count


class HereView(View):
    """The files of a listing that were received before, by their place in it."""

    numbers: tuple[int, ...]


class RemarkRow(View):
    """Why files of an import were put aside, and how many."""

    fate: str
    code: str
    sentence: str
    remedy: str
    files: int


class ImportView(View):
    """How an import stands: files by fate and by study; ``pending`` of them have none yet, or are not looked at."""

    import_id: str
    source: str
    max_file_bytes: int
    pending: bool
    fates: dict[str, int]
    studies: dict[str, int]
    remarks: tuple[RemarkRow, ...]


class OriginalRow(View):
    """An original of a study, under a name of ours; ``size_bytes`` is also its size as it goes out."""

    place: str
    sha256: Sha256
    size_bytes: int


class ExportView(View):
    """The originals of the newest version of a study."""

    study_id: str
    version: int
    originals: tuple[OriginalRow, ...]


class CopyRow(View):
    """A de-identified copy, under a name of ours; ``sha256`` is of its original, ``size_bytes`` of the copy."""

    place: str
    sha256: Sha256
    size_bytes: int


class NoteRow(View):
    """What is said of some files of a de-identified export, by the places they have, or would have."""

    code: str
    sentence: str
    remedy: str
    places: tuple[str, ...]


class CopiesView(View):
    """The de-identified copies of the newest version of a study.

    They belong into one folder named ``folder``, which tells nothing of the patient. ``left_out`` says which files have
    no copy that may leave, and why; ``look_at`` what a person should look for in the others.
    """

    study_id: str
    version: int
    folder: str
    copies: tuple[CopyRow, ...]
    left_out: tuple[NoteRow, ...]
    look_at: tuple[NoteRow, ...]


def encoded(raw_name: bytes) -> str:
    """Return the name of a file as it is sent."""
    return base64.urlsafe_b64encode(raw_name).decode()


def decoded(name: str) -> bytes:
    """Return the name of a file that was sent. Raise InputError if it is none."""
    try:
        return base64.urlsafe_b64decode(name.encode())
    except (binascii.Error, ValueError) as error:
        raise InputError("bad_name", "The name of the file is not understood.") from error
