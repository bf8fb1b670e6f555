"""Sizes, counts, sides and levels as reports write them. All sizes in mm; offsets are of the folded text."""

from __future__ import annotations

import re
from typing import NamedTuple

from clinic_ai.guard.text import Text

_NUMBER_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19, "twenty": 20,
}  # fmt: skip
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12,
}  # fmt: skip
_AT_LEAST = {"multiple": 2, "several": 2, "numerous": 3, "many": 2, "few": 2}
_SINGLE = {"single", "solitary", "sole", "lone"}
_NO_COUNT = {
    "no", "of", "in", "with", "and", "or", "by", "to", "at", "for", "level", "rib", "segment", "slice", "image",
    "series",
}  # fmt: skip
"""Whatever number stands before these is not how many."""
_UNIT_MM = {"mm": 1.0, "millimet": 1.0, "cm": 10.0, "centimet": 10.0}
_FIGURE = r"(?:\d{1,4}(?:[.,]\d{1,3})?|" + "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)) + ")"
_UNIT = r"(mm|cm|(?:milli|centi)met(?:er|re)s?)\b(?!\s{0,1}(?:3|³|\^))"
_SIZE = re.compile(
    rf"(?<![\w.,])({_FIGURE})\s{{0,2}}(?:{_UNIT})?"
    rf"(?:\s{{0,2}}(x|×|by|-|–|to|and)\s{{0,2}}({_FIGURE})\s{{0,2}}(?:{_UNIT})?)?"
    rf"(?:\s{{0,2}}(?:x|×|by)\s{{0,2}}({_FIGURE}))?[\s-]{{0,2}}{_UNIT}"
)
_BELOW = ("less than", "smaller than", "below", "under", "<")
_ABOVE = ("greater than", "larger than", "more than", "over", "above", "at least", ">")
_RANGES = {"-", "–", "to", "and"}
_CHANGE = re.compile(
    r"(?:gr[eo]w|increas|decreas|shr[aiu]nk|enlarg|reduc|progress|regress|chang|larger|smaller|down|up)"
    r"[^.;]{0,40}from\s\Z"
)
"""Before "13 mm to 6 mm": what it was and what it is, no range."""
_PRIOR = re.compile(
    r"(?:prior|previous|previously|formerly|earlier|initially|last|before|was|were|from|versus|vs\.?|than|"
    r"compared (?:to|with))"
    r"[\s:]{1,2}(?:\w+\s){0,2}\Z"
)
_PART_OR_CHANGE = re.compile(
    r"\b(?:by\s(?:\w+\s){0,1}"
    r"|(?:wall|septum|septa|septations?|cortex|margin|core|component)(?:\s(?:of|is|thickness)){0,3}\s)\Z"
)
"""Before a length: a difference, or that of a part of it."""
_LARGEST = re.compile(r"(?:largest|biggest|dominant|up to|maximum|maximal|greatest)\b[^.;]{0,60}\Z")
_NO_LENGTH_OF_IT = re.compile(
    r"[\s-]{0,2}(?:above|below|from(?!\s{0,2}\d|\s\w+\sto\b)|beyond|distal|proximal|away|cranial|caudal|superior to|"
    r"inferior to|deep to|larger|smaller|bigger|"
    r"(?:thick |thin |axial )?(?:slices?|sections?|collimation|reconstruction|increments?|cuts?))\b"
)
"""Behind a length: a distance, a difference, or how the images were made."""
_LOBES = {"lul": "left upper lobe", "lll": "left lower lobe", "rul": "right upper lobe", "rml": "right middle lobe"}
_LOBES |= {"rll": "right lower lobe", "lingula": "left upper lobe"}
_LEVEL = re.compile(
    r"\b(?:(?P<spine>c|t|th|d|l|s)\s{0,1}-?(?P<number>\d{1,2})(?:\s{0,1}[-/–]\s{0,1}(?:c|t|th|d|l|s)?(?P<upto>\d{1,2}))?\b"
    r"|(?P<rib_ordinal>\d{1,2}(?:st|nd|rd|th)|" + "|".join(_ORDINALS) + r")\s(?:\w+\s){0,2}rib\b"
    r"|ribs?\s(?:no\.?\s)?(?P<rib>\d{1,2})\b"
    r"|(?P<vertebra>" + "|".join(_ORDINALS) + r")\s(?P<region>cervical|thoracic|dorsal|lumbar|sacral)\b"
    r"|(?:(?P<side>left|right)\s)?(?P<lobe>upper|middle|lower)\slobe"
    r"|(?P<short>lul|lll|rul|rml|rll|lingula)\b)"
)
_MOST = {"c": 7, "t": 12, "l": 5, "s": 5}


class Size(NamedTuple):
    """A length in the text: its smallest and largest figure, or a bound; ``start`` and ``end`` in the folded text."""

    low: float
    high: float
    bound: str
    """"below" or "above" what is said; "largest" if it is that of the largest of several."""
    start: int
    end: int

    def agrees(self, measured: float, tolerance_mm: float, tolerance: float) -> bool:
        """Whether a longest diameter could be meant; what is a range means any length in it."""
        slack = max(tolerance_mm, tolerance * measured)
        if self.bound == "below":
            return measured <= self.high + slack
        if self.bound == "above":
            return measured >= self.low - slack
        return self.low - slack <= measured <= self.high + slack


def sizes(text: Text) -> tuple[Size, ...]:
    """Return the lengths in mm and cm; of "12 x 9 mm" the longest, of "3-5 mm" the range."""
    known = text.found.get(_SIZE)
    if known is None:
        folded = text.folded
        # A length needs a unit: most text has none, and the search is what costs.
        found = _SIZE.finditer(folded) if any(unit in folded for unit in _UNIT_MM) else ()
        known = text.found[_SIZE] = tuple(_size(m, folded) for m in found)
    result: tuple[Size, ...] = known
    return result


def present_sizes(text: Text) -> tuple[Size, ...]:
    """Return the lengths that can be those of something now.

    Distances, differences, slice thicknesses and what a length was before ("now 9 mm, prior 5 mm") are left out; one
    that was counts where nothing beside it says what it is now.
    """
    folded = text.folded
    kept = [
        s
        for s in sizes(text)
        if not _NO_LENGTH_OF_IT.match(folded, s.end) and not _PART_OR_CHANGE.search(_before(folded, s.start))
    ]
    if len(kept) < 2:
        return tuple(kept)
    now = [s for s in kept if not _PRIOR.search(_before(folded, s.start))]
    return tuple(s for s in kept if s in now or not any(_beside(s, other, folded) for other in now))


def _before(folded: str, at: int) -> str:
    return folded[max(0, at - 80) : at]


def _beside(one: Size, other: Size, folded: str) -> bool:
    between = folded[min(one.end, other.end) : max(one.start, other.start)]
    return ". " not in between and len(between) <= 80


def _size(match: re.Match[str], folded: str) -> Size:
    one, unit_one, joint, two, unit_two, three, unit = match.groups()
    scale = _scale(unit)
    figures = [_figure(one) * (_scale(unit_one) if unit_one else scale)]
    figures += [_figure(two) * (_scale(unit_two) if unit_two else scale)] if two else []
    figures += [_figure(three) * scale] if three else []
    before = _before(folded, match.start())
    close = before.rstrip()
    bound = "below" if close.endswith(_BELOW) else "above" if close.endswith(_ABOVE) else ""
    if not bound and _LARGEST.search(before):
        bound = "largest"
    if joint == "to" and _CHANGE.search(before):
        return Size(figures[1], figures[1], bound, *match.span())
    low = min(figures) if joint in _RANGES else max(figures)
    return Size(low, max(figures), bound, *match.span())


def _scale(unit: str) -> float:
    return 10.0 if unit.startswith("c") else 1.0


def _figure(written: str) -> float:
    return float(_NUMBER_WORDS[written]) if written in _NUMBER_WORDS else float(written.replace(",", "."))


def count_before(text: Text, at: int, first: int) -> tuple[int, bool] | None:
    """Return the number that stands at most four words before the one at ``at``, and whether it is a lower bound.

    Nothing before ``first`` is looked at; "two 4 mm nodules" are two, "a 4 mm nodule" says no number.
    """
    words = text.words
    for place in range(at - 1, max(first, at - 6) - 1, -1):
        word = words[place]
        if word in _NO_COUNT:
            return None
        if word in _AT_LEAST:
            return _AT_LEAST[word], True
        if word in _SINGLE:
            return 1, False
        if (word.isdecimal() and len(word) <= 2) or word in _NUMBER_WORDS:
            unit = words[place + 1] if place + 1 < len(words) else ""
            if (
                unit.startswith(tuple(_UNIT_MM))
                or unit in {"x", "by", "per"}
                or (place and words[place - 1].isdecimal())
                or _in_figure(text, place)
            ):
                continue
            return int(_NUMBER_WORDS.get(word, 0) or int(word)), False
    return None


def _in_figure(text: Text, at: int) -> bool:
    """Whether a number goes on or has begun at a decimal point or in a date: 2.2 cm, 12/2019."""
    raw, start, end = text.raw, text.starts[at], text.ends[at]
    before, behind = raw[max(0, start - 2) : start], raw[end : end + 2]
    joints = ".,/-–x×"
    return (before[1:] in joints and before[:1].isdecimal()) or (behind[:1] in joints and behind[1:].isdecimal())


def levels(folded: str) -> frozenset[str]:
    """Return the levels named, in one spelling: ``t8``, ``rib 4``, ``right upper lobe``, ``upper lobe``."""
    found: set[str] = set()
    for match in _LEVEL.finditer(folded):
        if match["spine"]:
            found |= _vertebrae(match["spine"], int(match["number"]), match["upto"])
        elif match["rib_ordinal"]:
            ordinal = match["rib_ordinal"]
            found.add(f"rib {_ORDINALS.get(ordinal) or int(ordinal[:-2])}")
        elif match["rib"]:
            found.add(f"rib {int(match['rib'])}")
        elif match["vertebra"]:
            region = {"dorsal": "t"}.get(match["region"], match["region"][0])
            found |= _vertebrae(region, _ORDINALS[match["vertebra"]], None)
        elif match["short"]:
            found.add(_LOBES[match["short"]])
        else:
            found.add(f"{match['side'] or ''} {match['lobe']} lobe".strip())
    return frozenset(found)


def _vertebrae(region: str, number: int, upto: str | None) -> set[str]:
    letter = {"th": "t", "d": "t"}.get(region, region)
    last = int(upto) if upto else number
    if not 1 <= number <= _MOST[letter]:
        return set()
    return {f"{letter}{n}" for n in {number, last} if 1 <= n <= _MOST[letter]}


def same_level(one: str, other: str) -> bool | None:
    """Whether two levels can be the same place; None if they are of different families and say nothing."""
    if one.endswith("lobe") and other.endswith("lobe"):
        left, right = one.split(), other.split()
        return left[-2] == right[-2] and (len(left) < 3 or len(right) < 3 or left[0] == right[0])
    if one.startswith("rib") and other.startswith("rib"):
        return one == other
    if len(one) <= 3 and len(other) <= 3:
        return one == other
    return None
