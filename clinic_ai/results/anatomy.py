"""Loads ``anatomy.toml``, the one table of the structures that segmentations show and of where findings lie."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import StringConstraints, TypeAdapter

from clinic_ai.domain import Key, Word
from clinic_ai.results.codes import Text64


class AnatomyCode(Word):
    """One structure: how people read it, and its code in SNOMED CT, with where it comes from."""

    label: Text64
    code: Annotated[str, StringConstraints(pattern=r"^[0-9]{5,16}$")]
    meaning: Text64
    laterality: Literal["left", "right", ""] = ""
    """Side, where the code has none."""
    match: Literal["exact", "near"]
    source: Annotated[str, StringConstraints(min_length=1)]


_TABLE = TypeAdapter(dict[Key, AnatomyCode])


@cache
def table() -> Mapping[str, AnatomyCode]:
    """Return the whole table by key, read once."""
    text = resources.files("clinic_ai.results").joinpath("anatomy.toml").read_text(encoding="utf-8")
    return _TABLE.validate_python(tomllib.loads(text))


def place_code(words: str) -> AnatomyCode | None:
    """Return the structure that a report calls by these words, such as "right lower lobe"; None if none is."""
    wanted = " ".join(words.split()).casefold()
    return next((entry for entry in table().values() if entry.label.casefold() == wanted), None)
