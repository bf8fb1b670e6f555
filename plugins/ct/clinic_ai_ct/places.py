"""Places in the chest in a report's words: a lobe where lobes are labelled, else a region by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai.domain import Vector
from clinic_ai.domain.evidence import Side
from clinic_ai_ct.organs import Frame, Organs
from clinic_ai_ct.volume import Bits, Grid

_MARGIN_MM = 10.0
"""So near the middle, which side it is on cannot be told from position."""
_SHARE = 0.25
"""A lobe with less of a lesion than this share is not named."""
_MOST_LOBES = 3
_NEAR_MM = 15.0
"""A lesion that its mask of organs leaves out, as a consolidation often is, is given to a lobe so near."""
_TWO_SIDED = 0.2
"""A piece with at least this share on the other side lies on both."""
AROUND_HEART = "around the heart"


@dataclass(frozen=True)
class Place:
    """Where a piece lies: side and words, either empty where it is unknown."""

    side: Side
    words: str


def place(
    name: str,
    piece: Bits,
    offset: tuple[int, int, int],
    places: npt.NDArray[np.float64],
    grid: Grid,
    frame: Frame | None,
    organs: Organs | None,
) -> Place:
    """Return where one piece of a lesion lies. Nothing is guessed: what cannot be told is left empty.

    ``piece`` is a cut-out (d, h, w) of the mask that begins at voxel ``offset``; ``places`` are its voxel centres,
    LPS in mm, (N, 3).
    """
    if name == "pericardial_effusion":
        return Place("", AROUND_HEART)
    if organs is not None and organs.lobed and name != "pleural_effusion":
        lobes = _lobes(piece, offset, grid, organs)
        if lobes:
            return Place(_side_of_words(lobes), " and ".join(filter(None, (", ".join(lobes[:-1]), lobes[-1]))))
    if frame is None:
        return Place("", "")
    side = side_of(places, frame)
    return Place(side, region(tuple(places.mean(axis=0).tolist()), side, frame))


def side_of(places: npt.NDArray[np.float64], frame: Frame) -> Side:
    """Return the patient's side of points (N, 3), LPS in mm; "bilateral" if both have a fifth, "" near the middle.

    It is "" too where the patient's middle is not known.
    """
    if frame.middle_x is None:
        return ""
    across = places[:, 0] - frame.middle_x
    if abs(float(np.median(across))) < _MARGIN_MM and float(np.ptp(across)) < 4 * _MARGIN_MM:
        return ""
    left = float((across > 0).mean())
    if left >= 1 - _TWO_SIDED:
        return "left"
    return "right" if left <= _TWO_SIDED else "bilateral"


def region(centroid: Vector, side: Side, frame: Frame) -> str:
    """Return a region by thirds of the lungs' height and depth, as "right lower posterior region".

    The middle third from front to back is not said. Without a side, or where the images do not hold the whole lungs,
    what cannot be told is left out; without any of them the answer is empty.
    """
    if side not in {"left", "right"}:
        return ""
    height = (centroid[2] - frame.low[2]) / max(frame.high[2] - frame.low[2], 1e-6)
    depth = (centroid[1] - frame.low[1]) / max(frame.high[1] - frame.low[1], 1e-6)
    vertical = ("lower" if height < 1 / 3 else "middle" if height < 2 / 3 else "upper") if frame.whole_length else ""
    along = "anterior" if depth < 1 / 3 else "posterior" if depth > 2 / 3 else ""
    return " ".join(filter(None, (side, vertical, along, "region")))


def _lobes(piece: Bits, offset: tuple[int, int, int], grid: Grid, organs: Organs) -> list[str]:
    """Return the lobes that hold a share worth naming, the largest first, in a report's words."""
    names = organs.lobe_names()
    reach = [int(np.ceil(_NEAR_MM / s)) for s in grid.spacing]
    low = [max(0, o - r) for o, r in zip(offset, reach, strict=True)]
    high = [
        min(size, o + extent + r) for size, o, extent, r in zip(grid.shape, offset, piece.shape, reach, strict=True)
    ]
    around = organs.labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = tuple(slice(o - a, o - a + n) for o, a, n in zip(offset, low, piece.shape, strict=True))
    lobar = np.isin(around, list(names))
    if not lobar.any():
        return []
    far, nearest = ndimage.distance_transform_edt(~lobar, sampling=grid.spacing, return_indices=True)
    labels = around[tuple(nearest)][inside][piece]
    near = far[inside][piece] <= _NEAR_MM
    if near.mean() < 0.5:
        return []
    counts = {names[int(label)]: float((labels[near] == label).mean()) for label in np.unique(labels[near])}
    ranked = sorted((n for n, share in counts.items() if share >= _SHARE), key=lambda n: (-counts[n], n))
    return ranked[:_MOST_LOBES]


def _side_of_words(lobes: list[str]) -> Side:
    sides = {lobe.split()[0] for lobe in lobes}
    if len(sides) > 1:
        return "bilateral"
    return "left" if "left" in sides else "right"
