"""Chooses thresholds of masks and fits the probabilities of findings, on phantoms that nothing was learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from clinic_ai.ml.calibration import abstention_band
from clinic_ai.ml.metrics import auroc, best_f1_threshold, best_threshold
from clinic_ai_ct import sliding
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.outlining import Outline, Pieces, draw
from clinic_ai_ct.reference.examples import AREAS, JUDGED, load
from clinic_ai_ct.reference.learning import image_of
from clinic_ai_ct.served import drawn_of, least_mm3, reach_of
from clinic_ai_ct.volume import Bits, Grid

Array = npt.NDArray[np.float64]
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PEAKS = (0.5, 0.7, 0.85, 0.95, 0.98, 0.995)
LEAST = (1.0, 2.0, 5.0, 10.0, 20.0)
"""How many times the least volume that is ever drawn a piece may have to have: a network may make things up."""
EXTENTS_MM3 = (30.0, 120.0, 500.0, 2_000.0, 8_000.0, 30_000.0, 120_000.0)
"""Volumes of which the likeliest voxels may speak for a finding; see ``served.Evidence``."""
_ABSTAIN = 0.04
"""Of the phantoms, those nearest to an operating point about which nothing is said."""
_RIDGE = 0.02
LEAST_AUROC = 0.8
"""Of a label without a mask; one that is told worse is not judged at all."""


@dataclass(frozen=True)
class Seen:
    """What a network makes of phantoms: ``logits`` (n, labels judged), ``features`` (n, E), ``truth`` (n, labels)."""

    logits: Array
    features: torch.Tensor
    truth: Array


def look(network: CTNetwork, files: Sequence[Path], work: Path) -> Seen:
    """Read whole phantoms; what the network draws is written into ``work`` for ``operating_points``."""
    work.mkdir(parents=True, exist_ok=True)
    labels = network.config.classifier.labels
    order = [labels.index(name) for name in JUDGED]
    logits, features, truth = [], [], []
    for path in files:
        example = load(path)
        reading = sliding.read(network, image_of(example, network))
        logits.append(reading.logits[0, order].double().numpy())
        features.append(reading.features.global_)
        truth.append(example.labels)
        np.save(work / f"{path.stem}.npy", torch.sigmoid(reading.masks[0]).half().numpy(), allow_pickle=False)
    return Seen(np.stack(logits), torch.cat(features), np.stack(truth).astype(np.float64))


@torch.inference_mode()
def whole_features(network: CTNetwork, files: Sequence[Path]) -> torch.Tensor:
    """Return what the encoder makes of whole phantoms, (n, E)."""
    return torch.cat([network.encode(image_of(load(path), network)).global_ for path in files])


def operating_points(network: CTNetwork, files: Sequence[Path], seen: Seen, work: Path) -> dict[str, Any]:
    """Return the parameters of a model that ``served`` reads; see there."""
    grid = Grid(network.config.encoder.volume, network.config.spacing)
    findings = network.config.localiser.findings
    outlines = _best_outlines(findings, files, work, grid)
    drawn = np.zeros((len(files), len(findings)))
    reaches = np.zeros((*drawn.shape, len(EXTENTS_MM3)))
    for row, path in enumerate(files):
        for place, (probability, (name, outline)) in enumerate(zip(_drawn(path, work), outlines.items(), strict=True)):
            volume = float(draw(probability, grid, grid, outline).sum()) * grid.voxel_mm3
            drawn[row, place] = drawn_of(volume, name)
            reaches[row, place] = reach_of(probability, grid, EXTENTS_MM3)
    known = _known(seen)
    extents = {
        name: _best_extent(reaches[:, place], seen.truth[:, JUDGED.index(name)]) for place, name in enumerate(findings)
    }
    spoken = {
        name: np.stack([drawn[:, place], reaches[:, place, extents[name]]], axis=1)
        for place, name in enumerate(findings)
    }
    fitted = {place: _fitted(seen, place, spoken.get(JUDGED[place])) for place in known}
    judged = [place for place, fit in fitted.items() if JUDGED[place] in LESIONS or fit.auroc >= LEAST_AUROC]
    rows = [fitted[place].row for place in judged]
    columns = (tuple(column) for column in zip(*rows, strict=True))
    slopes, mask_slopes, reach_slopes, intercepts, lows, thresholds, highs = columns
    return {
        "judged": " ".join(JUDGED[place] for place in judged),
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
        "mask_extents_mm3": tuple(EXTENTS_MM3[extents[name]] for name in findings),
    }


def _drawn(path: Path, work: Path) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the probabilities (D, H, W) of each finding."""
    for probability in np.load(work / f"{path.stem}.npy", allow_pickle=False, mmap_mode="r"):
        yield probability.astype(np.float32)


def _best_outlines(findings: Sequence[str], files: Sequence[Path], work: Path, grid: Grid) -> dict[str, Outline]:
    """Return for each finding what gives the largest mean Dice; where nothing is there to draw, nothing drawn has 1."""
    scores: dict[str, dict[Outline, list[float]]] = {name: {} for name in findings}
    for path in files:
        areas = load(path).areas
        for name, probability in zip(findings, _drawn(path, work), strict=True):
            for outline, score in _scores(probability, areas[AREAS.index(name)], least_mm3(name), grid.voxel_mm3):
                scores[name].setdefault(outline, []).append(score)
    return {name: max(own, key=lambda outline: float(np.mean(own[outline]))) for name, own in scores.items()}


def _scores(
    probability: npt.NDArray[np.float32], truth: Bits, least: float, voxel_mm3: float
) -> Iterator[tuple[Outline, float]]:
    """Yield every outline that may be chosen and its Dice, of what ``outlining.draw`` draws with it on this grid."""
    whole = int(truth.sum())
    for threshold in THRESHOLDS:
        pieces = Pieces(probability, threshold)
        shared = pieces.shared(truth)
        for peak, times in product((peak for peak in PEAKS if peak >= threshold), LEAST):
            kept = (pieces.peaks >= peak) & (pieces.voxels * voxel_mm3 >= times * least)
            total = int(pieces.voxels[kept].sum()) + whole
            yield Outline(threshold, peak, times * least), 2 * int(shared[kept].sum()) / total if total else 1.0


def _known(seen: Seen) -> list[int]:
    """Return the places of the labels that some of the phantoms show and others do not.

    Raise ValueError if a lesion is not among them.
    """
    places = [place for place in range(len(JUDGED)) if len(np.unique(seen.truth[:, place])) == 2]
    if missing := set(LESIONS) - {JUDGED[place] for place in places}:
        named = ", ".join(sorted(missing))
        raise ValueError(f"{named}: in all or none of the phantoms to calibrate on; draw more of them")
    return places


def _best_extent(reaches: Array, truth: Array) -> int:
    """Return which column of ``reaches`` (n, extents) tells best who has a finding; the middle one if none can."""
    if len(np.unique(truth)) < 2:
        return reaches.shape[1] // 2
    return int(np.argmax([auroc(truth, column) for column in reaches.T]))


@dataclass(frozen=True)
class _Fit:
    """``row``: slopes of logit, mask and reach, intercept, and the band of a label; ``auroc``: how well it is told."""

    row: tuple[float, float, float, float, float, float, float]
    auroc: float


def _fitted(seen: Seen, place: int, evidence: Array | None) -> _Fit:
    """Return a logistic regression of one label, slopes not below 0; ``evidence`` (n, 2) is that of its mask."""
    truth = seen.truth[:, place]
    masks = np.zeros((len(truth), 2)) if evidence is None else evidence
    given = np.column_stack([seen.logits[:, place], masks, np.ones(len(truth))])
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
    point = best_f1_threshold(truth, probability) if JUDGED[place] in LESIONS else best_threshold(truth, probability)
    band = abstention_band(probability, point, abstain=_ABSTAIN)
    # Where all are alike the edges of a band differ from its middle by rounding, to either side.
    low, high = min(band.low, band.threshold), max(band.high, band.threshold)
    slope, mask_slope, reach_slope, intercept = (float(value) for value in fit)
    return _Fit((slope, mask_slope, reach_slope, intercept, low, band.threshold, high), auroc(truth, margin))
