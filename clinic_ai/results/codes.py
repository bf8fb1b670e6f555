"""Loads ``codes.toml``, the one table of what plugins may find and how it is coded."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import StringConstraints, TypeAdapter

from clinic_ai.domain import Key, Word
from clinic_ai.errors import PluginError

Scheme = Literal["SCT", "RADLEX", "DCM"]
Text64 = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""DICOM's limit for a code meaning (VR LO)."""


class OtherCode(Word):
    """The code of the same thing in another scheme."""

    scheme: Scheme
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,16}$")]
    meaning: Text64


class FindingCode(OtherCode):
    """One condition: how people read it, and the code that goes into DICOM objects, with where it comes from."""

    label: Text64
    match: Literal["exact", "near"]
    source: Annotated[str, StringConstraints(min_length=1)]
    also: tuple[OtherCode, ...] = ()


_TABLE = TypeAdapter(dict[Key, FindingCode])


@cache
def table() -> Mapping[str, FindingCode]:
    """Return the whole table by condition key, read once."""
    text = resources.files("clinic_ai.results").joinpath("codes.toml").read_text(encoding="utf-8")
    return _TABLE.validate_python(tomllib.loads(text))


def finding_code(condition: str) -> FindingCode:
    """Return the entry of a condition. Raise PluginError if the table has none."""
    entry = table().get(condition)
    if entry is None:
        raise PluginError(
            f"A plugin names the condition {condition!r}, which the table of codes does not have.",
            remedy="Use one of the keys of clinic_ai/results/codes.toml, or have the condition added to it.",
        )
    return entry
