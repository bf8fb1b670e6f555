"""What a person chose of a training run, checked against the defaults of a trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from clinic_ai.contract import Recipe
from clinic_ai.errors import DatasetError

Value = float | int | str | bool


def chosen(values: Recipe, defaults: Mapping[str, Value], *, also: Sequence[str] = ()) -> dict[str, Value]:
    """Return those of ``values`` that have a default, each in the type of its default.

    ``also`` are further keys that a recipe may have, which somebody else reads. Raise DatasetError if a key is unknown
    or a value of another kind than its default.
    """
    strange = sorted(set(values) - set(defaults) - set(also))
    if strange:
        raise DatasetError(f"The recipe has no key {', '.join(strange)}; it has {', '.join((*defaults, *also))}.")
    return {key: _like(defaults[key], key, value) for key, value in values.items() if key in defaults}


def _like(default: Value, key: str, value: Value) -> Value:
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        wanted = "a word"
    elif isinstance(default, bool):
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    else:
        wanted = "a whole number" if isinstance(default, int) else "a number"
        if not isinstance(value, str | bool) and math.isfinite(value) and type(default)(value) == value:
            return type(default)(value)
    raise DatasetError(f"The recipe's {key} is {value!r}; write {wanted}, such as {key}={str(default).lower()}.")


def require(key: str, holds: bool, range_: str) -> None:
    """Raise DatasetError, with the ``range_`` of a recipe's key in words, unless it ``holds``."""
    if not holds:
        raise DatasetError(f"The recipe's {key} is {range_}.")
