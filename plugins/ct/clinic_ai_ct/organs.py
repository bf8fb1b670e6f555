"""Where lungs, lobes, heart and spine lie: from a mask of organs, or as far as Hounsfield units tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai_ct.anatomy import LOBES
from clinic_ai_ct.volume import HU, Bits, Grid

Labels = npt.NDArray[np.uint8]
_AIR_HU = -500
"""Below it is air: the usual threshold between lung and soft tissue (Hu et al., IEEE TMI 2001)."""
_LEAST_LUNG_MM3 = 2e5
"""A pair of lungs smaller than 0.2 l is none: something else on the images is dark."""
_BODY_HU = -300
_SAMPLED = 40
"""So many slices are enough to tell where the middle of the body is."""
_LEAST_AREA_MM2, _LEAST_APART_MM = 1500.0, 60.0
"""Of two lungs in one slice, each is at least so large, and their middles are at least so far apart."""
_ENOUGH = 128
"""Pixels across a slice that are enough to find the lungs."""
_NAMES = {
    "lung_upper_lobe_left": "left_upper_lobe",
    "lung_lower_lobe_left": "left_lower_lobe",
    "lung_upper_lobe_right": "right_upper_lobe",
    "lung_middle_lobe_right": "right_middle_lobe",
    "lung_lower_lobe_right": "right_lower_lobe",
    "lung_left": "left_lung",
    "lung_right": "right_lung",
}
"""What TotalSegmentator (Wasserthal et al., 2023) calls them, and what they are called here."""


@dataclass(frozen=True)
class Organs:
    """A mask of organs: ``labels`` (D, H, W) on the grid of the volume, ``names`` label → name.

    Names are ``left_lung``, ``right_lung``, the five of ``LOBES``, ``spine``, or those of TotalSegmentator.
    """

    labels: Labels
    names: Mapping[int, str]

    def mask(self, name: str) -> Bits:
        """Return the voxels (D, H, W) of one organ; a lung is its own label and its lobes. Empty if not labelled."""
        lobes = [lobe for lobe in LOBES if name.endswith("_lung") and lobe.startswith(name.removesuffix("lung"))]
        wanted = [label for label, known in self.names.items() if _NAMES.get(known, known) in {name, *lobes}]
        return np.isin(self.labels, wanted)

    @cached_property
    def lobed(self) -> bool:
        """Whether any lobe is labelled."""
        known = {_NAMES.get(self.names.get(int(label), ""), self.names.get(int(label), "")) for label in self._present}
        return not known.isdisjoint(LOBES)

    @cached_property
    def _present(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(np.bincount(self.labels.ravel(), minlength=256))

    def lobe_names(self) -> dict[int, str]:
        """Return label → lobe in a report's words: "right lower lobe"."""
        known = ((label, _NAMES.get(name, name)) for label, name in self.names.items())
        return {label: name.replace("_", " ") for label, name in known if name in LOBES}


@dataclass(frozen=True)
class Frame:
    """The box around both lungs, in LPS mm: what is high and low, front and back, left and right is told by it.

    ``low`` and ``high`` are its corners (x, y, z); ``middle_x`` is where the patient's middle is, None if that cannot
    be told.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    middle_x: float | None
    lung_mm3: Mapping[str, float]
    """Volume of "left" and "right" lung; empty where no mask of them came with the volume."""
    whole_length: bool = True
    """Whether the lungs end within the volume above and below; else thirds of their height mean nothing."""


def frame(hu: HU, grid: Grid, organs: Organs | None = None) -> Frame | None:
    """Return where the lungs are, from their mask or else from air inside the body; None if neither shows them.

    ``hu`` is (D, H, W) on ``grid``.
    """
    step = max(1, min(grid.shape[1:]) // _ENOUGH)  # a box in millimetres needs no finer pixels, nor do litres
    coarse = hu[:, ::step, ::step]
    spacing = (grid.spacing[0], step * grid.spacing[1], step * grid.spacing[2])
    less = replace(grid, shape=(len(coarse), coarse.shape[1], coarse.shape[2]), spacing=spacing)
    if organs is not None:
        seen = Organs(organs.labels[:, ::step, ::step], organs.names)
        left, right = seen.mask("left_lung"), seen.mask("right_lung")
        if left.any() and right.any():
            return _frame_of(left | right, less, _middle(seen, left, right, less), _volumes(left, right, less))
    air = _inner_air(coarse)
    if air.sum() * less.voxel_mm3 < _LEAST_LUNG_MM3:
        return None
    return _frame_of(air, less, _middle_of_body(coarse, air, less), {})


def _volumes(left: Bits, right: Bits, grid: Grid) -> dict[str, float]:
    return {"left": float(left.sum()) * grid.voxel_mm3, "right": float(right.sum()) * grid.voxel_mm3}


def _middle(organs: Organs, left: Bits, right: Bits, grid: Grid) -> float:
    spine = organs.mask("spine")
    if spine.any():
        return float(points(spine, grid)[:, 0].mean())
    inner_left, inner_right = points(left, grid)[:, 0].min(), points(right, grid)[:, 0].max()
    return float(inner_left + inner_right) / 2


def _middle_of_body(hu: HU, air: Bits, grid: Grid) -> float | None:
    """Return LPS x of the patient's middle: of the outline of the body, else between the lungs; None if neither tells.

    The box around all air would not do: where one lung holds none, its middle is that of the other lung.
    """
    slices = np.flatnonzero(air.any(axis=(1, 2)))
    slices = slices[:: max(1, len(slices) // _SAMPLED)]
    for source, middle_of, share in ((hu, _body_middle, 0.5), (air, _lungs_middle, 0.25)):
        found = [x for k in slices if (x := middle_of(source[k], int(k), grid)) is not None]
        if len(found) >= share * len(slices):
            return float(np.median(found))
    return None


def _body_middle(image: npt.NDArray[np.generic], number: int, grid: Grid) -> float | None:
    """Return LPS x of the middle of the body in a slice; None where it is cut off at a side."""
    labels, count = ndimage.label(image > _BODY_HU)
    if not count:
        return None
    body = ndimage.binary_fill_holes(labels == np.bincount(labels[labels > 0]).argmax())
    return None if body[:, 0].any() or body[:, -1].any() else _centre_x(body, number, grid)


def _lungs_middle(air: npt.NDArray[np.generic], number: int, grid: Grid) -> float | None:
    """Return LPS x between the two lungs in a slice; None where there are not two."""
    labels, count = ndimage.label(air)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:] * grid.spacing[1] * grid.spacing[2]
    large = 1 + np.argsort(areas)[::-1][:2]
    if count < 2 or areas[large - 1].min() < _LEAST_AREA_MM2:
        return None
    one, other = (_centre_x(labels == label, number, grid) for label in large)
    return (one + other) / 2 if abs(one - other) >= _LEAST_APART_MM else None


def _centre_x(mask: Bits, number: int, grid: Grid) -> float:
    return float(points(mask[np.newaxis], grid, (number, 0, 0))[:, 0].mean())


def _frame_of(lungs: Bits, grid: Grid, middle_x: float | None, volumes: Mapping[str, float]) -> Frame:
    places = points(lungs, grid)
    low, high = places.min(axis=0), places.max(axis=0)
    corners = points(np.ones((2, 2, 2), dtype=bool), _corner_grid(grid))
    step = 1.5 * max(grid.spacing)
    whole = bool(low[2] > corners[:, 2].min() + step and high[2] < corners[:, 2].max() - step)
    return Frame(tuple(map(float, low)), tuple(map(float, high)), middle_x, volumes, whole)  # type: ignore[arg-type]


def _corner_grid(grid: Grid) -> Grid:
    spacing = tuple(s * (n - 1) for s, n in zip(grid.spacing, grid.shape, strict=True))
    return Grid((2, 2, 2), spacing, grid.origin, grid.directions)  # type: ignore[arg-type]


def points(mask: Bits, grid: Grid, offset: tuple[int, int, int] = (0, 0, 0)) -> npt.NDArray[np.float64]:
    """Return LPS (x, y, z) in mm of the voxel centres of a mask, (N, 3); ``offset`` is where a cut-out begins."""
    indices = np.argwhere(mask) + np.array(offset)
    affine = grid.affine()
    places: npt.NDArray[np.float64] = indices @ affine[:3, :3].T + affine[:3, 3]
    return places


def _inner_air(hu: HU) -> Bits:
    """Return air inside the body: in each slice, what is dark and not joined to the rim of the slice."""
    dark = hu < _AIR_HU
    inner = np.zeros_like(dark)
    plane = ndimage.generate_binary_structure(2, 1)
    for number, image in enumerate(dark):
        labels, count = ndimage.label(image, plane)
        if not count:
            continue
        rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        inside = np.ones(count + 1, dtype=bool)
        inside[rim] = False
        inside[0] = False
        inner[number] = inside[labels]
    return _large(inner)


def _large(mask: Bits) -> Bits:
    """Drop pieces (6-neighbourhood) of less than a fifth of the largest: gas of the bowel, pads of the table."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Bits = (sizes >= 0.2 * sizes.max())[labels]
    return kept
