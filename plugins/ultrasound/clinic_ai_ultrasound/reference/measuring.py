"""What the answers are worth: by topic, beside the commonest answer, and with the images of other subjects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from clinic_ai.domain import Generation
from clinic_ai.ml.metrics import interval
from clinic_ai_ultrasound.answering import answer, look
from clinic_ai_ultrasound.confidence import Calibration
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS, choice_of, word
from clinic_ai_ultrasound.reference.samples import Shown

_SHUFFLES = 40
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Said:
    """The answer to one topic about one image: its text, the choice it makes, and its mean log-probability."""

    text: str
    choice: str | None
    mean: float


Answers = list[dict[str, Said]]
"""For each image, by topic."""


def ask_all(base: Base, category: str, images: Sequence[Shown]) -> Answers:
    """Ask every topic of ``category`` about every image, as the engine does, with whatever adapter is in use."""
    subject = SUBJECTS[category]
    questions = [word(topic, next(iter(TOPICS[topic].answers)), subject.noun).question for topic in subject.topics]
    found: Answers = []
    for image in images:
        seen = look(base, Image.fromarray(image.pixels).convert("RGB"))
        said = answer(base, seen, questions, Generation(), timeout_s=_TIMEOUT_S)
        found.append(
            {
                topic: Said(one.text, choice_of(topic, one.text), one.mean_log_probability)
                for topic, one in zip(subject.topics, said, strict=True)
            }
        )
    return found


@dataclass(frozen=True)
class Case:
    """One question of the test: image number, topic, and the choice that is true."""

    image: int
    topic: str
    choice: str


def cases(images: Sequence[Shown], topics: Iterable[str], seed: int | None) -> list[Case]:
    """Return the questions whose answers are known; with a ``seed`` as many for each choice of a topic.

    What is too much is left out by chance.
    """
    chance = np.random.default_rng(seed)
    found: list[Case] = []
    for topic in topics:
        groups: dict[str, list[int]] = {choice: [] for choice in TOPICS[topic].answers}
        for number, image in enumerate(images):
            if topic in image.truths:
                groups[image.truths[topic]].append(number)
        fewest = min(map(len, groups.values()))
        for choice, group in groups.items():
            rows = group if seed is None else sorted(chance.permutation(group)[:fewest].tolist())
            found += [Case(row, topic, choice) for row in rows]
    return found


def table(
    images: Sequence[Shown], asked: Sequence[Case], said: Answers, other: Answers | None = None
) -> dict[str, Any]:
    """Return the figures by topic, and those of all topics together; ``other`` are the answers of the base alone."""
    by_topic: dict[str, list[Case]] = defaultdict(list)
    for case in asked:
        by_topic[case.topic].append(case)
    # The word "all" is no topic.
    parts = {**by_topic, "all": list(asked)}
    return {topic: _figures(images, part, asked, said, other) for topic, part in parts.items()}


def _figures(
    images: Sequence[Shown], part: Sequence[Case], asked: Sequence[Case], said: Answers, other: Answers | None
) -> dict[str, Any]:
    usual = _usual(asked)
    subjects = [images[case.image].subject for case in part]
    right = _right(part, said)
    # Whoever always gives the commonest answer of each topic.
    common = np.array([case.choice == usual[case.topic] for case in part])
    shuffled = _shuffled(images, part, said)
    found: dict[str, Any] = {
        "questions": len(part),
        "subjects": len(set(subjects)),
        "accuracy": float(right.mean()),
        "accuracy_interval": interval(lambda rows: float(right[rows].mean()), subjects, rounds=1000),
        "commonest": float(common.mean()),
        "shuffled": shuffled,
        "mcnemar_p": _mcnemar(*_one_of_each(part, subjects, right, common)),
    }
    if other is not None:
        without = _right(part, other)
        found["base"] = float(without.mean())
        found["gain_interval"] = interval(
            lambda rows: float(right[rows].mean() - without[rows].mean()), subjects, rounds=1000
        )
        found["gain_mcnemar_p"] = _mcnemar(*_one_of_each(part, subjects, right, without))
    return found


def _usual(asked: Sequence[Case]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case in asked:
        counts[case.topic][case.choice] += 1
    return {topic: counter.most_common(1)[0][0] for topic, counter in counts.items()}


def _right(part: Sequence[Case], said: Answers) -> np.ndarray:
    return np.array([said[case.image][case.topic].choice == case.choice for case in part])


def _shuffled(images: Sequence[Shown], part: Sequence[Case], said: Answers) -> float:
    """Return the accuracy if every question is answered about an image of another subject.

    The questions have the same words for every image, so the answers about the other image are known already.
    """
    chance = np.random.default_rng(0)
    shares = []
    for _ in range(_SHUFFLES):
        others = [_other(images, case.image, chance) for case in part]
        shares.append(
            np.mean([said[row][case.topic].choice == case.choice for row, case in zip(others, part, strict=True)])
        )
    return float(np.mean(shares))


def _other(images: Sequence[Shown], row: int, chance: np.random.Generator) -> int:
    while True:
        found = int(chance.integers(len(images)))
        if images[found].subject != images[row].subject:
            return found


def _one_of_each(
    part: Sequence[Case], subjects: Sequence[str], right: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes of one question of each subject and topic, by chance: the others would not be independent."""
    order = np.random.default_rng(0).permutation(len(part))
    first = {(subjects[row], part[row].topic): row for row in order}
    rows = sorted(first.values())
    return right[rows], other[rows]


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Return the two-sided p of McNemar's exact test."""
    better, worse = int((one & ~other).sum()), int((~one & other).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def calibrate(asked: Sequence[Case], said: Answers) -> Calibration | None:
    """Return what turns mean log-probabilities into the probability of being right, from cases not trained on.

    None if all or none are right, or if surer answers are not right more often.
    """
    right = _right(asked, said)
    if right.all() or not right.any():
        return None
    means = np.array([[said[case.image][case.topic].mean] for case in asked])
    fitted = LogisticRegression(C=1.0).fit(means, right)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Calibration(slope, intercept) if slope > 0 else None
