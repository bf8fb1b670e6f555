"""Reads a folder of volumes with masks, labels and reports beside them, for plugins that learn from whole volumes.

::

    volumes/NAME.nii.gz                       Hounsfield units; or
    volumes/NAME.npz                          grey levels and the regions of the chest; both may be there
    lesion_masks/CONDITION/NAME.nii.gz
    labels.csv                                the volume, perhaps patient_id, then 0 or 1 in a column for each condition
    reports/NAME.json

Only the volumes are needed. Without a patient_id a name such as ``train_1000_a_1`` is of the patient ``train_1000``,
and any other is a patient of its own.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinic_ai.contract import ConditionInfo
from clinic_ai.errors import DatasetError
from clinic_ai.tasks import CopyKind
from clinic_ai.training.labelled_folder import (
    LABELS_NAME,
    MAX_LABELS_BYTES,
    FileBeside,
    LabelledImage,
    Reading,
    counted,
    files_below,
    image_descriptor,
    listed,
    named,
)

VOLUMES, MASKS, REPORTS = "volumes", "lesion_masks", "reports"
PATIENT = "patient_id"
_NIFTI, _NPZ, _REPORT = (".nii.gz", ".nii"), ".npz", ".json"
_OF_PATIENT = re.compile(r"(.+?)_[a-z]_\d+")


@dataclass
class _Row:
    """What the sheet says of a volume."""

    patient_id: str = ""
    labels: dict[str, int] = field(default_factory=dict)


def read_volumes(directory: Path, conditions: Sequence[ConditionInfo]) -> Reading:
    """Read a folder of volumes for a plugin that knows ``conditions``. Raise DatasetError if there is none."""
    if not (directory / VOLUMES).is_dir():
        raise DatasetError(
            f"{directory} holds no folder {VOLUMES} that can be read.",
            remedy=f"Put NAME.nii.gz or NAME.npz into {directory.name}/{VOLUMES}, and masks and labels beside it.",
        )
    reading = Reading()
    rows = _sheet(directory / LABELS_NAME, conditions, reading) if (directory / LABELS_NAME).exists() else {}
    beside = _Beside(directory, conditions, reading)
    files = _files(directory / VOLUMES, (*_NIFTI, _NPZ), reading)
    names = {name: path for name, path in files.items() if name}
    for name, paths in sorted(names.items()):
        volume = next((path for path in paths if not path.name.endswith(_NPZ)), paths[0])
        row = rows.pop(name, _Row())
        reading.images.append(
            LabelledImage(
                path=volume,
                name=str(volume.relative_to(directory)),
                patient_id=row.patient_id or _patient(name),
                labels=row.labels,
                kind=_kind(volume),
                beside=(
                    *(FileBeside("regions", path) for path in paths if _is_regions(path, volume)),
                    *beside.of(name),
                ),
            )
        )
    _note(reading, rows, names, beside)
    return reading


class _Beside:
    """Masks and reports by the name of their volume."""

    def __init__(self, directory: Path, conditions: Sequence[ConditionInfo], reading: Reading) -> None:
        self._found: dict[str, list[FileBeside]] = {}
        known = {condition.code for condition in conditions}
        for folder in listed(directory / MASKS) if (directory / MASKS).is_dir() else ():
            if folder.is_dir() and folder.name not in known:
                reading.problems.append(f"The folder {MASKS}/{folder.name} is no condition of this plugin.")
            elif folder.is_dir():
                for name, paths in _files(folder, _NIFTI, reading).items():
                    mask = name.removesuffix(f"_{folder.name}_mask")
                    self._found.setdefault(mask, []).append(FileBeside("mask", paths[0], folder.name))
        if (directory / REPORTS).is_dir():
            for name, paths in _files(directory / REPORTS, (_REPORT,), reading).items():
                self._found.setdefault(name, []).append(FileBeside("report", paths[0]))

    def of(self, name: str) -> tuple[FileBeside, ...]:
        """Return what lies beside a volume."""
        return tuple(self._found.get(name, ()))

    def without(self, names: Mapping[str, object]) -> list[str]:
        """Return the names that no volume has."""
        return sorted(set(self._found) - set(names))


def _files(folder: Path, endings: Sequence[str], reading: Reading) -> dict[str, list[Path]]:
    """Return the files of a folder with one of these endings, by their name without it, the first ending first."""
    found: dict[str, list[Path]] = {}
    for path in files_below(folder, reading):
        ending = next((ending for ending in endings if path.name.endswith(ending)), None)
        if ending is not None:
            found.setdefault(path.name.removesuffix(ending), []).append(path)
    return {name: sorted(paths, key=lambda path: path.name.endswith(_NPZ)) for name, paths in found.items()}


def _is_regions(path: Path, volume: Path) -> bool:
    return path != volume and path.name.endswith(_NPZ)


def _kind(path: Path) -> CopyKind:
    return "npz" if path.name.endswith(_NPZ) else "nifti"


def _patient(name: str) -> str:
    found = _OF_PATIENT.fullmatch(name)
    return found[1] if found else name


def _note(reading: Reading, rows: Mapping[str, _Row], names: Mapping[str, object], beside: _Beside) -> None:
    bare = sum(not image.labels and not image.beside for image in reading.images)
    if not reading.images:
        reading.problems.append(f"There is neither NAME.nii.gz nor NAME.npz in the folder {VOLUMES}.")
    elif bare:
        reading.notes.append(f"{counted(bare, 'volume', 'has', 'have')} neither labels nor anything else beside it.")
    if rows:
        said = counted(len(rows), "line", "names", "name")
        reading.notes.append(f"{said} a volume that is not there{named(sorted(rows))}.")
    if lost := beside.without(names):
        said = counted(len(lost), "mask or report", "is", "are")
        reading.notes.append(f"{said} of a volume that is not there{named(lost)}.")


# ---------------------------------------------------------------- labels.csv


def _sheet(path: Path, conditions: Sequence[ConditionInfo], reading: Reading) -> dict[str, _Row]:
    descriptor = image_descriptor(path)
    if os.fstat(descriptor).st_size > MAX_LABELS_BYTES:
        os.close(descriptor)
        reading.problems.append(f"{LABELS_NAME} is larger than {MAX_LABELS_BYTES >> 20} MiB.")
        return {}
    rows: dict[str, _Row] = {}
    with os.fdopen(descriptor, encoding="utf-8-sig", newline="") as stream:
        try:
            sheet = csv.reader(stream, strict=True)
            columns = _columns(next(sheet, []), conditions, reading)
            for cells in sheet if columns else ():
                _read_row(f"Line {sheet.line_num} of {LABELS_NAME}", cells, columns, rows, reading)
        except (csv.Error, UnicodeDecodeError) as error:
            reading.problems.append(f"{LABELS_NAME} is not a table of comma-separated values in UTF-8: {error}.")
    return rows


def _columns(header: Sequence[str], conditions: Sequence[ConditionInfo], reading: Reading) -> list[str]:
    """Return what each column after the first is about: a condition, the patient, or "" for what nobody asked."""
    known = {name.casefold(): one.code for one in conditions for name in (one.code, one.label, *one.also)}
    said = [name.strip() for name in header[1:]]
    columns = [PATIENT if name == PATIENT else known.get(name.casefold(), "") for name in said]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        reading.problems.append(f"{LABELS_NAME} has two columns of {', '.join(twice)}.")
    if not any(name and name != PATIENT for name in columns):
        codes = ", ".join(condition.code for condition in conditions)
        reading.problems.append(
            f"{LABELS_NAME} has no column of a condition; after the volume, name columns such as {codes}."
        )
    unknown = [name for name, code in zip(said, columns, strict=True) if not code]
    if unknown:
        reading.notes.append(f"Columns of no condition of this plugin are passed over{named(unknown)}.")
    return columns


def _read_row(
    place: str, cells: Sequence[str], columns: Sequence[str], rows: dict[str, _Row], reading: Reading
) -> None:
    if not any(cell.strip() for cell in cells):
        return
    name = _volume_name(cells[0].strip())
    if not name or len(cells) != len(columns) + 1:
        reading.problems.append(f"{place} has not as many cells as there are columns, or names no volume.")
        return
    row = _Row()
    for column, cell in zip(columns, cells[1:], strict=True):
        said = cell.strip().removesuffix(".0")
        if column == PATIENT:
            row.patient_id = cell.strip()
        elif column and said in {"0", "1"}:
            row.labels[column] = int(said)
        elif column and said not in {"", "-1"}:
            reading.problems.append(f"{place} ({name}) has {said[:20]!r} for {column}; write 0, 1 or nothing.")
    if rows.setdefault(name, row) != row:
        reading.problems.append(f"{place} is a second line of {name}, and says something else.")


def _volume_name(cell: str) -> str:
    for ending in (*_NIFTI, _NPZ):
        cell = cell.removesuffix(ending)
    return cell
