"""What a volume shows at a glance, before a network sees it: is it HU, is it a chest, what is cut off, any metal.

Measured on every few voxels: nothing here needs more than some 4 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai.domain import Vector
from clinic_ai_ct.volume import HU, Grid, Volume

METAL_HU = 3000
"""From here on it is metal, or the end of what 12 bits can say (3,071)."""
_STEP_MM = 4.0
_PADDING_HU = -1100
"""Below this is no air: scanners fill corners with -2,000 or -3,024 and do not always say so."""
_AIR_HU = -400
_LUNG_HU = (-960, -350)
_OUTSIDE_SHARE = 0.12
"""Air that touches so much of the border of the slices is the air around the patient."""
_CUT_AREA_MM2 = 1500.0
"""A lung of more than that in the last slice goes on beyond it."""


@dataclass(frozen=True)
class Survey:
    """Figures of a volume; volumes are in ml, and None is where there is nothing to measure.

    ``air_hu`` and ``tissue_hu`` are where values of air or lungs, and of fat or flesh, lie most often. ``saturated``
    is the share of voxels at or above ``METAL_HU``. The lungs are all that is filled with air within the body and is of
    their density; ``centre`` is the middle of the box around them, LPS in mm.
    """

    air_hu: float | None
    tissue_hu: float | None
    lungs_ml: float
    lungs_hu: float | None
    centre: Vector | None
    cut_above: bool
    cut_below: bool
    metal_ml: float
    saturated: float
    uniform: bool


def survey(volume: Volume) -> Survey:
    """Return the figures of a volume whose axes are those of ``reading.canonical``."""
    grid = volume.grid
    strides = [max(1, round(_STEP_MM / step)) for step in grid.spacing]
    some = volume.hu[:: strides[0], :: strides[1], :: strides[2]]
    coarse = Grid(
        some.shape,
        (grid.spacing[0] * strides[0], grid.spacing[1] * strides[1], grid.spacing[2] * strides[2]),
        grid.origin,
        grid.directions,
    )
    lungs = _lungs(some)
    metal = int(np.count_nonzero(volume.hu >= METAL_HU))
    low, high = np.percentile(some, (1, 99))
    areas = lungs.sum(axis=(1, 2)) * coarse.spacing[1] * coarse.spacing[2]
    return Survey(
        air_hu=_mode(some, _PADDING_HU, -800),
        tissue_hu=_mode(some, -300, 400),
        lungs_ml=float(lungs.sum()) * coarse.voxel_mm3 / 1000.0,
        lungs_hu=float(some[lungs].mean()) if lungs.any() else None,
        centre=_middle(lungs, coarse),
        cut_above=bool(areas[-1] > _CUT_AREA_MM2),
        cut_below=bool(areas[0] > _CUT_AREA_MM2),
        metal_ml=metal * grid.voxel_mm3 / 1000.0,
        saturated=metal / volume.hu.size,
        uniform=bool(high - low < 50),
    )


def _mode(hu: HU, low: int, high: int) -> float | None:
    """Return the value met most often between two, of a histogram smoothed over 25 HU; None if hardly any lie there."""
    counts, edges = np.histogram(hu, bins=(high - low) // 5, range=(low, high))
    if counts.sum() < 0.01 * hu.size:
        return None
    smooth = ndimage.uniform_filter1d(counts.astype(float), 5, mode="constant")
    at = int(np.argmax(smooth))
    return float((edges[at] + edges[at + 1]) / 2)


def _lungs(hu: HU) -> npt.NDArray[np.bool_]:
    """Return what is filled with air and lies within the body; of it, pieces of the density of lungs."""
    labels, count = ndimage.label(hu < _AIR_HU)
    if count == 0:
        return np.zeros(hu.shape, dtype=np.bool_)
    border = np.zeros(hu.shape[1:], dtype=np.bool_)
    border[[0, -1], :] = border[:, [0, -1]] = True
    touching = np.bincount(labels[:, border].ravel(), minlength=count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    within = touching < _OUTSIDE_SHARE * border.sum() * hu.shape[0]
    within &= sizes > 0.0005 * hu.size
    within[0] = False
    means = ndimage.mean(hu, labels, np.arange(count + 1))
    within &= (means > _LUNG_HU[0]) & (means < _LUNG_HU[1])
    return np.asarray(within[labels])


def _middle(lungs: npt.NDArray[np.bool_], grid: Grid) -> Vector | None:
    if not lungs.any():
        return None
    ends = [np.flatnonzero(lungs.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]].mean() for axis in range(3)]
    x, y, z = (grid.affine() @ np.array([*ends, 1.0]))[:3]
    return float(x), float(y), float(z)
