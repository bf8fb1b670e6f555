"""How one name may be written: with ä or ae, joined up, and in scripts that put no blanks between words."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from itertools import permutations

from clinic_ai.guard.text import Text

_OTHERWISE = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "Ø": "Oe", "Å": "Aa"}
)
_WRITTEN_OTHERWISE = re.compile("[äöüøåÄÖÜØÅ]|[aouAOU][\u0308\u030a]")
_UNSPACED = re.compile(  # Thai, Lao, Burmese, Khmer, kana, ideographs; Hangul, where particles stick to a name
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SHORTEST_PAIR = 6
"""Shorter pairs are words too often: An^Le is no lean patient."""
_MOST_WORDS = 8
"""Of a name; a header that claims more would only cost time."""


def name_words(name: str) -> set[str]:
    """Return the folded words of a DICOM name (PS3.5 section 6.2.1), each also with ä as ae."""
    composed = unicodedata.normalize("NFC", name)
    return {word for form in {composed, composed.translate(_OTHERWISE)} for word in Text(form).words}


def joined_up(name: str) -> set[str]:
    """Return the words of each component as one, and each pair of words of a representation as one."""
    composed = unicodedata.normalize("NFC", name)
    found: set[str] = set()
    for form in {composed, composed.translate(_OTHERWISE)}:
        for components in _representations(form):
            words = [Text(component).words for component in components]
            found.update("".join(several) for several in words if len(several) > 1)
            single = list(dict.fromkeys(word for several in words for word in several))[:_MOST_WORDS]
            solid = list(dict.fromkeys("".join(several) for several in words if several))[:_MOST_WORDS]
            for parts in (single, solid):
                pairs = ("".join(pair) for pair in permutations((p for p in parts if len(p) >= 2), 2))
                found.update(pair for pair in pairs if len(pair) >= _SHORTEST_PAIR)
    return found


def unspaced_parts(name: str) -> tuple[str, ...]:
    """Return the folded parts of a name in a script without blanks, and family and given name in one.

    A part of one character stands in too many words to count alone.
    """
    found: dict[str, None] = {}
    for components in _representations(unicodedata.normalize("NFC", name)):
        parts = [part for component in components for part in component.split() if _UNSPACED.search(part)]
        pairs = (between.join(pair) for pair in permutations(parts[:_MOST_WORDS], 2) for between in ("", " "))
        found.update(dict.fromkeys(Text(part).folded for part in (*pairs, *parts) if len(part) >= 2))
    return tuple(found)


def spelt_otherwise(text: Text) -> dict[str, list[int]]:
    """Return where each word of a text stands, under its spelling with ae for ä too."""
    places = dict(text.places)
    found = (bisect_right(text.starts, match.start()) - 1 for match in _WRITTEN_OTHERWISE.finditer(text.raw))
    for at in dict.fromkeys(at for at in found if at >= 0):
        written = unicodedata.normalize("NFC", text.raw[text.starts[at] : text.ends[at]])
        word = "".join(Text(written.translate(_OTHERWISE)).words)
        places[word] = [*places.get(word, ()), at]
    return places


def _representations(name: str) -> Iterator[list[str]]:
    """Yield the components of the alphabetic, ideographic and phonetic representation."""
    for representation in name.split("="):
        yield [part.strip() for part in representation.split("^") if part.strip()]
