"""How near what was said is to the truth: exact match, token F1, BLEU, ROUGE-L, edit distance. Higher is better.

None of them knows what words mean; "no fluid" and "fluid" are near each other for all but the first. So exact match
decides, and the others tell how far off an answer in words of its own is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nltk.metrics.distance import edit_distance
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from clinic_ai.ml.metrics import interval

Array = npt.NDArray[np.float64]

EXACT = "exact_match"
METRICS = {
    EXACT: "exact match",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "edit_similarity": "edit similarity",
}
"""Keys of the figures, and what people call them; each in 0..1."""
_ROUNDS = 1000


def normalised(text: str) -> str:
    """Return what counts of an answer: letters and digits without case, a dot or sign within a number, one blank."""
    return " ".join(re.findall(r"[-+]?\d+(?:\.\d+)?|[^\W\d]+", text.casefold()))


def token_f1(said: str, truth: str) -> float:
    """Return the harmonic mean of precision and recall of words, each as often as it occurs (as in SQuAD)."""
    words, right = (Counter(normalised(text).split()) for text in (said, truth))
    if not words or not right:
        return float(words == right)
    common = (words & right).total()
    return 2 * common / (words.total() + right.total())


def edit_similarity(said: str, truth: str) -> float:
    """Return 1 less the edit distance (Levenshtein) of characters over the length of the longer text."""
    one, other = normalised(said), normalised(truth)
    longest = max(len(one), len(other))
    return 1.0 - edit_distance(one, other) / longest if longest else 1.0


@dataclass(frozen=True)
class Figures:
    """A model on some answers: mean and 95 % interval of each metric; no interval if one patient has them all."""

    answers: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Scored:
    """Answers of one model beside the truth, each scored by every metric."""

    def __init__(self, said: Sequence[str], truth: Sequence[str], patients: Sequence[str]) -> None:
        """``patients`` are those of the answers: intervals draw whole patients."""
        self.patients = list(patients)
        rows = [_score(one, other) for one, other in zip(said, truth, strict=True)]
        self.by_metric: dict[str, Array] = {key: np.array([row[key] for row in rows]) for key in METRICS}

    @property
    def exact(self) -> Array:
        """Which answers match the truth exactly: 1.0 or 0.0."""
        return self.by_metric[EXACT]

    def figures(self, rows: Sequence[int] | None = None) -> Figures:
        """Return the figures of some of the answers, or of all."""
        chosen = np.arange(len(self.patients)) if rows is None else np.asarray(rows)
        patients = [self.patients[row] for row in chosen]
        values = {key: scores[chosen] for key, scores in self.by_metric.items()}
        return Figures(
            len(chosen),
            {key: float(scores.mean()) for key, scores in values.items()},
            {key: mean_interval(scores, patients) for key, scores in values.items()} if len(set(patients)) > 1 else {},
        )


def mean_interval(scores: Array, patients: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean, drawing whole patients."""
    return interval(lambda rows: float(scores[rows].mean()), patients, rounds=_ROUNDS)


def by_type(questions: Sequence[str], *, most: int) -> dict[str, list[int]]:
    """Return the rows of each type of question, commonest first: its own text is its type.

    Where there are more than ``most`` types the rarest are pooled as "other questions".
    """
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        rows.setdefault(" ".join(question.split()), []).append(row)
    ordered = sorted(rows.items(), key=lambda item: -len(item[1]))
    if len(ordered) > most:
        rare = sorted(row for _, some in ordered[most - 1 :] for row in some)
        ordered = [*ordered[: most - 1], ("other questions", rare)]
    return dict(ordered)


_BLEU = BLEU(effective_order=True)  # answers are often shorter than four words
_ROUGE = RougeScorer(["rougeL"])


def _score(said: str, truth: str) -> dict[str, float]:
    one, right = normalised(said), normalised(truth)
    return {
        EXACT: float(one == right),
        "token_f1": token_f1(said, truth),
        "bleu": _BLEU.sentence_score(one, [right]).score / 100,
        "rouge_l": _ROUGE.score(right, one)["rougeL"].fmeasure,
        "edit_similarity": edit_similarity(said, truth),
    }
