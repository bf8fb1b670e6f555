"""How much there is of a lesion, in one word, by published bounds on what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from clinic_ai_ct.lesions import Piece


class Band(BaseModel):
    """A word, and the largest measure it stands for; None where it takes the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: str
    upto: float | None = None


class Grading(BaseModel):
    """The bands of one lesion, ascending, and the field of ``Piece`` that they are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    source: str
    bands: tuple[Band, ...]


@lru_cache(maxsize=1)
def gradings() -> dict[str, Grading]:
    """Return the grading of each lesion that has one, by its name."""
    read = tomllib.loads(files("clinic_ai_ct").joinpath("grades.toml").read_text(encoding="utf-8"))
    return {name: Grading.model_validate(entry) for name, entry in read.items()}


def grade(name: str, pieces: Sequence[Piece]) -> str:
    """Return the word for pieces of one lesion on one side; empty where there is no grading or nothing to grade by.

    Depths grade by the deepest piece, shares of a lung by their sum.
    """
    grading = gradings().get(name)
    if grading is None:
        return ""
    measured = [value for p in pieces if (value := getattr(p, grading.measure)) is not None]
    if not measured or len(measured) < len(pieces):
        return ""
    value = sum(measured) if grading.measure == "lung_share" else max(measured)
    return next(b.word for b in grading.bands if b.upto is None or value <= b.upto)
