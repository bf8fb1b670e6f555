"""Measures masks of lesions: pieces, diameters, volume, side, place and attenuation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from clinic_ai.domain import Mask, Vector
from clinic_ai.domain.evidence import Side
from clinic_ai_ct.lesions import Lesion, Piece
from clinic_ai_ct.organs import Frame, Organs, frame, points
from clinic_ai_ct.places import place
from clinic_ai_ct.volume import HU, Bits, Grid

LEAST_MM3 = {
    "lung_nodule": 14.0,  # a ball of 3 mm: smaller ones are not measured (Bankier et al., Radiology 2017;285:584)
    "consolidation": 500.0,
    "ground_glass_opacity": 500.0,
    "pleural_effusion": 2000.0,
    "pericardial_effusion": 2000.0,
}
"""Pieces below this volume in mm³ are noise of a network; the engine leaves them out."""
_BULGE, _BULGE_MM = 0.1, 40.0
"""What of an effusion lies beyond the middle is its bulge if it is less than this share and nowhere so far from it; an
effusion of the other side lies along its ribs."""
_ALONE = 10
"""So many of the largest nodules have a mask each; further ones share one by side."""
_LEAST_CORE = 8
"""Voxels inside the outermost that are enough for an attenuation."""
_FEW = 500
"""The distances of so many points are found faster than their hull."""
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
FLUIDS = frozenset({"pleural_effusion", "pericardial_effusion"})
"""Lesions whose size is a depth."""
_OF_THE_LUNG = frozenset({"consolidation", "ground_glass_opacity"})
"""Lesions whose share of the lung is told."""


def measure(
    name: str,
    mask: Bits,
    grid: Grid,
    hu: HU,
    organs: Organs | None = None,
    *,
    least_mm3: float = 0.0,
    where: Frame | None = None,
) -> Lesion:
    """Return what a mask (D, H, W) shows of a lesion; pieces below ``least_mm3`` are left out.

    ``hu`` is (D, H, W) on the same ``grid``, ``organs`` a mask of organs on it if there is one. ``where`` saves
    looking for the lungs once more when several lesions are measured. Raise ValueError if the shapes differ.
    """
    if mask.shape != grid.shape or hu.shape != grid.shape or (organs and organs.labels.shape != grid.shape):
        raise ValueError(f"mask {mask.shape}, HU {hu.shape} and organs must have the shape of the grid {grid.shape}")
    if not mask.any():
        return Lesion(name)
    where = where or frame(hu, grid, organs)
    if organs is not None and where is not None and where.middle_x is not None and name in _OF_THE_LUNG:
        more = _beyond_lungs(mask, grid, organs, where.middle_x)
        where = replace(where, lung_mm3={side: own + more[side] for side, own in where.lung_mm3.items()})
    pieces = [
        _piece(name, cut, offset, grid, hu, where, organs)
        for cut, offset in _parts(name, mask, grid, where)
        if cut.sum() * grid.voxel_mm3 >= least_mm3
    ]
    pieces.sort(key=lambda p: (-p.volume_mm3, p.key_slice, p.centroid))
    return Lesion(name, tuple(pieces), _side(pieces))


def _beyond_lungs(mask: Bits, grid: Grid, organs: Organs, middle_x: float) -> dict[str, float]:
    """Return the volume in mm³ of a lesion that the mask of organs leaves out of each lung, as it often does."""
    _, box = _box(mask)
    part = Organs(organs.labels[box], organs.names)
    beyond = mask[box] & ~(part.mask("left_lung") | part.mask("right_lung"))
    left = _across(grid, box) > middle_x
    return {
        "left": float((beyond & left).sum()) * grid.voxel_mm3,
        "right": float((beyond & ~left).sum()) * grid.voxel_mm3,
    }


def deepest(name: str, mask: Bits, grid: Grid, where: Frame | None) -> float:
    """Return the depth in mm of the deepest piece of fluid in a mask (D, H, W), as a report tells it; 0 without any."""
    if not mask.any():
        return 0.0
    return max(_depth(name, cut, grid) or 0.0 for cut, _ in _parts(name, mask, grid, where))


def groups(lesion: Lesion) -> tuple[tuple[Piece, ...], ...]:
    """Return which pieces share a mask: each of the largest nodules has its own, all other pieces one by side."""
    alone = lesion.pieces[:_ALONE] if lesion.name == "lung_nodule" else ()
    rest = lesion.pieces[len(alone) :]
    sides: tuple[Side, ...] = ("right", "left", "bilateral", "")
    shared = (tuple(p for p in rest if p.side == side) for side in sides)
    return (*((piece,) for piece in alone), *(group for group in shared if group))


def masks_of(lesions: Iterable[Lesion]) -> tuple[Mask, ...]:
    """Return the masks of an analysis, in the order that the sentences of a report count.

    One for each group of ``groups``, its ``size_mm`` the longest axial diameter, of fluid its depth; one with count 0
    for a lesion that was looked for and not found.
    """
    return tuple(mask for lesion in lesions for mask in lesion_masks(lesion))


def lesion_masks(lesion: Lesion) -> tuple[Mask, ...]:
    """Return the masks of one lesion; see ``masks_of``."""
    if not lesion.pieces:
        return (Mask(name=lesion.name, count=0),)
    return tuple(_mask(lesion.name, group) for group in groups(lesion))


def _mask(name: str, group: Sequence[Piece]) -> Mask:
    # What a report calls the size of fluid is its depth.
    largest = max(p.axial_mm if p.depth_mm is None else p.depth_mm for p in group)
    volumes = np.array([p.volume_mm3 for p in group])
    centre = np.average([p.centroid for p in group], axis=0, weights=volumes)
    return Mask(
        name=name,
        side=group[0].side,
        level=_level(group),
        centroid=tuple(centre.tolist()),
        count=len(group),
        size_mm=round(largest, 1),
        size_is="diameter" if group[0].depth_mm is None else "depth",
        volume_mm3=round(float(volumes.sum()), 1),
    )


def _level(group: Sequence[Piece]) -> str:
    """Return the places of all pieces, the largest first, as far as there is room."""
    named: list[str] = []
    for piece in group:
        lobes = piece.place.replace(" and ", ", ").split(", ") if "lobe" in piece.place else [piece.place]
        named += [lobe for lobe in lobes if lobe and lobe not in named]
    lobar = [words for words in named if "lobe" in words] or named[:1]
    while len(", ".join(lobar)) > 80:
        lobar.pop()
    return ", ".join(lobar)


def _side(pieces: Sequence[Piece]) -> Side:
    """Return the side of all pieces together, by those whose side is known."""
    sides = {p.side for p in pieces} - {""}
    return "bilateral" if len(sides) > 1 else next(iter(sides), "")


def _parts(name: str, mask: Bits, grid: Grid, where: Frame | None) -> list[tuple[Bits, tuple[int, int, int]]]:
    """Return cut-outs of the connected pieces and where each begins. Pleural fluid is parted at the middle.

    The two pleural spaces never join: what does in a mask only touches behind the spine. What is little and stays near
    the middle is the bulge of a large effusion, though, and belongs to it.
    """
    start, box = _box(mask)
    cut = mask[box]
    halves = [cut]
    if name == "pleural_effusion" and where is not None and where.middle_x is not None:
        across = _across(grid, box) - where.middle_x
        left = (across > 0) ^ _bulges(cut, across)
        halves = [cut & left, cut & ~left]
    parts: list[tuple[Bits, tuple[int, int, int]]] = []
    for half in halves:
        labels, _ = ndimage.label(half, _NEIGHBOURS)
        for number, found in enumerate(ndimage.find_objects(labels), start=1):
            z, y, x = (s.start + o for s, o in zip(found, start, strict=True))
            parts.append((labels[found] == number, (z, y, x)))
    return parts


def _bulges(cut: Bits, across: npt.NDArray[np.float64]) -> Bits:
    """Return where a mask (d, h, w) belongs to the other side than the one it lies on.

    ``across`` says how far each voxel lies to the left of the patient's middle, in mm.
    """
    labels, count = ndimage.label(cut, _NEIGHBOURS)
    whole = np.bincount(labels.ravel(), minlength=count + 1)
    swapped = np.zeros_like(cut)
    for side in (across > 0, across <= 0):
        own = np.bincount(labels[side & cut], minlength=count + 1)
        for number in np.flatnonzero((own > 0) & (own < _BULGE * whole)):
            bulge = side & (labels == number)
            if np.abs(across[bulge]).max() < _BULGE_MM:
                swapped |= bulge
    return swapped


def _box(mask: Bits) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
    """Return where the smallest box around a mask begins, and the box."""
    ends = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((int(there[0]), int(there[-1]) + 1))
    (z, d), (y, h), (x, w) = ends
    return (z, y, x), (slice(z, d), slice(y, h), slice(x, w))


def _across(grid: Grid, box: tuple[slice, slice, slice]) -> npt.NDArray[np.float64]:
    """Return LPS x in mm of every voxel in a box."""
    affine = grid.affine()
    z, y, x = (np.arange(side.start, side.stop, dtype=np.float64) for side in box)
    across: npt.NDArray[np.float64] = (
        affine[0, 3] + affine[0, 0] * z[:, None, None] + affine[0, 1] * y[None, :, None] + affine[0, 2] * x
    )
    return across


def _piece(
    name: str,
    cut: Bits,
    offset: tuple[int, int, int],
    grid: Grid,
    hu: HU,
    where: Frame | None,
    organs: Organs | None,
) -> Piece:
    places = points(cut, grid, offset)
    centroid: Vector = tuple(places.mean(axis=0).tolist())
    box = tuple(slice(o, o + n) for o, n in zip(offset, cut.shape, strict=True))
    values = hu[box]
    core = values[ndimage.binary_erosion(cut)]
    long, short = _axial(cut, grid)
    volume = float(cut.sum()) * grid.voxel_mm3
    spot = place(name, cut, offset, places, grid, where, organs)
    return Piece(
        volume_mm3=volume,
        diameter_mm=_diameter(cut, grid),
        axial_mm=long,
        centroid=centroid,
        key_slice=offset[0] + int(cut.sum(axis=(1, 2)).argmax()),
        side=spot.side,
        place=spot.words,
        mean_hu=float(values[cut].mean()),
        axial_short_mm=short,
        depth_mm=_depth(name, cut, grid),
        core_hu=float(np.median(core)) if core.size >= _LEAST_CORE else None,
        lung_share=_lung_share(name, volume, spot.side, where),
    )


def _lung_share(name: str, volume: float, side: Side, where: Frame | None) -> float | None:
    if where is None or not where.lung_mm3 or not side or name not in _OF_THE_LUNG:
        return None
    lungs = where.lung_mm3
    room = sum(lungs.values()) if side == "bilateral" else lungs[side]
    return min(1.0, volume / room) if room else None


# ---------------------------------------------------------------- lengths


def _diameter(cut: Bits, grid: Grid) -> float:
    """Return the longest diameter in three dimensions, in mm."""
    low = np.argwhere(cut.any(axis=2))
    first = cut.argmax(axis=2)[cut.any(axis=2)]
    last = cut.shape[2] - 1 - cut[:, :, ::-1].argmax(axis=2)[cut.any(axis=2)]
    ends = np.concatenate([np.column_stack([low, first]), np.column_stack([low, last])])
    return _longest(ends, np.array(grid.spacing))[0]


def _axial(cut: Bits, grid: Grid) -> tuple[float, float]:
    """Return the longest diameter in any slice and the one across it in the same slice, in mm."""
    spacing = np.array(grid.spacing[1:])
    best = (0.0, 0.0)
    for image in cut:
        rows = np.flatnonzero(image.any(axis=1))
        if not rows.size:
            continue
        lines = image[rows]
        first, last = lines.argmax(axis=1), image.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
        ends = np.concatenate([np.column_stack([rows, first]), np.column_stack([rows, last])])
        # No diameter is longer than that of the box around it.
        if np.hypot(*((np.ptp(ends, axis=0) + 1) * spacing)) <= best[0]:
            continue
        long, direction = _longest(ends, spacing)
        if long > best[0]:
            best = (long, min(long, _width(ends * spacing, np.array([-direction[1], direction[0]]), spacing)))
    return best


def _longest(ends: npt.NDArray[np.intp], spacing: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the longest distance of voxel indices (N, k) in mm, with one voxel added, and its unit direction."""
    places = np.unique(ends, axis=0) * spacing
    if len(places) == 1:
        return float(spacing.max()), np.eye(len(spacing))[spacing.argmax()]
    places = _hull(places)
    apart = squareform(pdist(places))
    one, other = np.unravel_index(int(apart.argmax()), apart.shape)
    direction = (places[one] - places[other]) / apart[one, other]
    return float(apart[one, other] + np.linalg.norm(direction * spacing)), direction


def _hull(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the corners of the convex hull, among which the farthest two are; all points if they are few."""
    if len(places) <= _FEW:
        return places
    try:
        hull = ConvexHull(places)
    except QhullError:  # all in one plane
        hull = ConvexHull(places, qhull_options="QJ")
    corners: npt.NDArray[np.float64] = places[hull.vertices]
    return corners


def _width(places: npt.NDArray[np.float64], across: npt.NDArray[np.float64], spacing: npt.NDArray[np.float64]) -> float:
    along = places @ across
    return float(np.ptp(along) + np.linalg.norm(across * spacing))


def _depth(name: str, cut: Bits, grid: Grid) -> float | None:
    """Return how deep fluid is, in mm; None for what is no fluid.

    Pleural: the longest way from front to back within one column, in the middle third of its breadth, which stands
    for the midclavicular line (Moy et al., Chest 2013;143:1054). Pericardial: the diameter of the largest ball that
    fits in, which is the thickness of a layer wherever it lies (Hildebrand and Rüegsegger, J Microsc 1997;185:67).
    """
    if name == "pleural_effusion":
        breadth = np.flatnonzero(cut.any(axis=(0, 1)))
        third = (breadth[-1] - breadth[0] + 1) / 3
        middle = cut[:, :, int(breadth[0] + third) : max(int(breadth[0] + third) + 1, int(breadth[-1] + 1 - third))]
        columns = middle.sum(axis=1)
        return float(columns.max()) * grid.spacing[1] or None
    if name == "pericardial_effusion":
        inside = ndimage.distance_transform_edt(np.pad(cut, 1), sampling=grid.spacing)
        return float(2 * inside.max() - min(grid.spacing[1:]))
    return None
