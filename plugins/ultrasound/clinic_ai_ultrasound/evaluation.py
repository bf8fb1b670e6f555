"""What models answer to labelled questions, as they are served; scored, and calibrated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from clinic_ai.contract import Example, Scores
from clinic_ai.domain import CategoryInfo, Generation, QuestionAnswer
from clinic_ai.errors import DatasetError, InputError
from clinic_ai.ml.checkpoints import fingerprint
from clinic_ai_ultrasound.answering import Answered, Seen, answer, batches, look
from clinic_ai_ultrasound.confidence import Calibration
from clinic_ai_ultrasound.features import Stopped
from clinic_ai_ultrasound.kept_answers import KeptAnswers
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.scoring import EXACT, Figures, Scored, by_type, mean_interval

FEWEST_TO_CALIBRATE = 8
"""Validation answers; from fewer, no confidence can be learned."""
MOST_TYPES = 16
"""Types of questions that get figures of their own; if there are more, the rarest are pooled."""
_TIMEOUT_S = 600.0
_UNSAID = Answered("", math.nan, ())


@dataclass(frozen=True)
class Model:
    """One that is asked: it answers while the context that ``use`` gives is entered, and generates so.

    ``name`` tells it from others whose answers are kept beside its own.
    """

    use: Callable[[], AbstractContextManager[Any]]
    generation: Generation
    name: str = ""


@dataclass(frozen=True)
class Said:
    """Questions with the truth, and what each of several models said; rows of all lists belong together."""

    examples: list[Example]
    pairs: list[QuestionAnswer]
    answers: list[list[Answered]]

    def scored(self, model: int) -> Scored:
        """Return the scores of what one of the models said."""
        return Scored(
            [one.text for one in self.answers[model]],
            [pair.answer for pair in self.pairs],
            [example.patient_key for example in self.examples],
        )


def generation_of(category: str, categories: Sequence[CategoryInfo]) -> Generation:
    """Return how answers of a category are generated."""
    own = next((info.generation for info in categories if info.key == category), None)
    return own or Generation()


def ask_all(
    base: Base,
    examples: Sequence[Example],
    models: Sequence[Model],
    stop: Callable[[], bool] = lambda: False,
    kept: KeptAnswers | None = None,
    answered: Callable[[int], None] = lambda _: None,
) -> Said:
    """Return what each of ``models`` answers to the questions of all images; images that cannot be read are left out.

    What is ``kept`` is not asked again, and what is answered is kept. ``answered`` is told how many answers were
    generated, after each image. Raise Stopped if ``stop`` says so, DatasetError if no image can be read.
    """
    said = Said([], [], [[] for _ in models])
    for example in examples:
        known = [kept.get(_key(model, example)) if kept else None for model in models]
        if None in known:
            if stop():
                raise Stopped
            try:
                seen = look(base, picture(example.path))
            except InputError:
                continue
        for model, before, answers in zip(models, known, said.answers, strict=True):
            if before is None:
                with model.use():
                    before = _answers(base, seen, example, model.generation)  # noqa: PLW2901 - now it is known
                if kept:
                    kept.add(_key(model, example), before)
                answered(len(before))
            answers.extend(before)
        said.examples.extend([example] * len(example.pairs))
        said.pairs.extend(example.pairs)
    if not said.pairs:
        raise DatasetError("None of the images to ask about can be read.")
    return said


def _key(model: Model, example: Example) -> str:
    """Return what an answer follows from, beside the weights of the models."""
    questions = [pair.question for pair in example.pairs]
    return fingerprint(
        model=model.name, generation=model.generation.model_dump(), image=example.sha256, questions=questions
    )


def _answers(base: Base, seen: Seen, example: Example, generation: Generation) -> list[Answered]:
    found: list[Answered] = []
    for batch in batches(base, [pair.question for pair in example.pairs]):
        try:
            found += answer(base, seen, batch, generation, timeout_s=_TIMEOUT_S)
        except InputError:  # too slow, or too long a question: served, there would be no answer
            found += [_UNSAID] * len(batch)
    return found


@dataclass(frozen=True)
class Compared:
    """Base and adapter on the same questions of the test part."""

    said: Said
    before: Scored
    after: Scored

    @classmethod
    def of(cls, said: Said) -> Compared:
        """Take what the base said first, and the adapter second."""
        return cls(said, said.scored(0), said.scored(1))

    @property
    def gain(self) -> tuple[float, tuple[float, float] | None]:
        """How much more often the adapter matches exactly than the base, with its 95 % interval by patient."""
        more = self.after.exact - self.before.exact
        several = len(set(self.after.patients)) > 1
        return float(more.mean()), mean_interval(more, self.after.patients) if several else None

    def scores(self) -> Scores:
        """Return the adapter's figures, those of the base as ``base_…``, and the gain in exact matches."""
        before, after = self.before.figures(), self.after.figures()
        gain, interval = self.gain
        return Scores(
            split="test",
            examples=after.answers,
            values={**after.values, **_prefixed(before.values), f"gain_{EXACT}": gain},
            intervals={
                **after.intervals,
                **_prefixed(before.intervals),
                **({} if interval is None else {f"gain_{EXACT}": interval}),
            },
        )

    def types(self) -> dict[str, tuple[Figures, Figures]]:
        """Return the figures of base and adapter for each type of question."""
        rows = by_type([pair.question for pair in self.said.pairs], most=MOST_TYPES)
        return {kind: (self.before.figures(some), self.after.figures(some)) for kind, some in rows.items()}


def scores_alone(said: Said) -> Scores:
    """Return the figures of the only model that was asked."""
    figures = said.scored(0).figures()
    return Scores(split="test", examples=figures.answers, values=figures.values, intervals=figures.intervals)


def calibrate(said: Said, model: int = 0) -> tuple[Calibration | None, str]:
    """Return what turns an answer's mean log-probability into the chance that it is exactly right; else why not."""
    means = np.array([one.mean_log_probability for one in said.answers[model]])
    exact, finished = said.scored(model).exact, np.isfinite(means)
    means, exact = means[finished], exact[finished]
    no_confidence = "so the adapter's answers carry no confidence."
    if len(exact) < FEWEST_TO_CALIBRATE:
        return None, f"The validation part has {len(exact)} answers, {FEWEST_TO_CALIBRATE} are needed, {no_confidence}"
    if len(set(exact)) < 2:
        which = "All" if exact[0] else "None"
        return None, f"{which} of the {len(exact)} validation answers are exactly right, {no_confidence}"
    fitted = LogisticRegression(C=1.0).fit(means[:, None], exact)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        return None, f"On the validation part surer answers are not right more often, {no_confidence}"
    return Calibration(slope, intercept), ""


def _prefixed(values: dict[str, Any]) -> dict[str, Any]:
    return {f"base_{key}": value for key, value in values.items()}
