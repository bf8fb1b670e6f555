"""Where the slices of a series lie: sorted along their normal, measured, and what is odd about them in words.

Plain arithmetic on headers, in patient coordinates (PS3.3 C.7.6.2.1.1) and mm; no pixel is looked at and nothing is
resampled. What comes from a scanner may be anything, so nothing here raises on a header.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median_low

from clinic_ai.domain import Instance, Vector
from clinic_ai.ingest.stacks import MAX_ORIENTATIONS, Stack, dot, minus, same_orientation, stacks_of, times

POSITION_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even row: positions come with one decimal, and so do both ends."""
POSITION_TOLERANCE_PART = 0.1
"""The same as a part of the spacing, for thin slices: a tenth of a voxel changes no measurement."""
SIDEWAYS_TOLERANCE_MM = 0.1
"""How far a slice may lie beside the normal through the first one: the same rounding, a third of a small pixel."""
DUPLICATE_TOLERANCE_MM = 0.01
"""Slices nearer than this lie in one place: no scanner of people reconstructs closer than ten times that."""
SPACING_TOLERANCE = 1e-3
"""Largest difference of pixel spacings in mm within a stack: half a pixel over 500 columns of 1 mm."""
GAP_FACTOR = 1.5
"""A step of so many medians is a gap: at least half a slice more is missing than is there."""
MAX_LISTED = 5
"""Gaps or duplicates told one by one; of more, their number."""


class Oddity(StrEnum):
    """What can be said of a stack or a series. All but the last two keep a stack from being a regular volume."""

    SCOUT = "scout"
    ONE_SLICE = "one_slice"
    NO_POSITIONS = "no_positions"
    SOME_UNPLACED = "some_unplaced"
    MIXED_ORIENTATION = "mixed_orientation"
    FRAMES_OF_REFERENCE = "frames_of_reference"
    DIFFERENT_SIZES = "different_sizes"
    DIFFERENT_PIXEL_SPACING = "different_pixel_spacing"
    NO_PIXEL_SPACING = "no_pixel_spacing"
    REPEATED_POSITIONS = "repeated_positions"
    DUPLICATE_POSITIONS = "duplicate_positions"
    TILTED = "tilted"
    SHIFTED = "shifted"
    GAP = "gap"
    UNEVEN_SPACING = "uneven_spacing"
    NOMINAL_TILT = "nominal_tilt"
    SEVERAL_STACKS = "several_stacks"


_HARMLESS = frozenset({Oddity.NOMINAL_TILT, Oddity.SEVERAL_STACKS})


@dataclass(frozen=True)
class GeometryRemark:
    """One thing to know about a stack, as part of a sentence: “gap of 10.0 mm after slice 12”."""

    code: Oddity
    words: str

    @property
    def sentence(self) -> str:
        """The words as a sentence of their own."""
        return f"{self.words[:1].upper()}{self.words[1:]}."

    @property
    def harmless(self) -> bool:
        """Whether a stack may be a regular volume all the same."""
        return self.code in _HARMLESS


@dataclass(frozen=True)
class Spacing:
    """Steps between neighbouring places along the normal, in mm; slices in one place count once."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class StackGeometry:
    """A stack measured. ``normal`` is a unit vector, None if no image is placed; ``spacing`` None below two places."""

    stack: Stack
    normal: Vector | None
    spacing: Spacing | None
    remarks: tuple[GeometryRemark, ...]

    @property
    def regular(self) -> bool:
        """Whether the stack is a volume of even voxels."""
        return all(remark.harmless for remark in self.remarks)


@dataclass(frozen=True)
class SeriesGeometry:
    """A series: its stacks, and what is to be said of the whole."""

    series_instance_uid: str
    stacks: tuple[StackGeometry, ...]
    remarks: tuple[GeometryRemark, ...]

    @property
    def regular(self) -> bool:
        """Whether all of it is one volume of even voxels."""
        return len(self.stacks) == 1 and self.stacks[0].regular


@dataclass(frozen=True)
class RegularVolume:
    """A box of voxels; axes are (z, y, x) = (slice, row, column), lengths in mm.

    Voxel (k, j, i) lies at
    ``origin + k·spacing[0]·directions[0] + j·spacing[1]·directions[1] + i·spacing[2]·directions[2]``.
    ``slices`` are (SHA-256 of the object, frame from 0), in the order of k.
    """

    slices: tuple[tuple[str, int], ...]
    spacing: Vector
    origin: Vector
    directions: tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class NoVolume:
    """Why a stack is no regular volume: the code of the first reason, and all of them in a sentence."""

    code: str
    sentence: str


# ---------------------------------------------------------------- measuring


def describe_series(instances: Iterable[Instance]) -> SeriesGeometry:
    """Return the geometry of one series. Raise ValueError if the instances are of several, or of none."""
    (found,) = describe_study(instances)
    return found


def describe_study(instances: Iterable[Instance]) -> tuple[SeriesGeometry, ...]:
    """Return the geometry of each series that has images, by series number."""
    series: dict[str, list[StackGeometry]] = {}
    for stack in stacks_of(instances):
        series.setdefault(stack.series_instance_uid, []).append(measure(stack))
    return tuple(SeriesGeometry(uid, tuple(stacks), _of_series(stacks)) for uid, stacks in series.items())


def _of_series(stacks: Sequence[StackGeometry]) -> tuple[GeometryRemark, ...]:
    remarks = []
    scouts = sum(found.stack.images for found in stacks if found.stack.scout)
    orientations = sum(found.stack.placed and not found.stack.scout for found in stacks)
    if scouts:
        remarks.append(
            GeometryRemark(Oddity.SCOUT, f"{counted(scouts, 'image')} of the series only for planning (scout)")
        )
    if orientations > 1:
        words = f"slices of {orientations} orientations in one series, each a stack of its own"
        remarks.append(GeometryRemark(Oddity.MIXED_ORIENTATION, words))
    if len(stacks) > 1:
        remarks.append(GeometryRemark(Oddity.SEVERAL_STACKS, f"{len(stacks)} stacks in one series"))
    return tuple(remarks)


def measure(stack: Stack, *, tolerance_mm: float | None = None) -> StackGeometry:
    """Return normal, spacing and everything odd of a stack.

    ``tolerance_mm`` is how far a slice may lie from its place in an even row; None for our own tolerances.
    """
    if not stack.placed:
        return StackGeometry(stack, None, None, (_unplaced(stack),))
    normal = stack.planes[0].normal
    remarks = [*_of_kind(stack), *_of_images(stack)]
    positions = [plane.position or (0.0, 0.0, 0.0) for plane in stack.planes]
    along = [dot(normal, minus(position, positions[0])) for position in positions]
    places = [0, *(at + 1 for at, (low, high) in enumerate(pairwise(along)) if high - low >= DUPLICATE_TOLERANCE_MM)]
    remarks += _of_duplicates(stack, places)
    spacing = None
    if len(places) > 1:
        steps = [along[high] - along[low] for low, high in pairwise(places)]
        spacing = Spacing(median_low(steps), min(steps), max(steps))
        remarks += _of_steps(stack, places, steps, tolerance_mm)
    remarks += _sideways(stack, normal, positions, along)
    return StackGeometry(stack, normal, spacing, tuple(remarks))


def _unplaced(stack: Stack) -> GeometryRemark:
    if stack.scout:
        return GeometryRemark(Oddity.SCOUT, "a scout, only for planning")
    what = "frame" if any(plane.images > 1 for plane in stack.planes) else "image"
    return GeometryRemark(Oddity.NO_POSITIONS, f"it is not known where each {what} lies")


def _of_kind(stack: Stack) -> Iterable[GeometryRemark]:
    if stack.scout:
        yield GeometryRemark(Oddity.SCOUT, "a scout, only for planning")
    elif len(stack.planes) == 1:
        yield GeometryRemark(Oddity.ONE_SLICE, "one slice is no volume")
    if stack.unplaced:
        more = "lies" if stack.unplaced == 1 else "lie"
        words = f"{counted(stack.unplaced, 'more image')} of the series {more} at an unknown place"
        yield GeometryRemark(Oddity.SOME_UNPLACED, words)


def _of_images(stack: Stack) -> Iterable[GeometryRemark]:
    """Yield what keeps slices from being one volume wherever they lie."""
    first = stack.planes[0].orientation
    if first is None or not all(same_orientation(first, plane.orientation or first) for plane in stack.planes):
        yield GeometryRemark(Oddity.MIXED_ORIENTATION, f"more than {MAX_ORIENTATIONS} orientations in one series")
    headers = [plane.header for plane in stack.planes]
    geometries = [header.geometry for header in headers if header.geometry is not None]
    references = {geometry.frame_of_reference_uid for geometry in geometries} - {""}
    if len(references) > 1:
        words = f"{len(references)} frames of reference, whose positions cannot be compared"
        yield GeometryRemark(Oddity.FRAMES_OF_REFERENCE, words)
    if len(sizes := {(header.rows, header.columns) for header in headers}) > 1:
        shown = ", ".join(f"{rows} × {columns}" for rows, columns in sorted(sizes)[:MAX_LISTED])
        yield GeometryRemark(Oddity.DIFFERENT_SIZES, f"images of different sizes ({shown} pixels)")
    spacings = [geometry.pixel_spacing for geometry in geometries if geometry.pixel_spacing is not None]
    if len(spacings) < len(headers):
        yield GeometryRemark(Oddity.NO_PIXEL_SPACING, "the size of a pixel is not known")
    elif any(max(axis) - min(axis) > SPACING_TOLERANCE for axis in zip(*spacings, strict=True)):
        yield GeometryRemark(Oddity.DIFFERENT_PIXEL_SPACING, "pixels of different sizes")


def _of_duplicates(stack: Stack, places: Sequence[int]) -> list[GeometryRemark]:
    """Return what is to be said of slices in one place; ``places`` holds the first slice of each place."""
    counts = [end - start for start, end in pairwise((*places, len(stack.planes)))]
    if max(counts) == 1:
        return []
    if len(places) > 1 and min(counts) == max(counts):
        words = f"{counts[0]} images in each of {len(places)} places (phases, echoes, or a repetition)"
        return [GeometryRemark(Oddity.REPEATED_POSITIONS, words)]
    several = [(start, count) for start, count in zip(places, counts, strict=True) if count > 1]
    remarks = [
        GeometryRemark(
            Oddity.DUPLICATE_POSITIONS,
            f"slices {start + 1} {'and' if count == 2 else 'to'} {start + count} lie in the same place",
        )
        for start, count in several[:MAX_LISTED]
    ]
    if len(several) > MAX_LISTED:
        words = f"{len(several) - MAX_LISTED} more places hold several slices"
        remarks.append(GeometryRemark(Oddity.DUPLICATE_POSITIONS, words))
    return remarks


def _of_steps(
    stack: Stack, places: Sequence[int], steps: Sequence[float], tolerance_mm: float | None
) -> list[GeometryRemark]:
    """Return gaps and unevenness; ``steps`` are the distances between ``places`` in mm."""
    usual = median_low(steps)
    if tolerance_mm is None:
        tolerance_mm = min(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_PART * usual)
    gaps = [at for at, step in enumerate(steps) if step > GAP_FACTOR * usual]
    if len(gaps) > max(1, len(steps) // 4):
        gaps = []  # so many are no gaps in a row, but no row
    rest = [step for at, step in enumerate(steps) if at not in set(gaps)]
    remarks = [
        GeometryRemark(Oddity.GAP, f"gap of {millimetres(steps[at])} after slice {_slice(stack, places[at + 1] - 1)}")
        for at in gaps[:MAX_LISTED]
    ]
    if len(gaps) > MAX_LISTED:
        remarks.append(GeometryRemark(Oddity.GAP, f"{len(gaps) - MAX_LISTED} more gaps"))
    if _off_row(rest) > tolerance_mm or (not gaps and max(steps) > GAP_FACTOR * usual):
        words = f"uneven spacing, {millimetres(min(rest))} to {millimetres(max(rest))}"
        remarks.append(GeometryRemark(Oddity.UNEVEN_SPACING, words))
    return remarks


def _off_row(steps: Sequence[float]) -> float:
    """Return how far the ends of ``steps``, put one after the other, lie from an even row; in mm."""
    even, here, off = math.fsum(steps) / len(steps), 0.0, 0.0
    for number, step in enumerate(steps, 1):
        here += step
        off = max(off, abs(here - number * even))
    return off


def _sideways(
    stack: Stack, normal: Vector, positions: Sequence[Vector], along: Sequence[float]
) -> Iterable[GeometryRemark]:
    """Yield whether slices lie beside the normal through the first one, as with a tilted gantry."""
    aside = [
        minus(minus(position, positions[0]), times(distance, normal))
        for position, distance in zip(positions, along, strict=True)
    ]
    if max(math.hypot(*offset) for offset in aside) > SIDEWAYS_TOLERANCE_MM:
        slope = times(1 / along[-1], aside[-1]) if along[-1] >= DUPLICATE_TOLERANCE_MM else (0.0, 0.0, 0.0)
        off = (
            math.hypot(*minus(offset, times(distance, slope))) for offset, distance in zip(aside, along, strict=True)
        )
        if max(off) > SIDEWAYS_TOLERANCE_MM:
            yield GeometryRemark(Oddity.SHIFTED, "slices shifted sideways against each other")
        else:
            degrees = math.degrees(math.atan(math.hypot(*slope)))
            yield GeometryRemark(Oddity.TILTED, f"tilted by {degrees:.1f} degrees")
        return
    geometry = stack.planes[0].header.geometry
    tilt = (geometry.gantry_detector_tilt if geometry else None) or 0.0
    if abs(tilt) >= 0.05 and len(stack.planes) > 1:
        words = f"the header names a gantry tilt of {tilt:.1f} degrees, the positions show none"
        yield GeometryRemark(Oddity.NOMINAL_TILT, words)


# ---------------------------------------------------------------- volumes


def regular_volume(stack: Stack, *, tolerance_mm: float | None = None) -> RegularVolume | NoVolume:
    """Return a stack as a box of voxels, or why it is none; nothing is resampled.

    ``tolerance_mm`` is how far a slice may lie from its place in an even row; None for our own tolerances.
    """
    return volume_of(measure(stack, tolerance_mm=tolerance_mm))


def volume_of(found: StackGeometry) -> RegularVolume | NoVolume:
    """Return a measured stack as a box of voxels, or why it is none."""
    reasons = [remark for remark in found.remarks if not remark.harmless]
    planes, normal = found.stack.planes, found.normal
    geometry, position, orientation = planes[0].header.geometry, planes[0].position, planes[0].orientation
    spacing = geometry.pixel_spacing if geometry else None
    if reasons or normal is None or position is None or orientation is None or spacing is None:
        sentence = "; ".join(reason.words for reason in reasons)
        return NoVolume(reasons[0].code.value, f"This is no regular volume: {sentence}.")
    last = planes[-1].position or position
    step = dot(normal, minus(last, position)) / (len(planes) - 1)
    return RegularVolume(
        slices=tuple((plane.sha256, plane.frame) for plane in planes),
        spacing=(step, *spacing),
        origin=position,
        directions=(normal, orientation[3:], orientation[:3]),
    )


# ---------------------------------------------------------------- words


def millimetres(length: float) -> str:
    """Return a length in words, to the micrometre and with one decimal at least: “5.0 mm”, “0.625 mm”."""
    whole, _, decimals = f"{length:.3f}".partition(".")
    return f"{whole}.{decimals[0]}{decimals[1:].rstrip('0')} mm"


def counted(number: int, what: str) -> str:
    """Return a number of things: “1 image”, “2 images”."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _slice(stack: Stack, at: int) -> str:
    """Return the number of a slice along the normal from 1, with the numbers the scanner gave it and the next one."""
    pair = [plane.header.instance_number for plane in stack.planes[at : at + 2]]
    if None in pair or any(plane.header.frames > 1 for plane in stack.planes[at : at + 2]):
        return f"{at + 1}"
    return f"{at + 1} (between images {pair[0]} and {pair[1]})"
