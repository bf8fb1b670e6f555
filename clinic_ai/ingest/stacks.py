"""Images of a study sorted into stacks: by series, scouts apart, one orientation each, along the normal.

Plain arithmetic on headers, in patient coordinates (PS3.3 C.7.6.2.1.1) and mm. What a scanner wrote may be anything,
so nothing here raises on a header.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul, sub
from typing import cast

from clinic_ai.domain import Cosines, Instance, InstanceHeader, Vector

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of any cosine within a stack: 0.3 mm at the edge of a field of 300 mm, less than a pixel there."""
MAX_ORIENTATIONS = 64
"""A series of more orientations (radial slices, an attack) is sorted into so many stacks and a rest."""

_SCOUTS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW")
_NOWHERE: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Plane:
    """One image in the patient: an instance, or its frame number ``frame`` from 0.

    ``images`` is above 1 for a multi-frame object that does not say where its frames lie; it then stands for all.
    """

    sha256: str
    frame: int
    images: int
    header: InstanceHeader
    position: Vector | None = None
    orientation: Cosines | None = None

    @property
    def placed(self) -> bool:
        """Whether it is known where it lies."""
        return self.position is not None and self.orientation is not None

    @property
    def normal(self) -> Vector:
        """The unit vector on it; (0, 0, 0) if its orientation is not known."""
        return _NOWHERE if self.orientation is None else normal_of(self.orientation)

    @property
    def scout(self) -> bool:
        """Whether it is a projection or survey that slices are planned on (PS3.3 C.8.2.1.1.1)."""
        types = self.header.geometry.image_type if self.header.geometry else ()
        return any(word in code for code in types for word in _SCOUTS)


@dataclass(frozen=True)
class Stack:
    """Images of one series that belong together: of one orientation, along their normal, lowest first.

    ``scout`` and ``placed`` hold for all of them. ``unplaced`` counts images of the series that lie nobody knows where.
    """

    series_instance_uid: str
    planes: tuple[Plane, ...]
    scout: bool
    placed: bool
    unplaced: int = 0

    @property
    def images(self) -> int:
        """Number of images, frames included."""
        return sum(plane.images for plane in self.planes)


# ---------------------------------------------------------------- what belongs together


def stacks_of(instances: Iterable[Instance]) -> tuple[Stack, ...]:
    """Return the stacks of all images by series number; the order of ``instances`` does not matter."""
    series: dict[str, list[Plane]] = {}
    for instance in instances:
        series.setdefault(instance.header.series_instance_uid, []).extend(_planes(instance))
    stacks = [stack for uid, planes in series.items() for stack in _split(uid, planes)]
    return tuple(sorted(stacks, key=_stack_order))


def _planes(instance: Instance) -> list[Plane]:
    header, sha256 = instance.header, instance.sha256
    geometry = header.geometry
    if not header.frames:
        return []
    if geometry is None or (header.frames > 1 and len(geometry.frames) != header.frames):
        return [Plane(sha256, 0, header.frames, header)]
    position, orientation = geometry.image_position_patient, geometry.image_orientation_patient
    if not geometry.frames:
        return [_plane(sha256, 0, header, position, orientation)]
    return [
        _plane(
            sha256,
            number,
            header,
            frame.image_position_patient or position,
            frame.image_orientation_patient or orientation,
        )
        for number, frame in enumerate(geometry.frames[: header.frames])
    ]


def _plane(
    sha256: str, frame: int, header: InstanceHeader, position: Vector | None, orientation: Cosines | None
) -> Plane:
    usable = orientation is not None and normal_of(orientation) != _NOWHERE
    return Plane(sha256, frame, 1, header, position, orientation if usable else None)


def _split(series_instance_uid: str, planes: list[Plane]) -> list[Stack]:
    planes = sorted(planes, key=lambda plane: (plane.sha256, plane.frame))  # whatever the order they came in
    unplaced = [plane for plane in planes if not plane.placed]
    slices = [plane for plane in unplaced if not plane.scout]
    missing = sum(plane.images for plane in slices)
    stacks = [
        Stack(series_instance_uid, tuple(sorted(group, key=_number)), scout=scout, placed=False)
        for scout, group in ((True, [plane for plane in unplaced if plane.scout]), (False, slices))
        if group
    ]
    for scout in (True, False):
        for group in _by_orientation([plane for plane in planes if plane.placed and plane.scout is scout]):
            ordered = tuple(_along_normal(group))
            stacks.append(
                Stack(series_instance_uid, ordered, scout=scout, placed=True, unplaced=0 if scout else missing)
            )
    return stacks


def _by_orientation(planes: Iterable[Plane]) -> list[list[Plane]]:
    groups: list[tuple[Cosines, list[Plane]]] = []
    for plane in planes:
        cosines = plane.orientation or (0.0,) * 6
        for first, group in groups:
            if same_orientation(first, cosines) or (len(groups) > MAX_ORIENTATIONS and group is groups[-1][1]):
                group.append(plane)
                break
        else:
            groups.append((cosines, [plane]))
    return [group for _, group in groups]


def same_orientation(one: Cosines, other: Cosines) -> bool:
    """Return whether two orientations are the same within ``ORIENTATION_TOLERANCE``."""
    return all(abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(one, other, strict=True))


def _along_normal(planes: Sequence[Plane]) -> list[Plane]:
    normal = planes[0].normal
    return sorted(planes, key=lambda plane: (dot(normal, plane.position or _NOWHERE), *_number(plane)))


def _number(plane: Plane) -> tuple[float, str, int]:
    number = plane.header.instance_number
    return (math.inf if number is None else number, plane.sha256, plane.frame)


def _stack_order(stack: Stack) -> tuple[float, str, tuple[float, str, int]]:
    number = stack.planes[0].header.series_number
    return (math.inf if number is None else number, stack.series_instance_uid, min(map(_number, stack.planes)))


# ---------------------------------------------------------------- vectors


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the scalar product."""
    return math.fsum(map(mul, one, other))


def minus(one: Vector, other: Vector) -> Vector:
    """Return the difference."""
    return cast("Vector", tuple(map(sub, one, other)))


def times(factor: float, vector: Vector) -> Vector:
    """Return the vector made so many times as long."""
    return (factor * vector[0], factor * vector[1], factor * vector[2])


def normal_of(orientation: Cosines) -> Vector:
    """Return the unit vector on a plane, along a row × down a column; nothing (0, 0, 0) if they span no plane."""
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    crossed = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*crossed)
    return times(1 / length, crossed) if length > 0.5 else _NOWHERE
