"""A pack that changes another: which file, rule and case counts. Files of the pack it extends lie under ``base/``.

A word list takes in the one of the same name with a line ``@base``, or replaces it with a line ``@replace``. A file of
templates is laid over the one of the same name, table by table and key by key. A rule replaces the one with its id, and
its cases.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from clinic_ai.guard.cases import Case
from clinic_ai.guard.lexicon import REPLACE, TAKE_IN
from clinic_ai.guard.packfiles import BASE

_OF_RULES = ("policy.toml", "cases.toml", "README.md")


def laid_over(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that count: a pack's own, and what it does not have itself of the pack it extends."""
    own = {name: content for name, content in files.items() if not name.startswith(BASE)}
    base = {name.removeprefix(BASE): content for name, content in files.items() if name.startswith(BASE)}
    for name, content in base.items():
        if name not in own and name not in _OF_RULES:
            own[name] = content
        elif name.startswith("lexicons/"):
            own[name] = b"\n".join(
                content if _entry(line) == TAKE_IN.encode() else line
                for line in own[name].splitlines()
                if _entry(line) != REPLACE.encode()
            )
    return own


def _entry(line: bytes) -> bytes:
    return line.partition(b"#")[0].strip()


def load_toml(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return a TOML file as a table; templates are laid over those of the pack it extends.

    Raise UnicodeDecodeError or tomllib.TOMLDecodeError if it is none.
    """
    table = tomllib.loads(files[name].decode("utf-8"))
    base = files.get(BASE + name)
    if base is None or not name.startswith("templates/"):
        return table
    under = tomllib.loads(base.decode("utf-8"))
    for key, value in table.items():
        below = under.get(key)
        under[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return under


def inherited_cases(cases: Iterable[Case], rules: Iterable[str]) -> tuple[Case, ...]:
    """Return the cases of the rules that are taken over.

    They prove that their rule fires; what the whole then does is for the pack that changed something to say.
    """
    kept = set(rules)
    return tuple(c.model_copy(update={"action": None, "released": None}) for c in cases if c.rule in kept)
