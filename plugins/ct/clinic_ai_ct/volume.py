"""A CT volume in Hounsfield units on a grid in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai.domain import Vector

HU = npt.NDArray[np.int16]
Bits = npt.NDArray[np.bool_]
OUTSIDE_HU = -1024
"""What lies outside the field of view of the scanner, or of a volume."""
LPS_DIRECTIONS: tuple[Vector, Vector, Vector] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Directions of an upright grid: slices go to the head, rows to the back, columns to the patient's left."""


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: axes are (z, y, x) = (slice, row, column), lengths in mm, coordinates LPS (x, y, z).

    Voxel (k, j, i) lies at
    ``origin + k·spacing[0]·directions[0] + j·spacing[1]·directions[1] + i·spacing[2]·directions[2]``.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: Vector = (0.0, 0.0, 0.0)
    directions: tuple[Vector, Vector, Vector] = LPS_DIRECTIONS

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        z, y, x = self.spacing
        return z * y * x

    def affine(self) -> npt.NDArray[np.float64]:
        """Return the 4×4 matrix from voxel indices (k, j, i, 1) to LPS coordinates (x, y, z, 1) in mm."""
        result = np.eye(4)
        result[:3, :3] = np.array(self.directions).T * np.array(self.spacing)
        result[:3, 3] = self.origin
        return result


@dataclass(frozen=True)
class Volume:
    """Hounsfield units (D, H, W) on a grid; ``remarks`` are sentences for the report on what limits it."""

    hu: HU
    grid: Grid
    remarks: tuple[str, ...] = ()
