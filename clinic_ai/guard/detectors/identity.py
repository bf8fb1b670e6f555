"""Personal data: exact match against this study's own tags, in any order and notation."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import ClassVar

from clinic_ai.domain import PatientIdentity
from clinic_ai.guard.detectors.base import Detector, Flag, Span, View
from clinic_ai.guard.text import Text, Token

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ORDINAL = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?\Z")
_SHORTEST_ID = 4
_NAME_REACH = 4
"""Two parts of a name belong together if at most so many words lie from one to the other."""


@dataclass(frozen=True)
class _Needles:
    """What to look for: folded parts of the name, ids without separators, the date of birth."""

    name: frozenset[str]
    ids: tuple[str, ...]
    born: date | None


@lru_cache(maxsize=4)
def _needles(identity: PatientIdentity) -> _Needles:
    name = {w for w in Text(identity.patient_name).words if len(w) >= 2 and not w.isdigit()}
    ids = ("".join(Text(value).words) for value in (identity.patient_id, identity.accession_number))
    return _Needles(frozenset(name), tuple(i for i in ids if len(i) >= _SHORTEST_ID), _dicom_date(identity.birth_date))


def _dicom_date(value: str) -> date | None:
    digits = value.strip().replace("-", "").replace(".", "").replace("/", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


class OwnIdentity(Detector):
    """Fires on the patient's name, id, accession number or date of birth.

    One part of a name counts alone unless it is an ordinary word ("Small", "Long") in lower case or at the start
    of a sentence; two parts near each other always count.
    """

    ordinary: str = "ordinary-words"
    lexicon_fields: ClassVar[tuple[str, ...]] = ("ordinary",)

    def detect(self, view: View) -> Flag | None:
        """Return every place; the reason names the kind of datum and never the datum."""
        needles = _needles(view.subject.identity)
        found = {
            "name": list(self._names(view.text, needles.name)),
            "id": [span for needle in needles.ids for span in _ids(view.text, needle)],
            "date of birth": list(_dates(view.text, needles.born)) if needles.born else [],
        }
        kinds = [kind for kind, spans in found.items() if spans]
        if not kinds:
            return None
        return Flag(f"personal data of this patient ({', '.join(kinds)})", tuple(s for f in found.values() for s in f))

    def _names(self, text: Text, parts: frozenset[str]) -> Iterator[Span]:
        hits = sorted(at for part in parts for at in text.places.get(part, ()))
        if not hits:
            return
        ordinary = {text.tokens[m.first].word for m in self._lexicons["ordinary"].find(text)}
        starts = {first for first, _ in text.sentences}
        for at in hits:
            token = text.tokens[at]
            beside = any(
                other != at and abs(other - at) <= _NAME_REACH and text.tokens[other].word != token.word
                for other in hits
            )
            capital = text.raw[token.start].isupper() and at not in starts
            if beside or capital or (token.word not in ordinary and len(token.word) >= 3):
                yield token.start, token.end


def _ids(text: Text, needle: str) -> Iterator[Span]:
    """Find an id whatever separators stand inside it; only from the start of one word to the end of another."""
    squeezed = "".join(text.words)
    if needle not in squeezed:
        return
    tokens = text.tokens
    starts: list[int] = []
    length = 0
    for token in tokens:
        starts.append(length)
        length += len(token.word)
    begin = squeezed.find(needle)
    while begin >= 0:
        end = begin + len(needle)
        first = bisect_right(starts, begin) - 1
        last = bisect_right(starts, end - 1) - 1
        if starts[first] == begin and starts[last] + len(tokens[last].word) == end:
            yield tokens[first].start, tokens[last].end
        begin = squeezed.find(needle, begin + 1)


def _dates(text: Text, born: date) -> Iterator[Span]:
    for solid in {born.strftime("%Y%m%d"), born.strftime("%d%m%Y"), born.strftime("%m%d%Y")}:
        for at in text.places.get(solid, ()):
            yield text.starts[at], text.ends[at]
    years = {str(born.year), f"{born.year % 100:02d}"}
    for at in (at for year in years for at in text.places.get(year, ())):
        for first in (at - 2, at):  # the year stands last or first
            window = text.tokens[first : first + 3] if first >= 0 else ()
            if len(window) == 3 and _is_date(window, born, years):
                yield window[0].start, window[2].end


def _is_date(window: tuple[Token, ...], born: date, years: set[str]) -> bool:
    """Return whether three words are the date in one of the usual orders: y-m-d, d-m-y, m-d-y."""
    first, second, third = (t.word for t in window)
    orders = ((second, third, first), (second, first, third), (first, second, third))  # as (month, day, year)
    return any(y in years and _month(m) == born.month and _day(d) == born.day for m, d, y in orders)


def _month(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word) if len(word) <= 2 else 0
    return _MONTHS.index(word[:3]) + 1 if word[:3] in _MONTHS else 0


def _day(word: str) -> int:
    match = _ORDINAL.match(word)
    return int(match[1]) if match and match[1].isascii() else 0
