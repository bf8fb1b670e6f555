"""What stands in a pack and has no effect: a misspelt name would otherwise look like a change that was made."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath

from clinic_ai.domain import Audience
from clinic_ai.guard.packfiles import BASE
from clinic_ai.guard.templates import KINDS, KNOWN_FINDING

_NEAR = 0.75
"""How alike two names must be, from 0 to 1, for one to be taken for a misspelling of the other."""
Names = Mapping[Audience, Collection[str]]


def unused_lexicons(files: Mapping[str, bytes], used: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each of the pack's own word lists that no rule and no question looks in.

    ``files`` are those of the pack as they are read; the lists of the pack it extends, under ``base/``, count as used.
    """
    own = [PurePosixPath(path) for path in files if BASE + path not in files]
    lists = [path for path in own if path.parent == PurePosixPath("lexicons") and path.suffix == ".txt"]
    for path in lists:
        if path.stem not in used and (hint := _hint(path.stem, used, files)):
            yield f"{path} has no effect: no rule and no question looks in it; {hint}"


def unused_templates(files: Mapping[str, bytes], asked_for: Names, marked: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each template and mark of the pack's own files that is never said.

    ``asked_for`` are the templates that rules and questions name, ``marked`` the ids of all rules. Every file of
    templates must be TOML that has been read before.
    """
    for path, content in files.items():
        if PurePosixPath(path).parent != PurePosixPath("templates") or not path.endswith(".toml"):
            continue
        own = tomllib.loads(content.decode("utf-8"))
        under = tomllib.loads(files[BASE + path].decode("utf-8")) if BASE + path in files else {}
        known = {audience.value: {*KINDS, KNOWN_FINDING, *asked_for[audience]} for audience in Audience}
        for table, names in {**known, "marks": set(marked)}.items():
            # What the extended pack says is not the clinic's to answer for, even where its rule was left out.
            usable = {*names, *_keys(under, table)}
            for name in _keys(own, table):
                if name not in usable and (hint := _hint(name, usable, files)):
                    yield f"{path} [{table}] {name} has no effect: nothing asks for it; {hint}"


def _keys(table: Mapping[str, object], name: str) -> Iterable[str]:
    inner = table.get(name)
    return inner.keys() if isinstance(inner, dict) else ()


def _hint(name: str, known: Iterable[str], files: Mapping[str, bytes]) -> str:
    """Return what to do about an unused name; nothing if it may stand.

    A copy of a pack whose ``questions.toml`` was taken away, so that no question is answered, may keep what those
    questions used; there only what is spelt nearly like a used name is a mistake.
    """
    near = get_close_matches(name, sorted(known), n=1, cutoff=_NEAR)
    if near:
        return f"did you mean {near[0]!r}?"
    return "remove it, or name it in a rule" if _asks(files) else ""


def _asks(files: Mapping[str, bytes]) -> bool:
    return "questions.toml" in files or f"{BASE}questions.toml" in files
