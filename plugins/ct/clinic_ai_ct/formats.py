"""Files that training data come in: NPZ volumes, NIfTI volumes and masks, sheets of labels, and reports as JSON.

Everything is read as data: no pickle, no more memory than ``MAX_VOXELS`` asks for. What is wrong with a file is a
DatasetError whose sentence names the file by its name only.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinic_ai.errors import DatasetError
from clinic_ai_ct.volume import Bits, Grid, Volume

MAX_VOXELS = 2**29
"""Largest volume that is read: 2,048 slices of 512 × 512."""
MAX_JSON_BYTES = 4 * 1024**2
PATIENT = "patient_id"
"""Column of a sheet of labels that names the patient, as the core reads it."""
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
_SPACING_TOLERANCE = 0.02
"""Largest relative difference between spacings of two files of one volume; files have three decimals or float32."""
_NIFTI_2 = 540
_NIFTI_2_SWAPPED = int.from_bytes(_NIFTI_2.to_bytes(4, "big"), "little")
"""Size of the header of the second version of NIfTI, which a file begins with in either order of bytes."""
_NIFTI_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError)

_STEP = re.compile(r"(?:^|\s)Step\s+\d{1,3}\s*[:.]", re.IGNORECASE)

Labels = npt.NDArray[np.uint8]
Record = TypeVar("Record", bound=BaseModel)


# ---------------------------------------------------------------- NPZ


@dataclass(frozen=True)
class Npz:
    """A volume as public training sets keep it: grey levels after one window, and labels of regions.

    ``images`` and ``regions`` are (D, H, W), ``spacing`` is (z, y, x) in mm. A region's label is 1 to 20; 0 is none.
    """

    images: Labels
    regions: Labels
    spacing: tuple[float, float, float]


def read_npz(path: Path) -> Npz:
    """Return the volume of ``{imgs, gts, spacing}``; a file without ``gts`` has no regions, all 0.

    Raise DatasetError if an array is missing, of another kind or shape than said above, or the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            headers = {name: _npy_header(path, name) for name in file.files}
            _check_size(path, headers.get("imgs", ((), np.dtype("u1")))[0])
            _check_size(path, headers.get("gts", ((), np.dtype("u1")))[0])
            arrays = {name: file[name] for name in ("imgs", "gts", "spacing") if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DatasetError(f"{path.name} is damaged, or no NPZ file of plain arrays.") from error
    images, spacing = arrays.get("imgs"), arrays.get("spacing")
    if images is None or images.dtype != np.uint8 or images.ndim != 3:
        raise DatasetError(f"{path.name} has no array imgs of 8-bit grey levels (slices, rows, columns).")
    regions = arrays.get("gts", np.zeros(images.shape, dtype=np.uint8))
    fits = regions.shape == images.shape and regions.dtype.kind in "iu"
    if not fits or (regions.size and not 0 <= int(regions.min()) <= int(regions.max()) <= 255):
        raise DatasetError(f"The array gts of {path.name} does not hold a label for each voxel of imgs.")
    return Npz(images, regions.astype(np.uint8), _spacing(path, spacing))


def _spacing(path: Path, value: npt.NDArray[Any] | None) -> tuple[float, float, float]:
    usable = value is not None and value.shape == (3,) and value.dtype.kind in "fiu"
    if value is None or not usable or not np.isfinite(value).all() or not (value > 0).all() or (value > 100).any():
        raise DatasetError(f"{path.name} does not say how far its voxels lie apart: spacing is no (z, y, x) in mm.")
    z, y, x = (float(step) for step in value)
    return z, y, x


def _npy_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of one array of an NPZ file without reading it."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        return shape, kind


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    if int(np.prod([int(count) for count in shape], dtype=object) or 0) > MAX_VOXELS:
        raise DatasetError(f"{path.name} is larger than the {MAX_VOXELS} voxels that are read.")


def write_npz(path: Path, volume: Npz) -> None:
    """Write a volume as ``{imgs, gts, spacing}``, compressed."""
    spacing = np.array(volume.spacing, dtype=np.float32)
    np.savez_compressed(path, imgs=volume.images, gts=volume.regions, spacing=spacing)


# ---------------------------------------------------------------- NIfTI


def read_nifti(path: Path) -> Volume:
    """Return a volume of Hounsfield units from NIfTI, turned to the axes (z, y, x) of LPS.

    Voxels are turned and mirrored whole, never resampled; what is oblique stays so in ``directions``. Values are
    rounded and limited to 16 bits. Raise DatasetError if it cannot be read or is no volume in three dimensions.
    """
    array, grid = _turned(path, _opened(path))
    limits = np.iinfo(np.int16)
    if not np.isfinite(array).all():
        raise DatasetError(f"{path.name} holds values that are no numbers.")
    return Volume(np.clip(np.rint(array), limits.min, limits.max).astype(np.int16), grid)


def read_mask(path: Path, like: Grid) -> Bits:
    """Return where a NIfTI mask is above 0, voxel for voxel on the grid ``like``.

    The file's affine decides how its axes lie. Some public masks are stored as (slices, rows, columns) under an affine
    that means nothing; one whose affine does not fit, but whose plain array has the shape, is taken as it is stored.
    Raise DatasetError if neither fits.
    """
    image = _opened(path)
    array, grid = _turned(path, image)
    if grid.shape == like.shape and np.allclose(grid.spacing, like.spacing, rtol=_SPACING_TOLERANCE):
        return np.asarray(array > 0)
    if _shape(image) == like.shape:
        return np.asarray(_values(path, image) > 0)
    shapes = " × ".join(map(str, grid.shape)), " × ".join(map(str, like.shape))
    raise DatasetError(f"The mask {path.name} has {shapes[0]} voxels and its volume {shapes[1]}: they do not fit.")


def write_nifti(path: Path, array: npt.NDArray[Any], grid: Grid) -> None:
    """Write (D, H, W) as NIfTI with axes (x, y, z), as viewers expect it; bits become 0 and 1."""
    affine = _LPS_TO_RAS @ grid.affine()[:, [2, 1, 0, 3]]
    stored = array.astype(np.uint8) if array.dtype == np.bool_ else array
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def is_npz(path: Path) -> bool:
    """Return whether a volume is NPZ, by how its file begins: those of a frozen dataset have no ending."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read: {error.strerror}.") from error


def _opened(path: Path) -> SpatialImage:
    try:
        image = nibabel.load(path) if path.suffix else _without_ending(path)
    except _NIFTI_ERRORS as error:
        raise DatasetError(f"{path.name} cannot be read as NIfTI.") from error
    if not isinstance(image, SpatialImage) or len(_shape(image)) != 3 or min(image.shape) < 1:
        raise DatasetError(f"{path.name} is no volume of three dimensions.")
    if np.dtype(image.get_data_dtype()).kind not in "iuf":
        raise DatasetError(f"{path.name} holds colours or complex values, not one number for each voxel.")
    _check_size(path, image.shape)
    return image


def _shape(image: SpatialImage) -> tuple[int, ...]:
    """Return how many voxels there are along each axis; a fourth one of a single moment of time is none."""
    shape: tuple[int, ...] = image.shape
    return shape[:3] if shape[3:] == (1,) else shape


def _without_ending(path: Path) -> object:
    """Return the NIfTI image of a file that has no ending, as those of a frozen dataset have none."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # Open for as long as the image is: its voxels are read from it later.
    stream = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115
    size = int.from_bytes(stream.read(4), "little")
    stream.seek(0)
    kind = nibabel.Nifti2Image if size in {_NIFTI_2, _NIFTI_2_SWAPPED} else nibabel.Nifti1Image
    found: object = kind.from_stream(stream)
    return found


def _values(path: Path, image: SpatialImage) -> npt.NDArray[Any]:
    try:
        return np.asanyarray(image.dataobj).reshape(_shape(image))
    except (*_NIFTI_ERRORS, MemoryError) as error:
        raise DatasetError(f"{path.name} is cut short or damaged.") from error


def _turned(path: Path, image: SpatialImage) -> tuple[npt.NDArray[Any], Grid]:
    """Return the array as (z, y, x) growing to head, back and left as nearly as whole turns allow, and its grid."""
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DatasetError(f"{path.name} does not say where its voxels lie: its affine cannot be used.")
    wanted = nibabel.orientations.axcodes2ornt(("S", "P", "L"))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    array = nibabel.orientations.apply_orientation(_values(path, image), turn)
    lps = _LPS_TO_RAS @ affine @ nibabel.orientations.inv_ornt_aff(turn, _shape(image))
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    directions = tuple(_three(lps[:3, axis] / steps[axis]) for axis in range(3))
    shape = (array.shape[0], array.shape[1], array.shape[2])
    grid = Grid(shape, _three(steps), _three(lps[:3, 3]), (directions[0], directions[1], directions[2]))
    return array, grid


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


# ---------------------------------------------------------------- labels


def volume_name(value: str) -> str:
    """Return a volume's name without folder and extensions: train_1_a_1.nii.gz and train_1_a_1 are one volume."""
    name = value.strip().replace("\\", "/").rsplit("/", 1)[-1]
    for extension in (".gz", ".nii", ".npz"):
        name = name.removesuffix(extension)
    return name


@dataclass(frozen=True)
class Sheet:
    """A sheet of labels: those of each volume by the names of its columns, and the patients it names by volume."""

    labels: dict[str, dict[str, int]]
    patients: dict[str, str]


def read_sheet(path: Path) -> Sheet:
    """Return what a sheet says of each volume; a cell that is empty or -1 says nothing.

    The first column names the volume; one that is called patient_id names its patient and is no label. Raise
    DatasetError if a volume is there twice with different labels or patients, or a cell is none of 0, 1, -1 and
    nothing; all of them are told.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path.name} cannot be read as a CSV sheet in UTF-8.") from error
    if not rows or len(rows[0]) < 2 or len(set(rows[0])) < len(rows[0]):
        raise DatasetError(f"The first line of {path.name} does not name a volume and its conditions, each once.")
    columns = [name.strip() for name in rows[0][1:]]
    found: dict[str, tuple[dict[str, int], str]] = {}
    problems: list[str] = []
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        labels, wrong = _labels(columns, row[1:])
        name, patient = volume_name(row[0]), dict(zip(columns, row[1:], strict=False)).get(PATIENT, "").strip()
        if wrong or len(row) != len(columns) + 1 or not name:
            problems.append(f"line {line}: {', '.join(wrong) or 'not as many cells as columns, or no name'}")
        elif found.setdefault(name, (labels, patient)) != (labels, patient):
            problems.append(f"line {line}: a second line of its volume, which says something else")
    if problems:
        raise DatasetError(f"{path.name} has {len(problems)} lines that cannot be used.", problems=tuple(problems[:50]))
    return Sheet(
        {name: labels for name, (labels, _) in found.items()},
        {name: patient for name, (_, patient) in found.items() if patient},
    )


def _labels(columns: list[str], cells: list[str]) -> tuple[dict[str, int], list[str]]:
    labels, wrong = {}, []
    for column, cell in zip(columns, cells, strict=False):
        if column == PATIENT:
            continue
        match cell.strip().removesuffix(".0"):
            case "0" | "1" as value:
                labels[column] = int(value)
            case "" | "-1":
                pass
            case _:
                wrong.append(f"{column} is none of 0, 1, -1 and nothing")
    return labels, wrong


def write_labels(path: Path, labels: dict[str, dict[str, int]]) -> None:
    """Write a sheet of labels, a volume in each line; a condition that a volume says nothing of is left empty."""
    columns = list(dict.fromkeys(name for one in labels.values() for name in one))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["VolumeName", *columns])
        writer.writerows([name, *(one.get(column, "") for column in columns)] for name, one in labels.items())


# ---------------------------------------------------------------- reports as JSON


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", str_max_length=20_000)


class ReportSections(_Lenient):
    """The three sections of a report; one that is not there is empty."""

    findings: str = ""
    impression: str = ""
    recommendations: str = ""


class ReportRecord(_Lenient):
    """One report of a training set, as JSON. ``diseases_mentioned`` are words of the set, not yet our conditions."""

    report_id: str = ""
    volume_id: str = Field(min_length=1, max_length=200)
    report_text: str = Field(min_length=1)
    findings_list: tuple[str, ...] = ()
    diseases_mentioned: tuple[str, ...] = ()
    sections: ReportSections = ReportSections()
    metadata: dict[str, Any] = Field(default_factory=dict)


class ReasonedFinding(_Lenient):
    """One finding of a stepwise description."""

    disease: str = Field(min_length=1, max_length=200)
    present: bool = True
    confidence: float | None = Field(default=None, ge=0, le=1)
    location: str = ""


class ReasoningRecord(_Lenient):
    """A stepwise description of one image: what is seen, the steps in words, and a summary."""

    image_id: str = Field(min_length=1, max_length=200)
    image_path: str = ""
    findings: tuple[ReasonedFinding, ...] = ()
    reasoning: str = ""
    summary: str = ""
    generated_by: str = ""
    timestamp: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of ``reasoning`` without their numbers; all of it where it counts none."""
        parts = _STEP.split(self.reasoning)
        return tuple(step for step in (part.strip() for part in parts) if step)


def read_report(path: Path) -> ReportRecord:
    """Return a report. Raise DatasetError if the file is no JSON of that kind."""
    return _record(path, ReportRecord)


def read_reasoning(path: Path) -> ReasoningRecord:
    """Return a stepwise description. Raise DatasetError if the file is no JSON of that kind."""
    return _record(path, ReasoningRecord)


def _record(path: Path, kind: type[Record]) -> Record:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DatasetError(f"{path.name} is larger than the {MAX_JSON_BYTES >> 20} MiB that are read.")
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DatasetError(f"{path.name} cannot be used: {where}: {first['msg']}.") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path.name} cannot be read as JSON in UTF-8.") from error
