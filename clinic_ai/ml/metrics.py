"""Figures of merit of classifiers, with their uncertainty; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve; ties count half. Raise ValueError unless both classes are there."""
    truth, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise ValueError("AUROC needs at least one positive and one negative")
    _, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[group]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Sequence[str], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC, drawing whole ``groups`` (patients) with replacement."""
    truth, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(member == group) for group in range(len(names))]
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([rows[group] for group in generator.integers(0, len(rows), len(rows))])
        if truth[drawn].any() and not truth[drawn].all():
            values.append(auroc(truth[drawn], score[drawn]))
    if not values:
        raise ValueError("no resample held both classes")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int = 10) -> float:
    """Return the mean distance of probability and frequency over ``bins`` of equal count, in 0..1."""
    truth, probability = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    parts = [part for part in np.array_split(np.argsort(probability, kind="stable"), bins) if part.size]
    return float(sum(abs((truth[part] - probability[part]).sum()) for part in parts) / max(1, truth.size))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the calibrated probability and what it gave where it was measured."""

    threshold: float
    sensitivity: float
    specificity: float


def at_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> OperatingPoint:
    """Return sensitivity and specificity when ``probability >= threshold`` is called present."""
    truth, called = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64) >= threshold
    return OperatingPoint(threshold, float(called[truth].mean()), float((~called[~truth]).mean()))


def best_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the threshold with the largest sensitivity + specificity (Youden), midway between two values."""
    probability = np.unique(np.asarray(probabilities, dtype=np.float64))
    middles = (probability[1:] + probability[:-1]) / 2 if probability.size > 1 else probability
    points = [at_threshold(labels, probabilities, float(threshold)) for threshold in middles]
    return max(points, key=lambda point: point.sensitivity + point.specificity).threshold
