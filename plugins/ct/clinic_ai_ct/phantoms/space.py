"""The paper the phantoms are drawn on: coordinates of every voxel in the patient, soft edges, tubes and clouds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clinic_ai_ct.volume import Grid

Field = npt.NDArray[np.floating[Any]]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
"""(x, y, z) in mm: x to the patient's left, y to the back, z to the head; 0 near the carina."""

WHOLE: Box = (slice(None), slice(None), slice(None))
_SHARPEST_MM = 1.2
"""Width of an edge in a reconstruction, however small its voxels are."""


class Space:
    """Coordinates (x, y, z) in mm of the voxels (D, H, W) of an upright grid, for a patient who lies a little askew.

    The patient's own coordinates are those of the grid's middle turned by ``turns`` (about z, y, x; degrees) and moved.
    """

    def __init__(self, grid: Grid, turns: Point = (0.0, 0.0, 0.0), moved: Point = (0.0, 0.0, 0.0)) -> None:
        self.grid = grid
        self.edge = max(_SHARPEST_MM, (grid.spacing[1] + grid.spacing[2]) / 2)
        self._turn = _rotation(turns)
        self._moved = np.array(moved)
        axes = [
            (np.arange(count, dtype=np.float32) - (count - 1) / 2) * step
            for count, step in zip(grid.shape, grid.spacing, strict=True)
        ]
        z, y, x = axes[0][:, None, None], axes[1][:, None], axes[2]
        turn, move = self._turn.astype(np.float32), np.array(moved, dtype=np.float32)
        self.x, self.y, self.z = (
            np.asarray(row[0] * x + row[1] * y + row[2] * z - shift, dtype=np.float32)
            for row, shift in zip(turn, move, strict=True)
        )

    def box(self, ends: Sequence[Point], margin: float) -> Box:
        """Return the smallest box of voxels that holds all ``ends`` and ``margin`` mm around them; it may be empty."""
        places = (np.array(ends) + self._moved) @ self._turn  # the inverse of a rotation is its transpose
        low, high = (places.min(axis=0) - margin)[::-1], (places.max(axis=0) + margin)[::-1]
        counts, steps = np.array(self.grid.shape), np.array(self.grid.spacing)
        first = np.clip(np.floor(low / steps + (counts - 1) / 2), 0, counts).astype(int)
        last = np.clip(np.ceil(high / steps + (counts - 1) / 2) + 1, first, counts).astype(int)
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])

    def place(self, voxel: Sequence[int]) -> Point:
        """Return where a voxel (k, j, i) lies, in the patient's coordinates."""
        k, j, i = voxel
        return float(self.x[k, j, i]), float(self.y[k, j, i]), float(self.z[k, j, i])

    def ball(self, centre: Point, radii: float | Point, box: Box = WHOLE) -> Field:
        """Return about how many mm each voxel of the box lies outside an ellipsoid along the axes; negative inside."""
        radii = (radii, radii, radii) if isinstance(radii, float | int) else radii
        x, y, z = self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2]
        return beyond(x, y, z, radii)

    def tube(self, start: Point, end: Point, radii: tuple[float, float], box: Box) -> Field:
        """Return how many mm each voxel of the box lies outside a tube whose radius goes from one to the other."""
        along = np.array(end) - np.array(start)
        length = float(along @ along) or 1.0
        x, y, z = self.x[box] - start[0], self.y[box] - start[1], self.z[box] - start[2]
        share = np.clip((x * along[0] + y * along[1] + z * along[2]) / length, 0.0, 1.0)
        x, y, z = x - share * along[0], y - share * along[1], z - share * along[2]
        radius = radii[0] + (radii[1] - radii[0]) * share
        distance: Field = (np.sqrt(x * x + y * y + z * z) - radius).astype(np.float32)
        return distance

    def tubes(self, points: Sequence[Point], radii: Sequence[float]) -> list[tuple[Box, Field]]:
        """Return box and distance for each piece of a tube through ``points``."""
        pieces = []
        for at in range(len(points) - 1):
            ends, sizes = points[at : at + 2], (radii[at], radii[at + 1])
            box = self.box(ends, max(sizes) + 2 * self.edge)
            pieces.append((box, self.tube(ends[0], ends[1], sizes, box)))
        return pieces

    def inside(self, distance: Field) -> Field:
        """Return the share of each voxel that lies inside, 0..1, from its distance to the border in mm."""
        share: Field = np.clip(0.5 - distance / self.edge, 0.0, 1.0)
        return share

    def paint(self, hu: Field, distance: Field, level: float | Field, box: Box = WHOLE) -> None:
        """Mix ``level`` into ``hu`` where ``distance`` (of the box) is inside; edges are mixed by their share."""
        part = hu[box]
        part += self.inside(distance) * (level - part)


def beyond(x: Field, y: Field, z: Field, radii: Point) -> Field:
    """Return about how many mm each place lies outside an ellipsoid about the origin, along the ray from there."""
    ratio = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
    distance = np.sqrt(x * x + y * y + z * z)
    result: Field = distance - distance / np.maximum(ratio, 1e-3)
    return np.where(ratio < 0.05, np.float32(-min(radii)), result)


def smooth(low: float, high: float, value: Field) -> Field:
    """Return 0 below ``low``, 1 above ``high`` and a smooth step between them; ``low`` may be the larger one."""
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    result: Field = share * share * (3.0 - 2.0 * share)
    return result


def clouds(generator: np.random.Generator, grid: Grid, grain: float) -> Field:
    """Return smooth noise (D, H, W) of mean 0 and deviation about 1 that varies over ``grain`` mm: cubic B-splines."""
    spans = [(count - 1) * step for count, step in zip(grid.shape, grid.spacing, strict=True)]
    knots = [math.ceil(span / grain) + 4 for span in spans]
    values = generator.standard_normal(knots, dtype=np.float32)
    z, y, x = (
        _splines(count, step / grain, number)
        for count, step, number in zip(grid.shape, grid.spacing, knots, strict=True)
    )
    rows = np.tensordot(z, values, (1, 0))
    planes = np.matmul(y, rows)
    result: Field = np.matmul(planes, x.T)
    return result * np.float32(1.0 / 0.331)  # what a cubic spline in three dimensions leaves of the deviation


def _splines(count: int, step: float, knots: int) -> Field:
    """Return the weights (count, knots) of the cubic B-splines at places 0, step, 2·step …, knots at whole numbers."""
    off = np.abs(np.arange(count)[:, None] * step + 1.0 - np.arange(knots))
    near = 2.0 / 3.0 - off**2 + off**3 / 2.0
    far = (2.0 - np.minimum(off, 2.0)) ** 3 / 6.0
    weights: Field = np.where(off < 1.0, near, far).astype(np.float32)
    return weights


def _rotation(turns: Point) -> npt.NDArray[np.float64]:
    """Return the matrix that turns by degrees about z, then y, then x."""
    (cz, cy, cx), (sz, sy, sx) = ([function(math.radians(turn)) for turn in turns] for function in (math.cos, math.sin))
    about_z = np.array([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    turn: npt.NDArray[np.float64] = about_x @ about_y @ about_z
    return turn
