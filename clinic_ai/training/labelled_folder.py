"""Reads a labelled folder: folders per class, or ``labels.csv``; finds every problem before it stops.

::

    pneumonia/positive/…          a folder per condition with positive and negative (or 1 and 0) in it
    pneumonia/…  normal/…         or a folder per class; ``normal`` is negative for the other classes
    labels.csv                    or a table: file, patient_id, and 0 or 1 in one column per condition

In folders, a folder directly around the images of a class names a patient; without one, each image counts as a
patient of its own.
"""

from __future__ import annotations

import csv
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from clinic_ai.domain import LeftOutReason, PatientIdentity, QuestionAnswer
from clinic_ai.errors import DatasetError
from clinic_ai.tasks import CopyKind

LABELS_NAME = "labels.csv"
MAX_LABELS_BYTES = 256 << 20
NORMAL_CLASSES = frozenset({"negative", "no_finding", "normal"})
_POSITIVE = {"positive": 1, "1": 1, "negative": 0, "0": 0}
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_DICOM_OFFSET = 128
_KINDS: dict[str, CopyKind] = {"regions": "npz", "mask": "nifti", "report": "report", "slice": "image"}
_NAMED = 10
"""So many files are named in a note; the rest are counted."""


@dataclass(frozen=True)
class FileBeside:
    """A file beside a volume; see ``contract.Beside``. ``stored`` is the SHA-256 it is stored as, if it is."""

    role: Literal["regions", "mask", "report", "slice"]
    path: Path
    condition: str = ""
    stored: str = ""

    @property
    def kind(self) -> CopyKind:
        """What kind of file it is."""
        return _KINDS[self.role]


@dataclass(frozen=True)
class LabelledImage:
    """An image file and what is known of it. ``name`` is its path below the folder, for people.

    ``patient_key`` is there where the appliance knows whose image it is; else ``patient_id`` says so, or nothing. With
    a ``review_id`` a person said and signed what its labels and pairs say; ``stored`` is the SHA-256 it is stored as.
    """

    path: Path
    name: str
    patient_id: str
    labels: dict[str, int]
    patient_key: str = ""
    pairs: tuple[QuestionAnswer, ...] = ()
    review_id: str = ""
    stored: str = ""
    identity: PatientIdentity = field(default_factory=PatientIdentity)
    """What is known of the patient: no word of it may stand in a question or answer."""
    kind: CopyKind = "image"
    beside: tuple[FileBeside, ...] = ()
    """What lies beside a volume."""


@dataclass
class Reading:
    """What a folder holds; ``problems`` forbid its use, ``notes`` do not. ``left_out`` counts what is not taken."""

    images: list[LabelledImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[tuple[LeftOutReason, Literal["image", "pair"]]] = field(default_factory=Counter)

    def leave_out(self, reason: LeftOutReason, count: int, note: str, what: Literal["image", "pair"] = "image") -> None:
        """Note and count what is not taken, if it is anything."""
        if count:
            self.left_out[reason, what] += count
            self.notes.append(note)


def read_folder(directory: Path, conditions: Sequence[str]) -> Reading:
    """Read a labelled folder for a plugin that knows ``conditions``. Raise DatasetError if it is no folder at all."""
    if not directory.is_dir():
        raise DatasetError(
            f"{directory} is not a folder that can be read.", remedy="Give the folder that holds the images."
        )
    reading = Reading()
    if (directory / LABELS_NAME).exists():
        _read_table(directory, conditions, reading)
    else:
        _read_classes(directory, conditions, reading)
    return reading


def counted(number: int, noun: str, one: str, many: str) -> str:
    """Return number, noun and verb as English has it: ``1 image was``, ``2 images were``."""
    return f"{number} {noun} {one}" if number == 1 else f"{number} {noun}s {many}"


def image_descriptor(path: Path) -> int:
    """Open a regular file without following a link. Raise DatasetError if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}.",
            remedy="Correct its permissions, or replace a link by the file.",
        ) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise DatasetError(f"{path} is not a plain file.", remedy="Remove it from the folder.")


def named(names: Sequence[str]) -> str:
    """Return names after a colon, the first ten of them; the rest are counted."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}"


def is_empty(path: Path) -> bool:
    """Return whether a file is empty. Raise DatasetError if it cannot be read."""
    descriptor = image_descriptor(path)
    try:
        return os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def looks_like_image(path: Path) -> bool:
    """Return whether a file begins like PNG, JPEG or DICOM. Raise DatasetError if it cannot be read."""
    descriptor = image_descriptor(path)
    try:
        head = os.pread(descriptor, _DICOM_OFFSET + 4, 0)
    finally:
        os.close(descriptor)
    return head.startswith(_MAGIC) or head[_DICOM_OFFSET:] == b"DICM"


# ---------------------------------------------------------------- folders


def _read_classes(directory: Path, conditions: Sequence[str], reading: Reading) -> None:
    folders = [entry for entry in listed(directory) if entry.is_dir()]
    if not folders:
        reading.problems.append(f"There is neither a {LABELS_NAME} nor a folder per class in it.")
    classes = [folder.name for folder in folders if folder.name.lower() not in NORMAL_CLASSES]
    for name in classes:
        if name not in conditions:
            known = ", ".join(conditions) or "none"
            reading.problems.append(f"The folder {name} is no condition of this plugin (it knows: {known}).")
    if folders and not classes:
        reading.problems.append("There are only folders of normal images in it; a condition needs positive ones.")
    alone, strange = 0, []
    for folder in folders:
        for root, labels in _labelled_roots(folder, classes):
            before = len(reading.images)
            for path in files_below(root, reading):
                if _add(reading, directory, path, _patient_folder(root, path), labels):
                    alone += path.parent == root
                else:
                    strange.append(path)
            if len(reading.images) == before:
                reading.problems.append(f"The folder {root.relative_to(directory)} holds no image.")
    if alone:
        reading.notes.append(
            f"{counted(alone, 'image', 'has', 'have')} no patient; each counts as a patient of its own. If some are "
            f"of one patient, put them into a folder or name the patients in {LABELS_NAME}."
        )
    note_strange(directory, strange, reading)


def note_strange(directory: Path, strange: list[Path], reading: Reading) -> None:
    """Note the files that are no images, and why."""
    empty = [path for path in strange if is_empty(path)]
    for paths, why in ((empty, "empty"), ([p for p in strange if p not in empty], "neither PNG, JPEG nor DICOM")):
        if paths:
            names = named([str(path.relative_to(directory)) for path in paths])
            reading.notes.append(f"{counted(len(paths), 'file', 'was', 'were')} left out, {why}{names}.")


def _labelled_roots(folder: Path, classes: list[str]) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield the folders whose images share labels."""
    inner = [entry for entry in listed(folder) if entry.is_dir() and entry.name.lower() in _POSITIVE]
    if inner and folder.name in classes:
        for entry in inner:
            yield entry, {folder.name: _POSITIVE[entry.name.lower()]}
    elif folder.name in classes:
        yield folder, {folder.name: 1}
    else:
        yield folder, dict.fromkeys(classes, 0)


def listed(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name, hidden files aside. Raise DatasetError if it cannot be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.", remedy="Correct its permissions.") from error


def files_below(root: Path, reading: Reading) -> Iterator[Path]:
    """Yield the files below a folder by name; a link is a problem. Raise DatasetError if a folder cannot be read."""
    for entry in listed(root):
        if entry.is_symlink():
            reading.problems.append(f"{entry.name} in {root.name} is a link; put the file itself there.")
        elif entry.is_dir():
            yield from files_below(entry, reading)
        else:
            yield entry


def _patient_folder(root: Path, path: Path) -> str:
    """Return the folder of the class that the image lies in, which names its patient; empty if there is none."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _add(reading: Reading, directory: Path, path: Path, patient_id: str, labels: dict[str, int]) -> bool:
    """Add an image, or what is wrong with it; return False if it is no image at all."""
    name = str(path.relative_to(directory))
    try:
        if not looks_like_image(path):
            return False
    except DatasetError as error:
        reading.problems.append(error.message)
        return True
    reading.images.append(LabelledImage(path, name, patient_id, dict(labels)))
    return True


# ---------------------------------------------------------------- labels.csv


def _read_table(directory: Path, conditions: Sequence[str], reading: Reading) -> None:
    table = directory / LABELS_NAME
    descriptor = image_descriptor(table)
    if os.fstat(descriptor).st_size > MAX_LABELS_BYTES:
        os.close(descriptor)
        reading.problems.append(f"{LABELS_NAME} is larger than {MAX_LABELS_BYTES >> 20} MiB.")
        return
    # utf-8-sig: spreadsheets put a byte order mark in front
    with os.fdopen(descriptor, encoding="utf-8-sig", newline="") as stream:
        try:
            rows = csv.DictReader(stream, strict=True)
            columns = _label_columns(rows.fieldnames or [], conditions, reading)
            if columns:
                for row in rows:
                    _read_row(directory, rows.line_num, row, columns, reading)
        except (csv.Error, UnicodeDecodeError) as error:
            reading.problems.append(f"{LABELS_NAME} is not a table of comma-separated values in UTF-8: {error}.")


def _label_columns(header: Sequence[str], conditions: Sequence[str], reading: Reading) -> list[str]:
    """Return the columns that hold labels, none if the header is wrong."""
    problems = [f"{LABELS_NAME} lacks the column {name}." for name in ("file", "patient_id") if name not in header]
    columns = [name for name in header if name not in {"file", "patient_id"}]
    unknown = [name for name in columns if name not in conditions]
    if unknown:
        problems.append(
            f"{LABELS_NAME} has the column(s) {', '.join(unknown)}; the plugin knows {', '.join(conditions) or 'none'}."
        )
    if not columns:
        problems.append(f"{LABELS_NAME} has no column of a condition.")
    if len(set(header)) != len(header):
        problems.append(f"{LABELS_NAME} has a column twice.")
    reading.problems += problems
    return [] if problems else columns


def _read_row(directory: Path, line: int, row: dict[str, str | None], columns: list[str], reading: Reading) -> None:
    place = f"Line {line} of {LABELS_NAME}"
    name, patient_id = (row["file"] or "").strip(), (row["patient_id"] or "").strip()
    relative = PurePosixPath(name)
    if not name or "\0" in name or not (directory / relative).resolve().is_relative_to(directory.resolve()):
        reading.problems.append(f"{place} names no file inside the folder.")
        return
    if not patient_id:
        reading.problems.append(f"{place} ({name}) has no patient_id.")
    labels = {}
    for column in columns:
        cell = (row[column] or "").strip()
        if cell in {"0", "1"}:
            labels[column] = int(cell)
        elif cell:
            reading.problems.append(f"{place} ({name}) has {cell[:20]!r} for {column}; write 0, 1 or nothing.")
    if None in row:
        reading.problems.append(f"{place} ({name}) has more cells than the header.")
    if not labels:
        reading.problems.append(f"{place} ({name}) has no label.")
    if not _add(reading, directory, directory / relative, patient_id, labels):
        why = "empty" if is_empty(directory / relative) else "neither PNG, JPEG nor DICOM"
        reading.problems.append(f"{place}: {name} is {why}.")
