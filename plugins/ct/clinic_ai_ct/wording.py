"""Sentences from the lists of ``words/``: which of several is taken, and how numbers and places are put in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

Choice = Callable[[Sequence[str]], str]
"""Takes one of several templates."""
_SLOT = re.compile(r"\{(\w+)\}")
_EIGHT = re.compile(r"\b([Aa]) (?=(?:8\d?|11|18)\b)")
"""Numbers that are spoken with a vowel: an 8 mm nodule."""
_GAPS = re.compile(r"\s+(?=[.,;:)])|(?<=\s)\s+")


def languages() -> tuple[str, ...]:
    """Return the languages that reports are written in."""
    return tuple(sorted(p.name.removesuffix(".toml") for p in files("clinic_ai_ct").joinpath("words").iterdir()))


@lru_cache(maxsize=4)
def words_of(language: str) -> Mapping[str, Any]:
    """Return the words of a language, such as ``en``. Raise ValueError if there are none."""
    if language not in languages():
        raise ValueError(f"reports are written in {', '.join(languages())}, not in {language!r}")
    text = files("clinic_ai_ct").joinpath("words", f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def first(templates: Sequence[str]) -> str:
    """Take the first of several templates: what the appliance itself writes."""
    return templates[0]


class Wording:
    """The words of one language, and a way to choose among them."""

    def __init__(self, language: str = "en", choose: Choice = first) -> None:
        self._words = words_of(language)
        self._choose = choose

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table of the words file."""
        table: Mapping[str, Any] = self._words[name]
        return table

    def phrase(self, key: str, **slots: object) -> str:
        """Return one of ``[phrases]``, filled."""
        return str(self._words["phrases"][key]).format(**slots)

    def sentence(self, section: str, key: str, **slots: str) -> str:
        """Return a sentence of a section. A slot with a capital is its small namesake, begun with a capital.

        Templates that begin with a slot that is empty are passed over if there are others.
        """
        whole = {**slots, **{name.capitalize(): capital(text) for name, text in slots.items()}}
        templates: Sequence[str] = self._words[section][key]
        fitting = [t for t in templates if not (m := _SLOT.match(t)) or whole[m[1]].strip()]
        return tidy(self._choose(fitting or templates).format(**whole))

    def name(self, condition: str, label: str = "") -> str:
        """Return how a condition is called within a sentence; by its label if the words have no name for it."""
        return str(self._words["names"].get(condition) or label.lower() or condition.replace("_", " "))

    def a_name(self, condition: str, label: str = "") -> str:
        """Return the name with an article if it takes one."""
        name = self.name(condition, label)
        if condition not in self._words["countable"]["one"]:
            return name
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

    def number(self, count: int) -> str:
        """Return a count as a word up to ten."""
        words: Sequence[str] = self._words["numbers"]["words"]
        return words[count] if count < len(words) else str(count)

    def listed(self, items: Sequence[str], joint: str = "and") -> str:
        """Return items as "a, b and c"."""
        if len(items) < 2:
            return "".join(items)
        return f"{', '.join(items[:-1])} {self.phrase(joint)} {items[-1]}"


def tidy(text: str) -> str:
    """Return a sentence with single blanks, none before a point, a capital first and "an" before an eight."""
    return capital(_EIGHT.sub(r"\1n ", _GAPS.sub("", text).strip()))


def capital(text: str) -> str:
    """Return a text that begins with a capital."""
    return text[:1].upper() + text[1:]


def rounded(value: float) -> str:
    """Return a measure to two figures as people write it: 123 → 120, 8.3 → 8."""
    if value < 10:
        return f"{max(value, 1):.0f}"
    step = 10 ** (len(str(int(value))) - 2)
    return f"{round(value / step) * step:.0f}"
