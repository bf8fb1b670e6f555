"""Puts a validation error into words a clinic's IT person can act on."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from clinic_ai.settings.describe import KeyInfo, field_at, key_info, model_at, table_model, toml_value
from clinic_ai.settings.lines import KeyPath

_BOUNDS = {
    "greater_than_equal": ("too small", "{ge:g} or more"),
    "less_than_equal": ("too large", "{le:g} or less"),
}

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def path_words(path: KeyPath) -> str:
    """Return a path as people write it, list elements counted from 1: ``routing.rule[2].plugins``."""
    words = ""
    for step in path:
        if isinstance(step, int):
            words += f"[{step + 1}]"
        else:
            key = step if _BARE_KEY.fullmatch(step) else json.dumps(step)
            words += f".{key}" if words else key
    return words


def sentence(error: ErrorDetails, value: Any) -> str:
    """Return what is wrong with ``value`` and what to write instead."""
    path: KeyPath = tuple(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(path)
    field = field_at(path)
    if field is None or table_model(field) is not None:
        return _not_a_table(path, value)
    info = _info(field, path)
    if kind in _BOUNDS:
        what, bound = _BOUNDS[kind]
        return f"{_shown(value)} is {what}; write {_measure(info)} of {bound.format(**error['ctx'])}"
    if kind == "too_short":
        return f"the list is empty; write {_wanted(info)}"
    if kind in {"too_long", "string_too_long"}:
        parts = "entries" if kind == "too_long" else "characters"
        return f"it is too long; write at most {error['ctx']['max_length']} {parts}"
    return _of_another_kind(info, value)


def _of_another_kind(info: KeyInfo, value: Any) -> str:
    if isinstance(info.default, tuple) and isinstance(value, str | int | float):
        return f"{_shown(value)} is not {info.kind}; write it in brackets: {toml_value((value,))}"
    if info.choices and isinstance(value, str) and (near := difflib.get_close_matches(value, info.choices, n=1)):
        return f"{_shown(value)} is not {info.kind}; did you mean {near[0]}?"
    if isinstance(info.example, str) and info.example:
        return f"{_shown(value)} is not {info.kind}; write for example {toml_value(info.example)}"
    return f"{_shown(value)} is not {info.kind}; write {_wanted(info)}"


def _unknown(path: KeyPath) -> str:
    known = list(model_at(path[:-1]).model_fields)
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    place = path_words(path[:-1]) or "the file"
    hint = f"did you mean {near[0]}?" if near else f"remove it; {place} has {', '.join(known)}"
    return f"there is no such key; {hint}"


def _not_a_table(path: KeyPath, value: Any) -> str:
    name = ".".join(step for step in path if isinstance(step, str))
    field = field_at(path)
    many = field is not None and get_origin(field.annotation) is tuple
    header = f"[[{name}]]" if many else f"[{name}]"
    if value == []:
        return f"the list is empty; write a table headed {header}, or leave the key out"
    return f"{_shown(value)} is not a table; write {header} on a line of its own"


def _wanted(info: KeyInfo) -> str:
    """Return what to write: what the key holds, its unit, and an example where one helps."""
    if info.choices or isinstance(info.example, bool) or info.example in (None, "", ()):
        return _measure(info)
    return f"{_measure(info)} such as {toml_value(info.example)}"


def _measure(info: KeyInfo) -> str:
    return f"{info.kind} of {info.unit}" if info.unit else info.kind


def _info(field: FieldInfo, path: KeyPath) -> KeyInfo:
    """Describe the key a path names, or the element of its list if the path ends in one."""
    name = path_words(path)
    if not isinstance(path[-1], int):
        return key_info(name, field)
    element = FieldInfo.from_annotation(get_args(field.annotation)[0])
    element.default = next(iter(field.default), None)
    return key_info(name, element)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
