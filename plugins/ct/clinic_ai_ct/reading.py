"""From the slices of a series to Hounsfield units on a grid, to the grid of a network, and back with masks.

A stack is read as the geometry of ingest has ordered it; its axes may then be turned (``canonical``), which moves
voxels and changes none, and it may be resampled, which is said in its remarks.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from scipy import sparse

from clinic_ai.contract import AnalysisTask, TaskImage, VolumeInfo
from clinic_ai.domain import Vector
from clinic_ai.errors import InputError
from clinic_ai.ml.dicom_pixels import Pipeline, decode_frame, read_dataset
from clinic_ai.ml.greys import check_frame_size
from clinic_ai_ct.volume import HU, LPS_DIRECTIONS, OUTSIDE_HU, Bits, Grid, Volume

MAX_VOXELS = 2**29
"""Largest stack that is read, 1 GiB of HU: 2,048 slices of 512 × 512."""
_UPRIGHT = 1e-3
"""Largest difference of a cosine between directions that count as the same."""


@dataclass(frozen=True)
class Acquisition:
    """What the headers of a stack say beside its geometry; None is what they do not say.

    ``contrast`` is whether a contrast agent was given, ``lossy_ratio`` by how much the pixels were compressed with loss
    (1 if the ratio is not said), ``units`` the rescale types that are not HU.
    """

    contrast: bool | None = None
    lossy_ratio: float | None = None
    units: tuple[str, ...] = ()
    rescaled: bool = True
    """Whether every slice says how stored values become HU."""


@dataclass(frozen=True)
class Reading:
    """A stack as it was read, and what its headers say."""

    volume: Volume
    acquisition: Acquisition


# ---------------------------------------------------------------- reading


def read_stack(task: AnalysisTask, info: VolumeInfo) -> Volume:
    """Return a regular stack of the task in HU, in the order of its slices and on the grid of ingest; see ``read``."""
    return read(task, info).volume


def read(task: AnalysisTask, info: VolumeInfo) -> Reading:
    """Return a regular stack of the task in HU with what its headers say; nothing is resampled.

    Values are rounded to whole HU and limited to 16 bits; pixels outside the field of view are ``OUTSIDE_HU``. Raise
    InputError if the stack is not regular, too large, or one of its images cannot be read, decoded or compared.
    """
    if info.spacing is None or info.origin is None or info.directions is None:
        raise InputError("irregular_volume", info.reason or "These slices are no regular volume.")
    images = {image.sha256: image for image in task.images}
    if missing := sum(one.sha256 not in images for one in info.slices):
        raise InputError("missing_slices", f"{missing} slices of the volume are not among the images of the study.")
    header = images[info.slices[0].sha256].header
    shape = (len(info.slices), header.rows, header.columns)
    check_frame_size(header.rows, header.columns)
    if math.prod(shape) > MAX_VOXELS:
        raise InputError(
            "volume_too_large",
            f"The volume has {shape[0]} slices of {shape[1]} × {shape[2]} pixels, more than are read at once.",
            remedy="Send a reconstruction with fewer or thicker slices.",
        )
    hu = np.empty(shape, dtype=np.int16)
    gathered = _Gathered()
    for k, dataset, frame in _frames(images, info):
        hu[k] = _slice(dataset, frame, shape[1:])
        gathered.add(dataset)
    return Reading(Volume(hu, Grid(shape, info.spacing, info.origin, info.directions)), gathered.acquisition())


def _frames(images: dict[str, TaskImage], info: VolumeInfo) -> Iterator[tuple[int, Dataset, int]]:
    """Yield place, data set and frame of each slice; one file of many frames is opened once as long as it lasts."""
    last: tuple[str, Dataset] | None = None
    for k, one in enumerate(info.slices):
        if last is None or last[0] != one.sha256:
            last = one.sha256, read_dataset(Path(images[one.sha256].path))
        yield k, last[1], one.frame


def _slice(dataset: Dataset, frame: int, shape: tuple[int, int]) -> HU:
    stored = decode_frame(dataset, frame)
    if stored.ndim != 2:
        raise InputError("colour_picture", "A slice is a colour picture; CT is grey.")
    if stored.shape != shape:
        raise InputError("different_sizes", "The slices of the series are of different sizes.")
    values = Pipeline(dataset, frame).values(stored, 1)
    pixels = values.pixels
    if values.inside is not None:
        pixels[~values.inside] = OUTSIDE_HU
    limits = np.iinfo(np.int16)
    np.rint(pixels, out=pixels)
    np.clip(pixels, limits.min, limits.max, out=pixels)
    result: HU = pixels.astype(np.int16)
    return result


_NO_AGENT = re.compile(r"(NO|NONE|NIL|NATIV\w*|WITHOUT|W/O|WO|OHNE|KEIN\w*|SANS|UNENHANCED)\b|NON[ -]?CONTRAST")
_UNSAID = re.compile(r"N/?A\.?|UNKNOWN|UNSPECIFIED|NOT SPECIFIED|[-?.0 ]*")
"""What people and scanners write for the contrast agent where none was given, or where they do not say."""


class _Gathered:
    """What the headers of the slices say, one after the other."""

    def __init__(self) -> None:
        self._agents: set[str] = set()
        self._ratios: list[float] = []
        self._units: set[str] = set()
        self._rescaled = True

    def add(self, dataset: Dataset) -> None:
        agent = _word(dataset.get("ContrastBolusAgent"))
        several = "ContrastBolusAgentSequence" in dataset  # of an enhanced object
        self._agents.add(agent or ("SEVERAL" if several else ""))
        if _word(dataset.get("LossyImageCompression")) == "01":
            self._ratios.append(_ratio(dataset))
        kind = _word(dataset.get("RescaleType"))
        if kind not in ("", "HU"):
            self._units.add(kind[:16])
        self._rescaled &= "PerFrameFunctionalGroupsSequence" in dataset or "RescaleSlope" in dataset

    def acquisition(self) -> Acquisition:
        given = {agent for agent in self._agents if not _UNSAID.fullmatch(agent)}
        contrast = any(not _NO_AGENT.match(agent) for agent in given) if given else None
        ratio = max(self._ratios) if self._ratios else None
        return Acquisition(contrast, ratio, tuple(sorted(self._units)), self._rescaled)


def _word(value: object) -> str:
    return "" if value is None else str(value).strip().upper()


def _ratio(dataset: Dataset) -> float:
    value = dataset.get("LossyImageCompressionRatio")
    try:
        ratios = [float(one) for one in (value if isinstance(value, Sequence) else [value])]  # one for each compression
    except (TypeError, ValueError):
        return 1.0
    whole = math.prod(ratios)
    return whole if ratios and math.isfinite(whole) and whole >= 1 else 1.0


# ---------------------------------------------------------------- turning


def canonical(volume: Volume) -> Volume:
    """Return the volume with its axes turned and mirrored so that they run as near as may be to head, back and left.

    No value changes. A stack of sagittal or coronal slices is turned like any other.
    """
    order, signs = turns(volume.grid)
    grid = turned_grid(volume.grid, order, signs)
    if order == (0, 1, 2) and signs == (1, 1, 1):
        return volume
    hu = volume.hu.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return Volume(np.ascontiguousarray(hu), grid, volume.remarks)


def turns(grid: Grid) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return which axis of the grid runs nearest to head, back and left, and whether forwards (1) or backwards (-1)."""
    cosines = np.array(LPS_DIRECTIONS) @ np.array(grid.directions).T
    orders = list(itertools.permutations(range(3)))
    best = max(orders, key=lambda order: sum(abs(cosines[row, axis]) for row, axis in enumerate(order)))
    signs = [1 if cosines[row, axis] >= 0 else -1 for row, axis in enumerate(best)]
    return (best[0], best[1], best[2]), (signs[0], signs[1], signs[2])


def turned_grid(grid: Grid, order: tuple[int, int, int], signs: tuple[int, int, int]) -> Grid:
    """Return the grid whose axes are those of ``order``, run through backwards where the sign is -1."""
    origin = np.array(grid.origin)
    directions = []
    for axis, sign in zip(order, signs, strict=True):
        direction = np.array(grid.directions[axis])
        if sign < 0:
            origin = origin + direction * grid.spacing[axis] * (grid.shape[axis] - 1)
        directions.append(_vector(direction * sign))
    shape = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    spacing = (grid.spacing[order[0]], grid.spacing[order[1]], grid.spacing[order[2]])
    return Grid(shape, spacing, _vector(origin), (directions[0], directions[1], directions[2]))


def _vector(values: npt.NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) + 0.0 for value in values)  # no negative zeros
    return x, y, z


# ---------------------------------------------------------------- resampling


def resampled(
    volume: Volume,
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int] | None = None,
    about: Vector | None = None,
) -> Volume:
    """Return the volume on a grid of ``spacing`` (z, y, x) in mm along its own axes, and say so in its remarks.

    Where voxels get larger each is the mean of what it covers, where they get smaller they are interpolated; both
    linearly. The new grid is centred on the volume, or on ``about`` (LPS, mm); without ``shape`` it is as large as the
    volume. What lies outside the volume is ``OUTSIDE_HU``.
    """
    grid = volume.grid
    extent = [count * step for count, step in zip(grid.shape, grid.spacing, strict=True)]
    counts = shape or tuple(max(1, round(length / step)) for length, step in zip(extent, spacing, strict=True))
    centre = _centre(grid) if about is None else _indices(grid, about)
    firsts = [
        (middle * old - (count - 1) / 2 * new) / old
        for middle, old, count, new in zip(centre, grid.spacing, counts, spacing, strict=True)
    ]
    new = _grid_from(grid, firsts, spacing, (counts[0], counts[1], counts[2]))
    if np.allclose(new.affine(), grid.affine(), atol=1e-6) and new.shape == grid.shape:
        return volume
    weights = [
        _weights(old, count, first, step / base)
        for old, count, first, step, base in zip(grid.shape, new.shape, firsts, new.spacing, grid.spacing, strict=True)
    ]
    return Volume(_apply(volume.hu, weights), new, (*volume.remarks, _said(grid, new)))


def _centre(grid: Grid) -> tuple[float, float, float]:
    z, y, x = ((count - 1) / 2 for count in grid.shape)
    return z, y, x


def _indices(grid: Grid, place: Vector) -> tuple[float, float, float]:
    """Return the (k, j, i), not whole, of a place in mm."""
    z, y, x = np.linalg.solve(grid.affine(), np.array([*place, 1.0]))[:3]
    return float(z), float(y), float(x)


def _grid_from(
    grid: Grid, firsts: Sequence[float], spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> Grid:
    origin = grid.affine() @ np.array([*firsts, 1.0])
    return Grid(shape, spacing, _vector(origin[:3]), grid.directions)


def _weights(old: int, count: int, first: float, step: float) -> sparse.csr_array:
    """Return (count, old) weights of a triangle, its half width a step but at least one old voxel; rows sum to 1.

    A row whose middle lies outside the old voxels is empty.
    """
    half = max(1.0, step)
    middles = first + step * np.arange(count)
    reach = math.ceil(half)
    columns = np.floor(middles)[:, None].astype(int) + np.arange(-reach, reach + 2)
    values = np.clip(1.0 - np.abs(columns - middles[:, None]) / half, 0.0, None)
    values[(columns < 0) | (columns >= old)] = 0.0
    values[(middles < -0.5) | (middles > old - 0.5)] = 0.0
    totals = values.sum(axis=1, keepdims=True)
    values = np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)
    rows = np.broadcast_to(np.arange(count)[:, None], columns.shape)
    kept = values > 0
    entries = (values[kept].astype(np.float32), (rows[kept], columns[kept]))
    return sparse.csr_array(entries, shape=(count, old))


def _apply(hu: HU, weights: Sequence[sparse.csr_array]) -> HU:
    """Return the values weighted along each axis; one slice at a time, so that no copy in floats is made of all."""
    along, down, across = weights
    planes = np.empty((hu.shape[0], down.shape[0], across.shape[0]), dtype=np.float32)
    for k, plane in enumerate(hu):
        planes[k] = across.dot(down.dot(plane.astype(np.float32) - OUTSIDE_HU).T).T
    whole = along.dot(planes.reshape(len(planes), -1)).reshape(along.shape[0], *planes.shape[1:])
    result: HU = np.rint(whole + OUTSIDE_HU).astype(np.int16)
    return result


def _said(old: Grid, new: Grid) -> str:
    before, after = _voxels(old), _voxels(new)
    if before == after:
        sentence = f"The volume was moved onto another grid of the same voxels ({after})."
    else:
        sentence = f"The volume was resampled from voxels of {before} to {after} (slice × row × column)."
    left_out = [
        max(0.0, a * b - c * d) for a, b, c, d in zip(old.shape, old.spacing, new.shape, new.spacing, strict=True)
    ]
    if max(left_out) > max(new.spacing):
        sentence += f" Up to {max(left_out):.0f} mm at its edges lie outside what the model sees."
    return sentence


# ---------------------------------------------------------------- masks back onto the slices


def to_source(masks: Bits, network_grid: Grid, source_grid: Grid) -> Bits:
    """Return masks (S, D, H, W) of one grid on the voxels of another: each takes the value of the nearest old voxel.

    Where grids have the same voxels, turned or not, masks come back as they were. What lies more than half a voxel
    outside the old grid is false. Give segments one at a time where memory matters.
    """
    step = np.linalg.solve(network_grid.affine(), source_grid.affine())
    result = np.zeros((len(masks), *source_grid.shape), dtype=np.bool_)
    order = [int(np.argmax(np.abs(step[:3, axis]))) for axis in range(3)]
    upright = np.zeros((3, 3))
    for axis, row in enumerate(order):
        upright[row, axis] = step[row, axis]
    if sorted(order) == [0, 1, 2] and np.allclose(step[:3, :3], upright, atol=_UPRIGHT / max(source_grid.shape)):
        return _by_axes(masks, step, order, result)
    return _by_planes(masks, step, result)


def _by_axes(masks: Bits, step: npt.NDArray[np.floating[Any]], order: Sequence[int], result: Bits) -> Bits:
    """Map axis by axis: row ``order[axis]`` of ``step`` depends on this axis of the new grid only.

    The last axis is mapped first, while the array is small; of the others whole rows and planes are copied.
    """
    part = masks.transpose(0, *(row + 1 for row in order))
    inside: list[slice] = []
    for axis in (2, 1, 0):
        row = order[axis]
        index = _nearest(step[row, axis] * np.arange(result.shape[axis + 1]) + step[row, 3])
        fits = np.flatnonzero((index >= 0) & (index < masks.shape[row + 1]))
        part = np.take(part, index[fits], axis=axis + 1)
        inside.insert(0, slice(fits[0], fits[-1] + 1) if len(fits) else slice(0))  # they follow on each other
    result[:, inside[0], inside[1], inside[2]] = part
    return result


def _by_planes(masks: Bits, step: npt.NDArray[np.floating[Any]], result: Bits) -> Bits:
    """Map voxel by voxel, one slice of the new grid at a time: the grids lie askew."""
    j, i = np.meshgrid(np.arange(result.shape[2]), np.arange(result.shape[3]), indexing="ij")
    for k in range(result.shape[1]):
        index = [_nearest(row[0] * k + row[1] * j + row[2] * i + row[3]) for row in step[:3]]
        fits = np.ones(j.shape, dtype=np.bool_)
        for axis, place in enumerate(index):
            fits &= (place >= 0) & (place < masks.shape[axis + 1])
        result[:, k, fits] = masks[:, index[0][fits], index[1][fits], index[2][fits]]
    return result


def _nearest(places: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    index: npt.NDArray[np.int64] = np.floor(places + (0.5 + 1e-9)).astype(np.int64)
    return index


def _voxels(grid: Grid) -> str:
    """Return what voxels measure; in a row of equal numbers a guard would see a model that repeats itself."""
    steps = [f"{step:.3g}" for step in grid.spacing]
    return f"{steps[0]} mm on every side" if len(set(steps)) == 1 else f"{' × '.join(steps)} mm"
