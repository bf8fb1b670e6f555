"""Figures of merit of classifiers, with their uncertainty; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_NEWTON_STEPS = 50
_CLOSE = 1e-9
_NORMAL_95 = 1.959964


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


def interval(
    statistic: Callable[[npt.NDArray[np.intp]], float | None],
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a statistic of rows, drawing whole ``groups`` (patients) with replacement.

    ``statistic`` takes row numbers, some of them several times, and may return None for a draw that has no value.
    Raise ValueError if no draw has one.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(member == group) for group in range(len(names))]
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([rows[group] for group in generator.integers(0, len(rows), len(rows))])
        value = statistic(drawn)
        if value is not None:
            values.append(value)
    if not values:
        raise ValueError("no resample held both classes")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Sequence[str], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC, drawing whole ``groups`` (patients) with replacement."""
    truth, score = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)

    def drawn(rows: npt.NDArray[np.intp]) -> float | None:
        return auroc(truth[rows], score[rows]) if truth[rows].any() and not truth[rows].all() else None

    return interval(drawn, groups, rounds=rounds, seed=seed)


def difference_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    other_scores: npt.ArrayLike,
    groups: Sequence[str],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC of ``scores`` less that of ``other_scores``, paired on the same rows."""
    truth = np.asarray(labels, dtype=bool)
    one, other = np.asarray(scores, dtype=np.float64), np.asarray(other_scores, dtype=np.float64)

    def drawn(rows: npt.NDArray[np.intp]) -> float | None:
        if not truth[rows].any() or truth[rows].all():
            return None
        return auroc(truth[rows], one[rows]) - auroc(truth[rows], other[rows])

    return interval(drawn, groups, rounds=rounds, seed=seed)


def calibration_slope(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    """Return the slope of a logistic regression of labels on calibrated logits: 1 where they mean what they say.

    Below 1 they are too sure, above it not sure enough (Cox, 1958; Van Calster et al., 2016). Raise ValueError unless
    both classes are there.
    """
    truth, logit = np.asarray(labels, dtype=np.float64), np.asarray(logits, dtype=np.float64)
    if not 0 < truth.sum() < truth.size:
        raise ValueError("a calibration slope needs at least one positive and one negative")
    inputs = np.stack([np.ones_like(logit), logit], axis=1)
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ weights, -30.0, 30.0)))
        spread = np.maximum(chance * (1 - chance), 1e-9)
        # A trace of ridge keeps the step finite where the classes part without overlap.
        curvature = (inputs * spread[:, None]).T @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, inputs.T @ (truth - chance) - 1e-6 * weights)
        weights += step
        if float(np.abs(step).max()) < _CLOSE:
            break
    return float(weights[1])


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int = 10) -> float:
    """Return the mean distance of probability and frequency over ``bins`` of equal count, in 0..1."""
    truth, probability = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    parts = calibration_bins(probability, bins)
    return float(sum(abs((truth[part] - probability[part]).sum()) for part in parts) / max(1, truth.size))


def calibration_bins(probabilities: npt.ArrayLike, bins: int) -> list[npt.NDArray[np.intp]]:
    """Return the row numbers of at most ``bins`` parts of equal count, by rising probability; none is empty."""
    order = np.argsort(np.asarray(probabilities, dtype=np.float64), kind="stable")
    return [part for part in np.array_split(order, bins) if part.size]


def wilson_interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, ``hits`` of ``of`` (Wilson, 1927). Raise ValueError if ``of`` is zero."""
    if not of:
        raise ValueError("a share of nothing has no interval")
    share, spread = hits / of, _NORMAL_95**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = _NORMAL_95 / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


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


def point_intervals(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float, groups: Sequence[str], *, rounds: int = 1000
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 95 % intervals of sensitivity and specificity at ``threshold``, drawing whole ``groups``."""
    truth, called = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64) >= threshold

    def share(hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> tuple[float, float]:
        return interval(lambda rows: _mean(hits[rows][among[rows]]), groups, rounds=rounds)

    return share(called, truth), share(~called, ~truth)


def _mean(values: npt.NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if values.size else None


def best_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the threshold with the largest sensitivity + specificity (Youden), midway between two values."""
    points = [at_threshold(labels, probabilities, float(threshold)) for threshold in _between(probabilities)]
    return max(points, key=lambda point: point.sensitivity + point.specificity).threshold


def best_f1_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the threshold with the largest F1 score, midway between two values."""
    truth, probability = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)

    def score(threshold: float) -> float:
        called = probability >= threshold
        return 2 * int((called & truth).sum()) / max(1, int(called.sum()) + int(truth.sum()))

    return max((float(threshold) for threshold in _between(probability)), key=score)


def _between(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.unique(np.asarray(probabilities, dtype=np.float64))
    middles: npt.NDArray[np.float64] = (values[1:] + values[:-1]) / 2 if values.size > 1 else values
    return middles
