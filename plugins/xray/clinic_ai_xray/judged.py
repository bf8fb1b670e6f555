"""What models say of labelled images, with figures; without torch, so that judging takes little time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai.contract import Example, Scores
from clinic_ai.errors import DatasetError, InputError
from clinic_ai.ml.metrics import auroc, auroc_interval
from clinic_ai_xray.data import in_threads, read_input
from clinic_ai_xray.served import Judgement, ServedModel


@dataclass(frozen=True)
class Judged:
    """What one model said of the measured images, and what they show."""

    model: ServedModel
    examples: tuple[Example, ...]
    judgements: tuple[Judgement, ...]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels (images,), 0 or 1."""
        return np.array([example.labels[self.model.condition] for example in self.examples], dtype=np.int64)

    @property
    def patients(self) -> list[str]:
        """Patient of each image."""
        return [example.patient_key for example in self.examples]

    @property
    def chance(self) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (images,)."""
        return np.array([judgement.probability for judgement in self.judgements])

    @property
    def refused(self) -> npt.NDArray[np.bool_]:
        """Which images are not judged because they are unlike those of training."""
        return np.array([judgement.distance > 1.0 for judgement in self.judgements])

    def said(self) -> list[str]:
        """Return what would be said of each image."""
        presence = self.model.band.presence
        return [
            "refused" if refused else presence(chance).value
            for refused, chance in zip(self.refused, self.chance.tolist(), strict=True)
        ]

    def scores(self, split: str) -> Scores:
        """Return AUROC with its interval by patient, Brier score, and the share that is refused."""
        truth, chance = self.labels, self.chance
        return Scores(
            split=split,
            examples=len(truth),
            values={
                "auroc": auroc(truth, chance),
                "brier": float(np.mean((chance - truth) ** 2)),
                "refused": float(self.refused.mean()),
            },
            intervals={"auroc": auroc_interval(truth, chance, self.patients)},
        )


def judge(models: Sequence[ServedModel], examples: Sequence[Example], threads: int) -> tuple[list[Judged], int]:
    """Have all models judge the same images; return what they said, and how many images could not be read.

    Raise DatasetError unless images with the condition and images without are left.
    """

    def look(example: Example) -> list[Judgement] | None:
        try:
            image = read_input(example.path, models[0].side)
        except InputError:
            return None
        return [model.judge(image) for model in models]

    seen = in_threads(look, examples, threads)
    readable = tuple(example for example, judged in zip(examples, seen, strict=True) if judged is not None)
    if not has_both(readable, models[0].condition):
        raise lacks_a_class(models[0].condition)
    columns = zip(*(judged for judged in seen if judged is not None), strict=True)
    found = [Judged(model, readable, tuple(column)) for model, column in zip(models, columns, strict=True)]
    return found, len(examples) - len(readable)


def has_both(examples: Sequence[Example], condition: str) -> bool:
    """Return whether there are images with the condition and images without."""
    return len({example.labels[condition] for example in examples}) == 2


def lacks_a_class(condition: str) -> DatasetError:
    """Return the error that there are none."""
    return DatasetError(
        f"The test and validation parts need readable images with {condition} and images without.",
        remedy="Add labelled images of more patients.",
    )
