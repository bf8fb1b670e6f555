"""What the control API answers about the disk. Times are UTC seconds since the epoch, sizes bytes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from clinic_ai.control.views import Order, View


class FileSystemRow(View):
    """A file system and what of the appliance lies on it; ``short``: less is free than the reserve."""

    names: tuple[str, ...]
    path: str
    free_bytes: int
    total_bytes: int
    short: bool


class ClassRow(View):
    """What one class of data takes; ``quota_bytes`` is 0 without a quota, ``oldest_at`` None without a file."""

    name: str
    files: int
    size_bytes: int
    oldest_at: float | None
    quota_bytes: int


class DiskView(View):
    """How the disk stands. ``waiting`` says why nothing new is taken in, empty if it is.

    ``counted_at`` is None as long as not everything was counted once; ``removed`` and ``garbage`` are since the
    daemon started.
    """

    reserve_bytes: int
    waiting: str
    file_systems: tuple[FileSystemRow, ...]
    classes: tuple[ClassRow, ...]
    counted_at: float | None
    studies_without_originals: int
    removed_studies: int
    removed_bytes: int
    garbage_objects: int
    garbage_bytes: int


class RemovalRow(View):
    """A study whose originals retention would remove now, and by which rule: age, free_space or quota."""

    study_id: str
    delivered_at: float
    objects: int
    frees_bytes: int
    why: str


class SlicesChoice(Order):
    """The objects to verify: those whose hash begins with one of these, each about a 256th of all."""

    prefixes: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}$")], ...], Field(min_length=1, max_length=256)
    ]


class FaultRow(View):
    """A stored object that is missing, damaged or unreadable, and what to do."""

    sha256: str
    fault: str
    studies: tuple[str, ...]
    sentence: str
    remedy: str


class VerifiedView(View):
    """How many slices were done, how many objects that were, and what was wrong with them."""

    slices: int
    objects: int
    size_bytes: int
    faults: tuple[FaultRow, ...]
