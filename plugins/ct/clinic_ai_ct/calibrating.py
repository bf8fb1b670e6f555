"""Chooses how masks are drawn and fits the probabilities of findings, on volumes that nothing was learned from.

What comes of it are the parameters of a model that ``served`` reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from clinic_ai.ml.calibration import abstention_band, sigmoid
from clinic_ai.ml.metrics import auroc, best_f1_threshold, best_threshold
from clinic_ai_ct.measuring import FLUIDS, deepest
from clinic_ai_ct.organs import frame
from clinic_ai_ct.outlining import Outline, Pieces
from clinic_ai_ct.volume import HU, Bits, Grid

Array = npt.NDArray[np.float64]
Row = tuple[float, float, float, float, float, float, float]
"""Of a label: slopes of logit, mask and reach, intercept, and the band (low, threshold, high)."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PEAKS = (0.5, 0.7, 0.85, 0.95, 0.98, 0.995)
LEAST = (1.0, 2.0, 5.0, 10.0, 20.0)
"""How many times the least volume that is ever drawn a piece may have to have: a network may make things up."""
EXTENTS_MM3 = (30.0, 120.0, 500.0, 2_000.0, 8_000.0, 30_000.0, 120_000.0)
"""Volumes of which the likeliest voxels may speak for a finding; see ``served.MaskEvidence``."""
_SHOWN = 0.75
"""Weight of the volumes that show something, of 1, when an outline is chosen."""
LEAST_AUROC = 0.8
"""Of a label without a mask; one that is told worse is not judged at all."""
_ABSTAIN = 0.01
"""Of the volumes, those nearest to an operating point about which nothing is said."""
_WIDEST = 0.2
"""So far from its threshold, in logits, a probability is called even if no volume was nearer."""
_RIDGE = 0.02


@dataclass(frozen=True)
class Drawing:
    """What an outline draws of one volume.

    ``score`` is the mean of Dice and of the smaller of both volumes as a share of the larger, for reports tell sizes;
    of fluid also of the smaller of both depths. It is 1 where neither it nor the truth shows anything. ``shown`` is
    whether the truth shows something.
    """

    outline: Outline
    volume_mm3: float
    score: float
    shown: bool


def depth_in(name: str, hu: HU, grid: Grid) -> Callable[[Bits], float] | None:
    """Return what tells the depth in mm of the fluid in a mask of a volume ``hu`` (D, H, W); None for other lesions."""
    if name not in FLUIDS:
        return None
    where = cache(lambda: frame(hu, grid, None))
    return lambda mask: deepest(name, mask, grid, where())


def drawings(
    probability: npt.NDArray[np.float32],
    truth: Bits,
    least: float,
    voxel_mm3: float,
    size_of: Callable[[Bits], float] | None = None,
) -> Iterator[Drawing]:
    """Yield every outline that may be chosen, with what ``outlining.draw`` draws with it on this grid.

    ``probability`` and ``truth`` are (D, H, W); ``least`` is the volume in mm³ below which a piece is noise;
    ``size_of`` tells a size of a mask that shall be near that of the truth too.
    """
    whole = int(truth.sum())
    sized = size_of if size_of is not None and whole else None
    wanted = sized(truth) if sized else 0.0
    for threshold in THRESHOLDS:
        pieces = Pieces(probability, threshold)
        shared = pieces.shared(truth)
        sizes: dict[bytes, float] = {}
        for peak, times in product((peak for peak in PEAKS if peak >= threshold), LEAST):
            kept = (pieces.peaks >= peak) & (pieces.voxels * voxel_mm3 >= times * least)
            drawn = int(pieces.voxels[kept].sum())
            scores = [1.0]
            if drawn + whole:
                scores = [2 * int(shared[kept].sum()) / (drawn + whole), _nearness(drawn, whole)]
            if sized:
                key = kept.tobytes()
                if key not in sizes:
                    sizes[key] = sized(np.concatenate(([False], kept))[pieces.labels])
                scores.append(_nearness(sizes[key], wanted))
            yield Drawing(Outline(threshold, peak, times * least), drawn * voxel_mm3, float(np.mean(scores)), whole > 0)


def _nearness(one: float, other: float) -> float:
    """Return the smaller of two as a share of the larger; 1 if both are 0."""
    return min(one, other) / max(one, other) if max(one, other) > 0 else 1.0


def best_outline(drawn: Mapping[Outline, Sequence[Drawing]]) -> Outline:
    """Return the outline that draws best, where those next to it count together as much as it does itself.

    Volumes that show something count for ``_SHOWN``: what is drawn in others is left out of a report if the finding is
    rated absent. Of many outlines, the one that is best by a hair on the volumes it is chosen by is often a lucky one,
    and worse on the next; among good neighbours it is good there too.
    """
    worth = {outline: _worth(own) for outline, own in drawn.items()}
    near = _neighbours(list(drawn))
    return max(drawn, key=lambda outline: worth[outline] + float(np.mean([worth[other] for other in near[outline]])))


def _worth(drawn: Sequence[Drawing]) -> float:
    worths = []
    for shown, weight in ((True, _SHOWN), (False, 1 - _SHOWN)):
        if scores := [one.score for one in drawn if one.shown is shown]:
            worths.append((float(np.mean(scores)), weight))
    return sum(mean * weight for mean, weight in worths) / sum(weight for _, weight in worths)


def _neighbours(outlines: Sequence[Outline]) -> dict[Outline, list[Outline]]:
    """Return for each outline those that differ from it by a step of each of its numbers at most, itself among them."""
    steps = [sorted(set(numbers)) for numbers in zip(*(_numbers(outline) for outline in outlines), strict=True)]
    at = {
        tuple(own.index(number) for own, number in zip(steps, _numbers(outline), strict=True)): outline
        for outline in outlines
    }
    moves = list(product((-1, 0, 1), repeat=len(steps)))
    return {
        outline: [at[near] for move in moves if (near := tuple(np.add(place, move).tolist())) in at]
        for place, outline in at.items()
    }


def _numbers(outline: Outline) -> tuple[float, float, float]:
    return outline.threshold, outline.peak, outline.least_mm3


def best_extent(reaches: Array, truth: Array) -> int:
    """Return which column of ``reaches`` (n, extents) tells best who has a finding; the middle one if none can."""
    if len(np.unique(truth)) < 2:
        return int(reaches.shape[1] // 2)
    return int(np.argmax([auroc(truth, column) for column in reaches.T]))


@dataclass(frozen=True)
class Fit:
    """The row of a label, and how well it is told by it on what it was fitted to."""

    row: Row
    auroc: float


def fitted(logits: Array, truth: Array, evidence: Array | None, *, outlined: bool) -> Fit:
    """Return a logistic regression of one label, slopes not below 0.

    ``logits`` and ``truth`` (0 or 1, both there) are (n,); ``evidence`` (n, 2) is that of its mask, None if it has
    none. ``outlined`` is whether its mask goes out.
    """
    masks = np.zeros((len(truth), 2)) if evidence is None else evidence
    given = np.column_stack([logits, masks, np.ones(len(truth))])
    # As Platt (1999): each class counts as if one more of the other had been among it.
    ones = truth.sum()
    target = np.where(truth == 1, (ones + 1) / (ones + 2), 1 / (len(truth) - ones + 2))

    def loss(fit: Array) -> float:
        margin = given @ fit
        cross = np.logaddexp(0.0, margin) - target * margin
        return float(cross.mean() + 0.1 * _RIDGE * ((fit[0] - 1) ** 2 + fit[1] ** 2 + fit[2] ** 2))

    most = 0.0 if evidence is None else 5.0
    bounds = [(0.0, 5.0), (0.0, most), (0.0, most), (-20.0, 20.0)]
    fit = minimize(loss, np.array([0.5, 0.1, 0.1, 0.0]) * (1.0, most > 0, most > 0, 1.0), bounds=bounds).x
    margin = given @ fit
    probability = 1 / (1 + np.exp(-margin))
    # What is outlined goes into a report with its side and size, where one too many weighs as much as one missed.
    point = best_f1_threshold(truth, probability) if outlined else best_threshold(truth, probability)
    band = abstention_band(probability, point, abstain=_ABSTAIN)
    # Where all are told apart, the nearest ones are far away; where all are alike, the edges differ by rounding.
    middle = math.log(band.threshold / (1 - band.threshold))
    low = min(max(band.low, sigmoid(middle - _WIDEST)), band.threshold)
    high = max(min(band.high, sigmoid(middle + _WIDEST)), band.threshold)
    slope, mask_slope, reach_slope, intercept = (float(value) for value in fit)
    return Fit((slope, mask_slope, reach_slope, intercept, low, band.threshold, high), auroc(truth, margin))


def parameters_of(
    rows: Mapping[str, Row], findings: Sequence[str], outlines: Mapping[str, Outline], extents_mm3: Mapping[str, float]
) -> dict[str, Any]:
    """Return the parameters of a model that judges the labels of ``rows``, at least one, and draws ``findings``."""
    columns = (tuple(column) for column in zip(*rows.values(), strict=True))
    slopes, mask_slopes, reach_slopes, intercepts, lows, thresholds, highs = columns
    return {
        "judged": " ".join(rows),
        "slopes": slopes,
        "mask_slopes": mask_slopes,
        "reach_slopes": reach_slopes,
        "intercepts": intercepts,
        "abstain_low": lows,
        "thresholds": thresholds,
        "abstain_high": highs,
        "mask_thresholds": tuple(outlines[name].threshold for name in findings),
        "mask_peaks": tuple(outlines[name].peak for name in findings),
        "mask_least_mm3": tuple(outlines[name].least_mm3 for name in findings),
        "mask_extents_mm3": tuple(extents_mm3[name] for name in findings),
    }
