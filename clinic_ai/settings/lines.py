"""Where each key of a TOML text stands.

The standard parser tells no lines, so this walks the text statement by statement and lets that same parser
say where a statement ends and which keys it sets: nothing of TOML's grammar is written down again here.
"""

from __future__ import annotations

import tomllib

KeyPath = tuple[str | int, ...]
Mistake = tuple[tuple[KeyPath, ...], str]
"""The keys concerned, the last of them the one to blame, and the sentence."""


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every key and table of a TOML text that parses.

    A path is made of keys and, inside arrays, indexes from 0: ``("inbox", 1, "name")``.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for number, statement, content in _statements(text):
        if statement.lstrip().startswith("["):
            table = _enter(content, counts)
            lines.setdefault(table, number)
        else:
            _record(content, table, number, lines)
    return lines


def _statements(text: str) -> list[tuple[int, str, dict[str, object]]]:
    """Return (line, text, content) of each statement; one that spans lines starts at the first of them."""
    found = []
    start, pending = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending:
            start = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
        pending += line + "\n"
        try:
            content = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue  # inside an array or a text of several lines: the statement goes on
        found.append((start, pending, content))
        pending = ""
    return found


def _enter(content: dict[str, object], counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path of the table a header opens, counting the elements of arrays of tables."""
    path: KeyPath = ()
    value: object = content
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        path += (key,)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _record(value: object, path: KeyPath, number: int, lines: dict[KeyPath, int]) -> None:
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for key, child in children:
        lines.setdefault((*path, key), number)
        _record(child, (*path, key), number, lines)
