"""Figures of a classifier of several labels, some of which may be missing; numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai.ml.metrics import auroc

FIGURES = ("auroc", "f1", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class LabelScores:
    """Figures of one label over the rows where it is known; NaN where they mean nothing: no positive, no negative."""

    label: str
    rows: int
    positives: int
    auroc: float
    f1: float
    precision: float
    recall: float
    accuracy: float


def label_scores(
    truth: npt.ArrayLike,
    scores: npt.ArrayLike,
    names: Sequence[str],
    *,
    known: npt.ArrayLike | None = None,
    thresholds: npt.ArrayLike = 0.5,
) -> tuple[LabelScores, ...]:
    """Return the figures of each label.

    ``truth`` and ``scores`` are (N, L); ``known`` (N, L) says where a label is not missing, ``thresholds`` (L,) or one
    number from which on a score is called present. Raise ValueError if the shapes differ.
    """
    right, said = np.asarray(truth).astype(bool), np.asarray(scores, dtype=np.float64)
    there = np.ones_like(right) if known is None else np.asarray(known, dtype=bool)
    if not right.shape == said.shape == there.shape or right.ndim != 2 or right.shape[1] != len(names):
        raise ValueError(f"labels {right.shape}, scores {said.shape} and {len(names)} names do not fit")
    least = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(names),))
    return tuple(
        _of(name, right[there[:, at], at], said[there[:, at], at], float(least[at])) for at, name in enumerate(names)
    )


def macro(scored: Sequence[LabelScores]) -> dict[str, float]:
    """Return the mean of each figure over the labels that have it; NaN if none has."""
    means = {}
    for figure in FIGURES:
        values = [v for s in scored if not math.isnan(v := getattr(s, figure))]
        means[figure] = float(np.mean(values)) if values else math.nan
    return means


def crg(truth: npt.ArrayLike, called: npt.ArrayLike) -> float:
    """Return the clinical relevance score of reports by their labels, (N, L) of 0 and 1 (VLM3D challenge, CT-RATE).

    Smax / (2·Smax − s), where s = w·TP − w·FN − FP, w = (T − A) / (2·A), Smax = w·A; A is the number of positive
    labels, T that of all. One half for reports that find as much as they invent and miss, 1 for perfect ones. Raise
    ValueError if the shapes differ, or there is no positive or no negative.
    """
    right, said = np.asarray(truth).astype(bool), np.asarray(called).astype(bool)
    if right.shape != said.shape:
        raise ValueError(f"labels {right.shape} and those of the reports {said.shape} do not fit")
    positives, total = int(right.sum()), right.size
    if not 0 < positives < total:
        raise ValueError("CRG needs at least one positive and one negative label")
    weight = (total - positives) / (2 * positives)
    best = positives * weight
    score = weight * int((right & said).sum()) - weight * int((right & ~said).sum()) - int((~right & said).sum())
    return best / (2 * best - score)


def _of(name: str, truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], threshold: float) -> LabelScores:
    called = scores >= threshold
    hits, positives = int((truth & called).sum()), int(truth.sum())
    both = 0 < positives < truth.size
    return LabelScores(
        label=name,
        rows=truth.size,
        positives=positives,
        auroc=auroc(truth, scores) if both else math.nan,
        f1=2 * hits / (positives + int(called.sum())) if positives else math.nan,
        precision=hits / int(called.sum()) if called.any() else math.nan,
        recall=hits / positives if positives else math.nan,
        accuracy=float((truth == called).mean()) if truth.size else math.nan,
    )
