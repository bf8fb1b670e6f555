"""A curriculum: the first epochs learn from short answers only, later ones from longer ones, the last ones from all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from clinic_ai.errors import DatasetError

_STAGE = re.compile(r"(\d{1,6}):(\d{1,6})")


@dataclass(frozen=True)
class Stage:
    """Through ``last_epoch`` answers of at most ``words`` words are learned from; None: to the end, from all."""

    last_epoch: int | None
    words: int | None

    def takes(self, words: int) -> bool:
        """Whether an answer of so many words is learned from."""
        return self.words is None or words <= self.words

    def in_words(self) -> str:
        """Return which answers it takes, for people."""
        return "all answers" if self.words is None else f"answers of at most {self.words} words"


@dataclass(frozen=True)
class Curriculum:
    """Stages in order; the last one takes all answers. With one stage there is no curriculum."""

    stages: tuple[Stage, ...] = (Stage(None, None),)

    @classmethod
    def parse(cls, text: str, epochs: int) -> Curriculum:
        """Read ``2:3,5:8``: through epoch 2 answers of at most 3 words, through epoch 5 of at most 8, then all.

        Raise DatasetError if it is written in another way, if a stage is no longer or no wider than the one before it,
        or if no epoch of ``epochs`` is left for all answers.
        """
        found = [_STAGE.fullmatch(part.strip()) for part in text.split(",")] if text.strip() else []
        stages = [Stage(int(match[1]), int(match[2])) for match in found if match]
        if len(stages) < len(found):
            raise DatasetError(
                f"The recipe's curriculum is {text!r}.",
                remedy="Write stages as last epoch and most words: curriculum=2:3,5:8, or leave it out.",
            )
        bounds = [(0, 0), *((stage.last_epoch or 0, stage.words or 0) for stage in stages)]
        rising = all(one[0] < other[0] and one[1] < other[1] for one, other in pairwise(bounds))
        if not rising:
            raise DatasetError(
                "Each stage of the recipe's curriculum ends later and takes longer answers than the one before."
            )
        if bounds[-1][0] >= epochs and stages:
            raise DatasetError(
                f"The recipe's curriculum ends with epoch {bounds[-1][0]} of {epochs}: long answers are never learned.",
                remedy="Raise epochs, or let the last stage end earlier.",
            )
        return cls((*stages, Stage(None, None)))

    def number(self, epoch: int) -> int:
        """Return the number of the stage that an epoch is in, both counted from 1."""
        return next(
            number
            for number, stage in enumerate(self.stages, start=1)
            if stage.last_epoch is None or epoch <= stage.last_epoch
        )

    def of(self, epoch: int) -> Stage:
        """Return the stage that an epoch is in, counted from 1."""
        return self.stages[self.number(epoch) - 1]

    @property
    def all_from(self) -> int:
        """The first epoch that learns from all answers."""
        return 1 + max((stage.last_epoch or 0 for stage in self.stages), default=0)

    def counts(self, words: Sequence[int], epochs: int) -> list[int]:
        """Return of how many answers each epoch is, where there are answers of so many ``words``.

        Raise DatasetError if a stage has none.
        """
        each = [sum(stage.takes(count) for count in words) for stage in self.stages]
        if 0 in each:
            number = each.index(0)
            raise DatasetError(
                f"Stage {number + 1} of the recipe's curriculum takes {self.stages[number].in_words()}; there is none.",
                remedy="Let it take longer ones.",
            )
        return [each[self.number(epoch) - 1] for epoch in range(1, epochs + 1)]


def words_of(answer: str) -> int:
    """Return how many words an answer has."""
    return len(answer.split())
