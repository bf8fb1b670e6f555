"""From the probabilities of a network to masks on the slices: drawn smoothly, freed of small pieces, and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai_ct.reading import to_source
from clinic_ai_ct.volume import Bits, Grid

Probabilities = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
_MIDDLE = np.float32(0.5)


@dataclass(frozen=True)
class Outline:
    """How a mask is drawn: from which probability on, how high that must rise in a piece, how large it must be."""

    threshold: float
    peak: float
    least_mm3: float


def draw(probability: Probabilities, grid: Grid, target: Grid, outline: Outline) -> Bits:
    """Return the mask on ``target`` of probabilities (D, H, W) on ``grid``, whose axes are the same ones.

    Probabilities are interpolated linearly, their odds multiplied so that those of the threshold are even: edges follow
    the finer voxels, and between a voxel that is surely in and one that is surely out they lie halfway, whatever the
    threshold is. A low one would else draw everything half a voxel larger than the voxels it was chosen by. Left out
    are pieces (26-neighbourhood) in which no voxel of ``grid`` reaches the peak, and pieces that are too small.
    """
    mask = np.zeros(target.shape, dtype=np.bool_)
    kept = _with_peak(probability, outline)
    if not kept.any():
        return mask
    box = _around(kept, 1)
    near_it = ndimage.binary_dilation(kept[box], _NEIGHBOURS)
    part = np.where(near_it, _evened(probability[box], outline.threshold), np.float32(0.0))
    step = np.linalg.solve(grid.affine(), target.affine())
    weights, inside = zip(*(_weights(step, axis, box[axis], grid, target) for axis in range(3)), strict=True)
    along, down, across = weights
    cut = mask[inside[0], inside[1], inside[2]]  # a view
    for k, row in enumerate(along):
        near = np.flatnonzero(row)
        if near.size:
            plane = np.tensordot(row[near], part[near], axes=1)
            cut[k] = down @ plane @ across.T >= _MIDDLE
    _drop_small(cut, outline.least_mm3 / target.voxel_mm3)
    return mask


def _evened(probability: Probabilities, threshold: float) -> Probabilities:
    """Return what probabilities are when those of the threshold are even odds; 0 and 1 stay where they are.

    Odds all change by one factor then, as where a finding is more frequent than in what a network learned from. (Were
    probabilities stretched in two straight parts instead, most voxels within a low threshold would come to lie just
    above the middle, and edges would move inwards.)
    """
    within = probability * np.float32(1 - threshold)
    evened: Probabilities = within / (within + (1 - probability) * np.float32(threshold))
    return evened


def _with_peak(probability: Probabilities, outline: Outline) -> Bits:
    """Return where the threshold is reached, in pieces that reach the peak somewhere."""
    pieces = Pieces(probability, outline.threshold)
    high = np.concatenate(([False], pieces.peaks >= outline.peak))
    kept: Bits = high[pieces.labels]
    return kept


class Pieces:
    """Where probabilities (D, H, W) reach a threshold, in pieces (26-neighbourhood).

    ``labels`` (D, H, W) numbers them from 1; ``peaks`` and ``voxels`` are the largest probability of each, and its
    size.
    """

    def __init__(self, probability: Probabilities, threshold: float) -> None:
        above = probability >= threshold
        self.labels, self.count = ndimage.label(above, _NEIGHBOURS)
        owners = self.labels[above] - 1
        self.peaks = np.zeros(self.count, dtype=np.float32)
        np.maximum.at(self.peaks, owners, probability[above])
        self.voxels = np.bincount(owners, minlength=self.count)

    def shared(self, mask: Bits) -> npt.NDArray[np.intp]:
        """Return how many voxels of each piece lie in a mask (D, H, W)."""
        return np.bincount(self.labels[mask], minlength=self.count + 1)[1:]


def _around(mask: Bits, margin: int) -> Box:
    ends = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        ends.append(slice(max(0, int(there[0]) - margin), min(mask.shape[axis], int(there[-1]) + 1 + margin)))
    return ends[0], ends[1], ends[2]


def _weights(
    step: npt.NDArray[np.floating[Any]], axis: int, part: slice, grid: Grid, target: Grid
) -> tuple[npt.NDArray[np.float32], slice]:
    """Return weights (new, old) of linear interpolation for what of an axis of ``target`` lies over ``part``."""
    places = step[axis, axis] * np.arange(target.shape[axis]) + step[axis, 3]
    over = np.flatnonzero((places >= max(part.start - 0.5, -0.5)) & (places <= min(part.stop, grid.shape[axis]) - 0.5))
    if not over.size:
        return np.zeros((0, part.stop - part.start), dtype=np.float32), slice(0)
    places = np.clip(places[over] - part.start, 0, part.stop - part.start - 1)
    distance = np.abs(places[:, None] - np.arange(part.stop - part.start))
    return np.clip(1.0 - distance, 0.0, None).astype(np.float32), slice(int(over[0]), int(over[-1]) + 1)


def _drop_small(mask: Bits, least: float) -> None:
    """Take pieces of fewer than ``least`` voxels out of a mask."""
    labels, count = ndimage.label(mask, _NEIGHBOURS)
    if count:
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        mask &= (sizes >= least)[labels]


def packed(mask: Bits, grid: Grid, source: Grid) -> npt.NDArray[np.uint8]:
    """Return a mask (D, H, W) on the slices as they arrived, packed along the columns: uint8 (slice, row, bytes)."""
    return np.packbits(to_source(mask[np.newaxis], grid, source)[0], axis=-1)


def write_packed(path: Path, masks: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Write packed masks as the file that ``Segmentation`` describes."""
    with path.open("wb") as file:
        np.savez_compressed(file, masks=np.stack(masks))
