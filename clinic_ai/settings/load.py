"""Reads ``clinic.toml`` and says every mistake at once: where it is, what is wrong, what to write instead."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from clinic_ai import DEFAULT_HOME
from clinic_ai.errors import SettingsError
from clinic_ai.settings.checks import across_keys
from clinic_ai.settings.describe import field_at, table_model
from clinic_ai.settings.lines import KeyPath, key_lines
from clinic_ai.settings.model import Settings
from clinic_ai.settings.sentences import path_words, sentence

_REMEDY = "Correct the file and try again; `clinic-ai doctor` checks it without changing anything."


def load_settings(path: Path) -> Settings:
    """Read the settings from ``clinic.toml`` in a home directory. Raise SettingsError with every problem."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.", remedy="Run `clinic-ai init`, which writes it."
        ) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _refused(path.name, [f"{path.name} line {line}: this is not UTF-8; save the file as UTF-8"]) from error
    return parse_settings(text, name=path.name, home=path.absolute().parent)


def parse_settings(text: str, *, name: str = "clinic.toml", home: PurePath = DEFAULT_HOME) -> Settings:
    """Return the settings a TOML text holds; ``home`` is where its relative folders start.

    Raise SettingsError whose ``problems`` has a sentence for each mistake, in the order of the lines.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, brackets as deep
        raise _refused(name, [_syntax(name, text, error)]) from error
    mistakes = _mistakes(data)
    settings = _valid_rest(data, [path for path, _ in mistakes])
    wrong = {path for path, _ in mistakes}
    for paths, words in across_keys(settings, home):
        # What was replaced by a default has its own sentence already.
        if not any(path[: len(w)] == w or w[: len(path)] == path for path in paths for w in wrong):
            mistakes.append((paths[-1], words))
    if not mistakes:
        return settings
    lines = key_lines(text)
    problems = sorted((_line_of(path, lines), path_words(path), words) for path, words in mistakes)
    raise _refused(name, [f"{name} line {line}: {where}: {words}" for line, where, words in problems])


def _mistakes(data: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    """Return (path, what is wrong and what to write instead) of each key that is wrong by itself."""
    try:
        _validate(data)
    except ValidationError as error:
        # A list whose only element is wrong is also reported as too short; one sentence is enough.
        parents = {tuple(e["loc"])[:-1] for e in error.errors()}
        found = [(tuple(e["loc"]), e) for e in error.errors() if e["type"] != "too_short" or e["loc"] not in parents]
        return [(path, sentence(e, _at(data, path))) for path, e in found]
    return []


def _validate(data: dict[str, Any]) -> Settings:
    # Strict JSON mode: "2" is no number and true is no 1, while lists may become tuples.
    return Settings.model_validate_json(json.dumps(data, default=str), strict=True)


def _valid_rest(data: dict[str, Any], wrong: list[KeyPath]) -> Settings:
    """Return the settings with every wrong key at its default, so that the checks across keys can go on."""
    rest = json.loads(json.dumps(data, default=str))
    for path in wrong:
        _reset(rest, path)
    return _validate(rest)


def _reset(data: Any, path: KeyPath) -> None:
    """Remove the key at ``path``; in a list of tables empty the table, and remove a list of plain values whole."""
    field = field_at(path)
    if isinstance(path[-1], int) and field is not None and table_model(field) is None:
        path = path[:-1]
    parent = _at(data, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
    elif isinstance(parent, list) and isinstance(path[-1], int):
        parent[path[-1]] = {}


def _child(data: Any, step: str | int) -> Any:
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return None


def _at(data: Any, path: KeyPath) -> Any:
    for step in path:
        data = _child(data, step)
    return data


def _line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    """Return the line of a key, or of the nearest table around it that the file has."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1


def _syntax(name: str, text: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{name} line 1: lists or tables are nested too deeply; write plain lists"
    found = re.search(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
    what, line, column = found.groups() if found else (str(error), None, None)
    line = line or str(text.rstrip("\n").count("\n") + 1)
    where = f", column {column}" if column else ""
    return f"{name} line {line}{where}: this is not TOML: {what}; write key = value, texts in double quotes"


def _refused(name: str, problems: list[str]) -> SettingsError:
    count = "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return SettingsError(f"{name} has {count}: " + "; ".join(problems), problems=tuple(problems), remedy=_REMEDY)
