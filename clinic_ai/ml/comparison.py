"""A candidate beside the model in use, on the same test patients: the paired difference, in all and by subgroup.

Whole patients are drawn with replacement, the same for both models and all figures. The quantiles are those of the
expanded percentile interval (Hesterberg, 2015), which is as wide for few patients as Student's t would have it; plain
percentiles are too narrow there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from clinic_ai.contract import Example
from clinic_ai.gating import Compared, Comparison, GroupCompared, Interval, JudgedRow, Judgement, Metric, Said
from clinic_ai.ml.subgroups import FEWEST, FEWEST_PATIENTS, UNKNOWN

FEWEST_IN_ALL = 10
"""Test patients below which nothing is told: two models that are both right on all of them differ by 0 ± 0."""
ROUNDS = 2000
LEVEL = 0.95
_SEED = 0
_AT_ONCE = 1 << 22
"""Numbers of a block of draws or of compared pairs; larger ones cost memory and no less time."""

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]


def compare(candidate: Judgement, incumbent: Judgement | None) -> Comparison:
    """Return the figures of both on the examples that both judged, and their paired difference.

    Raise ValueError if they are not judged by the same figure.
    """
    incumbent = None if incumbent is None or not incumbent.rows else incumbent
    if incumbent is not None and (candidate.metric, candidate.figure) != (incumbent.metric, incumbent.figure):
        raise ValueError(f"one is judged by {candidate.figure}, the other by {incumbent.figure}")
    pairs = _pairs(candidate, incumbent)
    overall = _compared(candidate.metric, pairs, fewest=1, fewest_patients=FEWEST_IN_ALL)
    parts = [(trait, group, rows) for trait, group, rows in _groups(pairs.rows)]
    told = [rows for _, _, rows in parts if not _too_few(candidate.metric, pairs.of(rows))]
    groups = tuple(
        GroupCompared(
            trait=trait, group=group, **_compared(candidate.metric, pairs.of(rows), parts=len(told)).model_dump()
        )
        for trait, group, rows in parts
    )
    return Comparison(
        metric=candidate.metric,
        figure=candidate.figure,
        alone=incumbent is None,
        overall=overall,
        groups=groups,
        judged_groups=len(told),
    )


def check_rows(judgement: Judgement, test: Sequence[Example]) -> None:
    """Raise ValueError if a judgement is not about these test examples, or says otherwise whose or what they are."""
    known = {example.sha256: example for example in test}
    # The labels are those of one condition, which the judgement does not name.
    conditions = {condition for example in test for condition in example.labels}
    for row in judgement.rows:
        example = known.get(row.sha256)
        if example is None:
            raise ValueError(f"the image {row.sha256[:12]} is none of the test part")
        if row.patient_key != example.patient_key:
            raise ValueError(f"the image {row.sha256[:12]} is of another patient")
        if judgement.metric == "mean" and not 0 <= row.score <= 1:
            raise ValueError(f"the score of the image {row.sha256[:12]} is not between 0 and 1")
        conditions = {condition for condition in conditions if example.labels.get(condition) == row.label}
    if judgement.metric == "auroc" and judgement.rows and not conditions:
        raise ValueError("the labels are not those of the dataset")
    if len({row.key for row in judgement.rows}) != len(judgement.rows):
        raise ValueError("a test example is judged twice")


def check_all_judged(candidate: Judgement, incumbent: Judgement) -> None:
    """Raise ValueError if a candidate leaves out what the model in use judges: it may be what it is bad at."""
    left_out = {row.key for row in incumbent.rows} - {row.key for row in candidate.rows}
    if left_out:
        raise ValueError(f"the candidate leaves out {len(left_out)} test examples that the model in use judges")


def said_by_both(candidate: Judgement, incumbent: Judgement | None) -> tuple[Said, ...]:
    """Return the answers of both to each question that the candidate was asked; nothing where there are none."""
    others = {row.key: row.text for row in incumbent.rows} if incumbent is not None else {}
    return tuple(
        Said(sha256=row.sha256, question=row.question, candidate=row.text, incumbent=others.get(row.key, ""))
        for row in candidate.rows
        if row.question
    )


@dataclass(frozen=True)
class _Pairs:
    """Rows that both models judged: scores (rows,) of each; ``incumbent`` is None if there is none."""

    rows: Sequence[JudgedRow]
    candidate: Floats
    incumbent: Floats | None

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        return np.array([row.label == 1 for row in self.rows], dtype=bool)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        return np.array([row.patient_key for row in self.rows], dtype=np.str_)

    def of(self, chosen: Sequence[int]) -> _Pairs:
        other = None if self.incumbent is None else self.incumbent[list(chosen)]
        return _Pairs([self.rows[row] for row in chosen], self.candidate[list(chosen)], other)


def _pairs(candidate: Judgement, incumbent: Judgement | None) -> _Pairs:
    if incumbent is None:
        return _Pairs(candidate.rows, np.array([row.score for row in candidate.rows], dtype=np.float64), None)
    others = {row.key: row for row in incumbent.rows}
    rows = [row for row in candidate.rows if row.key in others]
    scores, other_scores = [row.score for row in rows], [others[row.key].score for row in rows]
    return _Pairs(rows, np.array(scores, dtype=np.float64), np.array(other_scores, dtype=np.float64))


def _groups(rows: Sequence[JudgedRow]) -> Iterator[tuple[str, str, list[int]]]:
    """Give trait, group and row numbers.

    Rows that do not tell a trait are in no group of it, and one that all rows are in is none.
    """
    for trait in dict.fromkeys(name for row in rows for name in row.groups):
        told: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            told.setdefault(row.groups.get(trait, UNKNOWN), []).append(number)
        told.pop(UNKNOWN, None)
        for group in sorted(group for group, members in told.items() if len(members) < len(rows)):
            yield trait, group, told[group]


def _too_few(metric: Metric, pairs: _Pairs, fewest: int = FEWEST, fewest_patients: int = FEWEST_PATIENTS) -> str:
    """Return why nothing can be told of so few rows, empty if it can."""
    patients, labels = pairs.patients, pairs.labels
    count = len(set(patients.tolist()))
    if len(labels) < fewest or count < fewest_patients:
        least = f"{fewest} images of {fewest_patients} patients" if fewest > 1 else f"{fewest_patients} patients"
        return f"{len(labels)} test images of {count} patients are too few to tell; {least} are needed."
    if metric == "auroc":
        classes = [len(set(patients[labels == truth].tolist())) for truth in (True, False)]
        if min(classes) < 2:
            return f"{classes[0]} patients have the condition and {classes[1]} do not; 2 of each are needed."
    return ""


def _compared(
    metric: Metric, pairs: _Pairs, *, parts: int = 1, fewest: int = FEWEST, fewest_patients: int = FEWEST_PATIENTS
) -> Compared:
    """Return the figures of some rows; the interval of the difference holds for ``parts`` such sets together."""
    patients = pairs.patients
    counts = {"examples": len(pairs.rows), "patients": len(set(patients.tolist()))}
    why_not = _too_few(metric, pairs, fewest, fewest_patients)
    if why_not:
        return Compared(**counts, why_not=why_not)
    figure = _Figure(metric, pairs.labels, _drawn(patients))
    both = (pairs.candidate, pairs.incumbent)
    (one, one_draws), (other, other_draws) = (
        figure.of(scores) if scores is not None else (None, None) for scores in both
    )
    between = None if one is None or other is None else one - other
    differences = None if one_draws is None or other_draws is None else one_draws - other_draws
    return Compared(
        **counts,
        candidate=one,
        candidate_interval=_interval(one_draws, counts["patients"]),
        incumbent=other,
        incumbent_interval=_interval(other_draws, counts["patients"]),
        difference=between,
        interval=_interval(differences, counts["patients"], parts),
    )


def _drawn(patients: npt.NDArray[np.str_]) -> Weights:
    """Return how often each row is in each draw of patients: (rounds, rows)."""
    names, member = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(_SEED)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    return counts.astype(np.float32)[:, member]


class _Figure:
    """The figure of rows, as they are and in each draw; all scores are of the same rows."""

    def __init__(self, metric: Metric, labels: npt.NDArray[np.bool_], weights: Weights) -> None:
        self._metric, self._labels = metric, labels
        as_they_are = np.ones((1, labels.size), dtype=np.float32)
        self._weights = np.concatenate([as_they_are, weights])

    def of(self, scores: Floats) -> tuple[float, Floats]:
        """Return the figure, and that of each draw; NaN where a draw lacks a class."""
        values = self._auroc(scores) if self._metric == "auroc" else self._mean(scores)
        return float(values[0]), values[1:]

    def _mean(self, scores: Floats) -> Floats:
        weights = self._weights.astype(np.float64)
        return np.asarray(weights @ scores / weights.sum(axis=1))

    def _auroc(self, scores: Floats) -> Floats:
        """Return the share of pairs of a positive and a negative row that are in order, ties by half.

        Pairs are compared once and weighed by how often both rows are in a draw, which is far quicker than ranking
        each draw anew.
        """
        positives, negatives = np.flatnonzero(self._labels), np.flatnonzero(~self._labels)
        weights = self._weights
        with_them, without = weights[:, positives], weights[:, negatives]
        in_order = np.zeros(len(weights), dtype=np.float64)
        for block in _blocks(positives.size, negatives.size):
            difference = scores[positives[block], None] - scores[None, negatives]
            ahead = (difference > 0).astype(np.float32) + np.float32(0.5) * (difference == 0)
            for draws in _blocks(len(weights), negatives.size):
                weighed = (with_them[draws, block] @ ahead) * without[draws]
                in_order[draws] += weighed.sum(axis=1, dtype=np.float64)
        pairs = with_them.sum(axis=1, dtype=np.float64) * without.sum(axis=1, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            shares: Floats = in_order / pairs
        return shares


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _interval(draws: Floats | None, patients: int, parts: int = 1) -> Interval | None:
    """Return the expanded percentile interval; of several ``parts``, at the level that holds for all (Bonferroni)."""
    if draws is None:
        return None
    values = draws[np.isfinite(draws)]
    if not values.size:
        return None
    tail = (1 - LEVEL) / 2 / max(1, parts)
    expanded = stats.norm.cdf(np.sqrt(patients / (patients - 1)) * stats.t.ppf(tail, patients - 1))
    low, high = np.quantile(values, (expanded, 1 - expanded))
    return float(low), float(high)
