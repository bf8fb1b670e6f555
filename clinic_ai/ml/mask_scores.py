"""How well a mask agrees with the true one: overlap, distance of surfaces, and lesions found. numpy and scipy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Bits = npt.NDArray[np.bool_]
_NEIGHBOURS = 3
"""Voxels that touch at a corner belong together: 26-neighbourhood in three dimensions."""


@dataclass(frozen=True)
class MaskScores:
    """Figures of one mask; each share is in 0..1.

    ``hd95_mm`` is NaN where one mask is empty and the other is not: no distance is right there. ``lesions`` counts the
    true pieces, ``found`` those of them that the mask hits.
    """

    dice: float
    iou: float
    sensitivity: float
    hd95_mm: float
    lesions: int
    found: int

    @property
    def lesion_sensitivity(self) -> float:
        """Share of the true pieces that are hit; NaN if there is none."""
        return self.found / self.lesions if self.lesions else math.nan


def mask_scores(
    said: npt.ArrayLike, truth: npt.ArrayLike, spacing: Sequence[float], *, least_overlap: float = 0.1
) -> MaskScores:
    """Return the figures of a mask, any shape of two or three axes, with ``spacing`` in mm along them.

    Two empty masks agree: Dice, IoU and sensitivity 1, distance 0. A true piece is found if ``least_overlap`` of it
    lies in the mask. Raise ValueError if the shapes differ or do not fit the spacing.
    """
    one, other = np.asarray(said, dtype=bool), np.asarray(truth, dtype=bool)
    if one.shape != other.shape or len(spacing) != one.ndim:
        raise ValueError(f"masks of {one.shape} and {other.shape} with a spacing of {len(spacing)} axes do not fit")
    lesions, found = _lesions(one, other, least_overlap)
    return MaskScores(
        dice=dice(one, other),
        iou=iou(one, other),
        sensitivity=sensitivity(one, other),
        hd95_mm=hd95(one, other, spacing),
        lesions=lesions,
        found=found,
    )


def dice(said: Bits, truth: Bits) -> float:
    """Return twice the overlap over the sum of both (Dice, 1945); 1 if both are empty."""
    total = int(said.sum()) + int(truth.sum())
    return 2 * int((said & truth).sum()) / total if total else 1.0


def iou(said: Bits, truth: Bits) -> float:
    """Return the overlap over the union (Jaccard, 1912); 1 if both are empty."""
    union = int((said | truth).sum())
    return int((said & truth).sum()) / union if union else 1.0


def sensitivity(said: Bits, truth: Bits) -> float:
    """Return the share of true voxels that were said; 1 if there is none to be said."""
    total = int(truth.sum())
    return int((said & truth).sum()) / total if total else 1.0


def hd95(said: Bits, truth: Bits, spacing: Sequence[float]) -> float:
    """Return the 95th percentile of the distances of the surfaces, in mm: the larger of both directions.

    A surface is the voxels of a mask with a neighbour outside it (at the rim of the image, outside begins). 0 if both
    are empty, NaN if one is.
    """
    if not said.any() or not truth.any():
        return 0.0 if said.any() == truth.any() else math.nan
    box = _box(said | truth)
    one, other = _surface(said[box]), _surface(truth[box])
    return max(_percentile(one, other, spacing), _percentile(other, one, spacing))


def _percentile(start: Bits, goal: Bits, spacing: Sequence[float]) -> float:
    away = ndimage.distance_transform_edt(~goal, sampling=spacing)
    return float(np.percentile(away[start], 95))


def _surface(mask: Bits) -> Bits:
    inner: Bits = ndimage.binary_erosion(mask)
    return mask & ~inner


def _box(mask: Bits) -> tuple[slice, ...]:
    found: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return found


def _lesions(said: Bits, truth: Bits, least_overlap: float) -> tuple[int, int]:
    """Return how many pieces the truth has, and how many of them are found."""
    labels, count = ndimage.label(truth, np.ones((_NEIGHBOURS,) * truth.ndim, dtype=bool))
    if not count:
        return 0, 0
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    hit = np.bincount(labels[said], minlength=count + 1)[1:]
    return count, int((hit >= np.maximum(1, least_overlap * sizes)).sum())
