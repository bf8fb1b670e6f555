"""How hard a text is to read, as a school grade, by the usual formula of its language.

English: Flesch-Kincaid, 0.39 · words per sentence + 11.8 · syllables per word − 15.59 (Kincaid et al. 1975).
German: first Wiener Sachtextformel, 0.1935 · MS + 0.1672 · SL + 0.1297 · IW − 0.0327 · ES − 0.875, where SL is words
per sentence and MS, IW and ES are the per cent of words with three or more syllables, with more than six letters, and
with one syllable (Bamberger and Vanecek 1984).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from clinic_ai.guard.text import Text

_VOWELS = re.compile(r"[aeiouy]+")
_GERMAN_VOWELS = re.compile(r"aa|ai|au|ei|eu|ie|oo|ee|[aeiouy]")
_LONG_WORD = 6


def reading_grade(text: Text, language: str) -> float | None:
    """Return the school grade of a text with at least one word; None for a language without a formula."""
    formula = _FORMULAS.get(language.lower().partition("-")[0])
    words = [w for w in text.words if w.isalpha()]
    return formula(words, max(1, len(text.sentences))) if formula and words else None


def has_formula(language: str) -> bool:
    """Whether the reading level of a language, such as ``en`` or ``en-GB``, can be measured."""
    return language.lower().partition("-")[0] in _FORMULAS


def _flesch_kincaid(words: Sequence[str], sentences: int) -> float:
    syllables = sum(_english_syllables(word) for word in words)
    return 0.39 * len(words) / sentences + 11.8 * syllables / len(words) - 15.59


def _english_syllables(word: str) -> int:
    groups = len(_VOWELS.findall(word))
    silent = word.endswith("e") and not word.endswith("le") and groups > 1
    return max(1, groups - silent)


def _wiener(words: Sequence[str], sentences: int) -> float:
    syllables = [max(1, len(_GERMAN_VOWELS.findall(word))) for word in words]
    many = 100 * sum(n >= 3 for n in syllables) / len(words)
    long = 100 * sum(len(word) > _LONG_WORD for word in words) / len(words)
    one = 100 * sum(n == 1 for n in syllables) / len(words)
    return 0.1935 * many + 0.1672 * len(words) / sentences + 0.1297 * long - 0.0327 * one - 0.875


_FORMULAS: Mapping[str, Callable[[Sequence[str], int], float]] = {"en": _flesch_kincaid, "de": _wiener}
LANGUAGES = tuple(_FORMULAS)
"""Languages that have a formula."""
