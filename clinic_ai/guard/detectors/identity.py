"""Personal data: match against this study's own tags, in any order and notation."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from itertools import accumulate, permutations
from typing import ClassVar

from clinic_ai.domain import PatientIdentity
from clinic_ai.guard.detectors.base import Detector, Flag, Span, View
from clinic_ai.guard.detectors.spellings import joined_up, name_words, spelt_otherwise, unspaced_parts
from clinic_ai.guard.text import Text, word_set

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "mae": 3, "mrz": 3, "apr": 4, "may": 5, "mai": 5, "jun": 6, "jul": 7, "aug": 8,
    "sep": 9, "oct": 10, "okt": 10, "nov": 11, "dec": 12, "dez": 12,
}  # fmt: skip
"""By the first three letters, English and German."""
_ORDINAL = re.compile(r"(\d{1,2})(?:st|nd|rd|th|te|ten)?\Z")
_BETWEEN_DATES = word_set("of the in on day year am im den dem vom jahr jahre")
"""Words inside a date that is written out: the 12th of May, in 1970."""
_DATE_REACH = 6
_DATES = ("%Y%m%d", "%d%m%Y", "%m%d%Y", "%y%m%d", "%d%m%y", "%m%d%y")
_SHORTEST_ID = 4
_CORE = re.compile(r"[a-z]*0*([1-9]\d{4,})[a-z]*")
_GLUED_ID = 5
"""An id of so many characters counts with letters glued to it: MRN12345678."""
_SPREAD_ID = 7
_SPREAD_PART = 3
"""An id of so many characters counts in two parts of at least so many, wherever they stand."""
_NAME_REACH = 4
"""Two parts of a name belong together if at most so many words lie from one to the other."""
_SPLIT_NAME = 5
"""A part of a name of so many letters counts with a blank inside: Mc Donald."""
_SHORT_WORDS = word_set(
    "ab ad ah al am an ap as at be by cm ct da do du er es go he hr id if im in is it ja la ll lr me mg ml mm mr my "
    "na no ob of oh ok on or pa pe rl so th to tv up us we wo zu"
)
"""Short names that are ordinary words or abbreviations; they count only inside a sentence, with a capital."""


@dataclass(frozen=True)
class _Needles:
    """What to look for: folded parts of the name, ids without separators, the date of birth."""

    name: frozenset[str]
    """Words of the name, as they are and with ä as ae; and their genitive."""
    solid: tuple[str, ...]
    """Words and pairs of words as they may be joined up or split: johnsmith, obrien."""
    unspaced: tuple[str, ...]
    """Parts of a name in a script that puts no blanks between words."""
    ids: tuple[str, ...]
    born: date | None
    solid_dates: frozenset[str]
    """The date of birth in digits alone, in any order."""


@lru_cache(maxsize=4)
def _needles(identity: PatientIdentity) -> _Needles:
    words = {w for w in name_words(identity.patient_name) if len(w) >= 2 and not w.isdigit()}
    name = words | {word + "s" for word in words if len(word) >= _SHORTEST_ID}
    solid = {w for w in words | joined_up(identity.patient_name) if len(w) >= _SHORTEST_ID}
    ids: dict[str, None] = {}
    for value in (identity.patient_id, identity.accession_number):
        squeezed = "".join(Text(value).words)
        if len(squeezed) >= _SHORTEST_ID:
            ids[squeezed] = None
        if core := _CORE.fullmatch(squeezed):
            ids[core[1]] = None
    born = _dicom_date(identity.birth_date)
    dates = frozenset(born.strftime(order) for order in _DATES) if born else frozenset()
    return _Needles(frozenset(name), tuple(solid), unspaced_parts(identity.patient_name), tuple(ids), born, dates)


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
        text = view.text
        squeezed = _Squeezed(text, "".join(text.words))
        names = (*self._names(text, needles), *_solid_names(squeezed, needles), *_unspaced_names(text, needles))
        found = {
            "name": list(names),
            "id": [*(s for needle in needles.ids for s in _ids(squeezed, needle)), *_spread_ids(view, needles.ids)],
            "date of birth": list(_dates(text, needles.born, needles.solid_dates)) if needles.born else [],
        }
        kinds = [kind for kind, spans in found.items() if spans]
        if not kinds:
            return None
        return Flag(f"personal data of this patient ({', '.join(kinds)})", tuple(s for f in found.values() for s in f))

    def _names(self, text: Text, needles: _Needles) -> Iterator[Span]:
        places: Mapping[str, list[int]] = text.places if text.plain else spelt_otherwise(text)
        hits = sorted({at for part in needles.name for at in places.get(part, ())})
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
            capital = text.raw[token.start].isupper()
            common = token.word in (_SHORT_WORDS if len(token.word) == 2 else ordinary)
            if beside or (capital and not (common and at in starts)) or (not common and len(token.word) >= 3):
                yield token.start, token.end


@dataclass(frozen=True)
class _Squeezed:
    """The words of a text without anything between them."""

    text: Text
    words: str

    @cached_property
    def starts(self) -> list[int]:
        """Where each token starts in ``words``."""
        return list(accumulate(map(len, self.text.words[:-1]), initial=0))

    def places(self, needle: str) -> Iterator[tuple[int, int, int, int]]:
        """Yield begin and end of a needle, and the first and the last token it touches."""
        begin = self.words.find(needle)
        while begin >= 0:
            end = begin + len(needle)
            yield begin, end, bisect_right(self.starts, begin) - 1, bisect_right(self.starts, end - 1) - 1
            begin = self.words.find(needle, begin + 1)


def _solid_names(squeezed: _Squeezed, needles: _Needles) -> Iterator[Span]:
    """Find parts of the name that are joined up ("JohnSmith") or split ("Smi-th", "O'Brien" for OBRIEN)."""
    text = squeezed.text
    for needle in needles.solid:
        if needle not in squeezed.words:
            continue
        for begin, end, first, last in squeezed.places(needle):
            whole = squeezed.starts[first] == begin and squeezed.starts[last] + len(text.words[last]) == end
            if whole and (needle not in needles.name or (first != last and _one_word(text, first, last, len(needle)))):
                yield text.starts[first], text.ends[last]


def _one_word(text: Text, first: int, last: int, length: int) -> bool:
    """Return whether tokens are one word: nothing blank between them but after a hyphen, or capitals that say so."""
    gaps = (text.raw[text.ends[at] : text.starts[at + 1]] for at in range(first, last))
    if all("-" in gap or not any(map(str.isspace, gap)) for gap in gaps):
        return True
    capitals = [text.raw[text.starts[at]].isupper() for at in range(first, last + 1)]
    inside = all(first != start for start, _ in text.sentences)
    return length >= _SPLIT_NAME and capitals[0] and (all(capitals) or inside)


def _unspaced_names(text: Text, needles: _Needles) -> Iterator[Span]:
    for needle in needles.unspaced if not text.plain else ():
        begin = text.folded.find(needle)
        while begin >= 0:
            start, end = text.span(begin, begin + len(needle))
            if Text(text.raw[start:end]).folded == needle:  # and not half of a syllable that folding has taken apart
                yield start, end
            begin = text.folded.find(needle, begin + 1)


def _ids(squeezed: _Squeezed, needle: str) -> Iterator[Span]:
    """Find an id whatever separators stand inside it, from the start of one word to the end of another.

    An id that begins or ends with a digit counts with letters (and zeros) glued to it there.
    """
    if needle not in squeezed.words:
        return
    text = squeezed.text
    for begin, end, first, last in squeezed.places(needle):
        before = squeezed.words[squeezed.starts[first] : begin]
        behind = squeezed.words[end : squeezed.starts[last] + len(text.words[last])]
        if before or behind:
            label = before.rstrip("0")
            if len(needle) < _GLUED_ID or (first != last and len(needle) <= _GLUED_ID):
                continue
            if (before and not needle[0].isdigit()) or (label and not label[-1].isalpha()):
                continue
            if behind and not (needle[-1].isdigit() and behind[0].isalpha()):
                continue
        yield text.starts[first], text.ends[last]


def _spread_ids(view: View, ids: tuple[str, ...]) -> Iterator[Span]:
    """Find one of two parts of an id, where the other stands elsewhere in this statement or in another one."""
    text = view.text
    for needle in ids:
        for cut in range(_SPREAD_PART, len(needle) - _SPREAD_PART + 1) if len(needle) >= _SPREAD_ID else ():
            for here, there in permutations((needle[:cut], needle[cut:])):
                if here in text.places and any(there in other.places for other in (text, *view.texts)):
                    yield from ((text.starts[at], text.ends[at]) for at in text.places[here])


def _dates(text: Text, born: date, solid_dates: Iterable[str]) -> Iterator[Span]:
    for solid in solid_dates:
        for at in text.places.get(solid, ()):
            yield text.starts[at], text.ends[at]
    years = {str(born.year), f"{born.year % 100:02d}"}
    words = text.words
    for at in (at for year in years for at in text.places.get(year, ())):
        before = [n for n in range(max(0, at - _DATE_REACH), at) if words[n] not in _BETWEEN_DATES][-2:]
        behind = [n for n in range(at + 1, min(len(words), at + _DATE_REACH)) if words[n] not in _BETWEEN_DATES][:2]
        for window in ([*before, at], [at, *behind]):  # the year stands last or first
            if len(window) == 3 and _is_date([words[n] for n in window], born, years):
                yield text.starts[window[0]], text.ends[window[2]]


def _is_date(window: list[str], born: date, years: set[str]) -> bool:
    """Return whether three words are the date in one of the usual orders: y-m-d, d-m-y, m-d-y."""
    first, second, third = window
    orders = ((second, third, first), (second, first, third), (first, second, third))  # as (month, day, year)
    return any(y in years and _month(m) == born.month and _day(d) == born.day for m, d, y in orders)


def _month(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word) if len(word) <= 2 else 0
    return _MONTHS.get(word[:3], 0)


def _day(word: str) -> int:
    match = _ORDINAL.match(word)
    return int(match[1]) if match and match[1].isascii() else 0
