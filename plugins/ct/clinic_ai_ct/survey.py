"""What a volume shows at a glance, before a network sees it: is it HU, is it a chest, what is cut off, any metal.

Measured on means over some 4 mm: nothing here needs more, and the noise of thin slices is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai.domain import Vector
from clinic_ai.ml.greys import average_blocks
from clinic_ai_ct.volume import Grid, Volume
from clinic_ai_ct.windows import Channels

METAL_HU = 3000
"""From here on it is metal, or the end of what 12 bits can say (3,071)."""
_STEP_MM = 4.0
_PADDING_HU = -1100
"""Below this is no air: scanners fill corners with -2,000 or -3,024 and do not always say so."""
_AIR_HU = -400
_SOFT_HU = (-145, 145)
_LUNG_HU = (-965, -350)
_OUTSIDE_SHARE = 0.12
"""Air that touches so much of the border of a slice is the air around the patient."""
_LEAST_SHARE = 0.0005
"""Of all voxels; what is smaller is gas in the bowel, or noise."""
_CUT_AREA_MM2 = 1500.0
"""A lung of more than that in the last slice, or at the edges of all, goes on beyond it."""


@dataclass(frozen=True)
class Survey:
    """Figures of a volume; volumes are in ml, and None is where there is nothing to measure.

    ``air_hu`` and ``flesh_hu`` are where values of air or lungs, and of flesh, lie most often. ``soft`` is the share of
    the body that has values of fat and flesh, ``saturated`` that of all voxels at or above ``METAL_HU``. The lungs are
    all that is filled with air within the body and is of their density; ``centre`` is the middle of the box around
    them, LPS in mm.
    """

    air_hu: float | None
    flesh_hu: float | None
    soft: float
    lungs_ml: float
    lungs_hu: float | None
    centre: Vector | None
    cut_above: bool
    cut_below: bool
    cut_aside: bool
    metal_ml: float
    saturated: float
    uniform: bool


def survey(volume: Volume) -> Survey:
    """Return the figures of a volume whose axes are those of ``reading.canonical``."""
    grid = volume.grid
    some, coarse = _coarse(volume)
    lungs = _lungs(some)
    metal = int(np.count_nonzero(volume.hu >= METAL_HU))
    low, high = np.percentile(some, (1, 99))
    areas = lungs.sum(axis=(1, 2)) * coarse.spacing[1] * coarse.spacing[2]
    return Survey(
        air_hu=_mode(some, _PADDING_HU, -800),
        flesh_hu=_mode(some, -40, 160),
        soft=_share(some, _SOFT_HU, -300),
        lungs_ml=float(lungs.sum()) * coarse.voxel_mm3 / 1000.0,
        lungs_hu=float(some[lungs].mean()) if lungs.any() else None,
        centre=middle_of(lungs, coarse),
        cut_above=bool(areas[-1] > _CUT_AREA_MM2),
        cut_below=bool(areas[0] > _CUT_AREA_MM2),
        cut_aside=bool(_at_edges_mm2(lungs, coarse) > _CUT_AREA_MM2),
        metal_ml=metal * grid.voxel_mm3 / 1000.0,
        saturated=metal / volume.hu.size,
        uniform=bool(high - low < 50),
    )


def _coarse(volume: Volume) -> tuple[Channels, Grid]:
    """Return means over blocks of about ``_STEP_MM``, so that noise does not matter, and the grid they lie on."""
    grid = volume.grid
    along = max(1, round(_STEP_MM / grid.spacing[0]))
    across = max(1, round(_STEP_MM / max(grid.spacing[1:])))
    planes = [
        np.mean([average_blocks(plane, across) for plane in volume.hu[k : k + along]], axis=0, dtype=np.float32)
        for k in range(0, grid.shape[0], along)
    ]
    blocks = np.stack(planes)
    off = [(size - 1) / 2 for size in (along, across, across)]
    x, y, z = (grid.affine() @ np.array([*off, 1.0]))[:3]
    spacing = (grid.spacing[0] * along, grid.spacing[1] * across, grid.spacing[2] * across)
    shape = (blocks.shape[0], blocks.shape[1], blocks.shape[2])
    return blocks, Grid(shape, spacing, (float(x), float(y), float(z)), grid.directions)


def _mode(hu: Channels, low: int, high: int) -> float | None:
    """Return the value met most often between two, of a histogram smoothed over 25 HU; None if hardly any lie there."""
    counts, edges = np.histogram(hu, bins=(high - low) // 5, range=(low, high))
    if counts.sum() < 0.01 * hu.size:
        return None
    smooth = ndimage.uniform_filter1d(counts.astype(float), 5, mode="constant")
    at = int(np.argmax(smooth))
    return float((edges[at] + edges[at + 1]) / 2)


def _share(hu: Channels, within: tuple[int, int], above: int) -> float:
    """Return which share of what lies above a value lies between two."""
    body = int(np.count_nonzero(hu > above))
    return int(np.count_nonzero((hu > within[0]) & (hu < within[1]))) / max(body, 1)


def _lungs(hu: Channels) -> npt.NDArray[np.bool_]:
    """Return what is filled with air and lies within the body; of it, pieces of the density of lungs.

    Each slice is looked at for itself: through windpipe and mouth the lungs go on into the air around the patient.
    """
    in_plane = np.zeros((3, 3, 3), dtype=np.bool_)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(hu < _AIR_HU, in_plane)
    border = np.zeros(hu.shape[1:], dtype=np.bool_)
    border[[0, -1], :] = border[:, [0, -1]] = True
    touching = np.bincount(labels[:, border].ravel(), minlength=count + 1)
    within = touching < _OUTSIDE_SHARE * border.sum()
    within[0] = False
    pieces, count = ndimage.label(within[labels])
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = np.flatnonzero(sizes > _LEAST_SHARE * hu.size)[1:]
    medians = np.asarray(ndimage.median(hu, pieces, large)) if len(large) else np.empty(0)
    kept = large[(medians > _LUNG_HU[0]) & (medians < _LUNG_HU[1])]
    return np.isin(pieces, kept)


def _at_edges_mm2(lungs: npt.NDArray[np.bool_], grid: Grid) -> float:
    """Return how much of the lungs lies at the four edges of the slices."""
    step, down, across = grid.spacing
    columns, rows = int(lungs[:, :, [0, -1]].sum()), int(lungs[:, [0, -1], :].sum())
    return step * (down * columns + across * rows)


def middle_of(lungs: npt.NDArray[np.bool_], grid: Grid) -> Vector | None:
    """Return the middle of the box around lungs (D, H, W), LPS in mm; None if there are none."""
    if not lungs.any():
        return None
    ends = [np.flatnonzero(lungs.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]].mean() for axis in range(3)]
    x, y, z = (grid.affine() @ np.array([*ends, 1.0]))[:3]
    return float(x), float(y), float(z)
