"""Numbers and grades in a sentence, held against what was measured on the lesions that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clinic_ai_ct.describing import by_side, is_solid
from clinic_ai_ct.evidence import Evidence
from clinic_ai_ct.grading import grade, gradings
from clinic_ai_ct.lesions import Piece
from clinic_ai_ct.wording import words_of

_NUMBER = re.compile(r"(?<![\w.])(-|−)?(\d+(?:\.\d+)?)")
_UNIT = re.compile(
    r"\s{0,2}(?:(?:x|×|by|to|-|–)\s{0,2}-?\d+(?:\.\d+)?\s{0,2}){0,2}(mm|cm|ml|cc|hu|hounsfield|%|per ?cent)?(?![a-z])",
    re.I,
)
_KINDS = {
    "mm": "length",
    "cm": "length",
    "ml": "volume",
    "cc": "volume",
    "hu": "attenuation",
    "hounsfield": "attenuation",
}
_AMOUNTS = frozenset({"volume", "attenuation", "share"})
"""The guard holds lengths and counts against the condition they belong to; of these it knows nothing."""
_SOLID = re.compile(r"\b(non-?\s?solid|nonsolid|subsolid|solid)\b", re.IGNORECASE)


class _Number(NamedTuple):
    value: float
    kind: str
    written: str


def unmeasured(sentence: str, named: Sequence[Evidence]) -> str:
    """Return why a number, a grade or a word for solidity is not what was measured; empty if all are.

    Lengths agree within 1 mm or a tenth, volumes within 15 per cent, attenuations within 5 HU, shares within 2 points.
    """
    lesions = [one.lesion for one in named if one.lesion]
    sides = [side for lesion in lesions for side in by_side(lesion).values()]
    wholes = [list(lesion.pieces) for lesion in lesions if lesion.pieces]
    for number in _numbers(sentence):
        if len(wholes) > 1 and number.kind in _AMOUNTS:
            return f"Of which condition {number.written!r} is cannot be told."
        if not _measured(number, [*sides, *wholes]):
            return f"{number.written!r} was not measured."
    return _ungraded(sentence, named) or _not_so_solid(sentence, [p for side in sides for p in side])


def _numbers(sentence: str) -> Iterator[_Number]:
    for match in _NUMBER.finditer(sentence):
        behind = _UNIT.match(sentence, match.end())
        unit = (behind[1] or "").lower() if behind else ""
        kind = _KINDS.get(unit, "share" if unit.startswith(("%", "per")) else "count")
        value = float(match[2]) * (10 if unit == "cm" else 1)
        yield _Number(-value if match[1] and kind == "attenuation" else value, kind, f"{match[0]} {unit}".strip())
    words: Sequence[str] = words_of("en")["numbers"]["words"]
    for count, word in enumerate(words):
        if count > 1 and re.search(rf"\b{word}\b", sentence, re.IGNORECASE):
            yield _Number(float(count), "count", word)


def _measured(number: _Number, sides: Sequence[Sequence[Piece]]) -> bool:
    """Whether a number is that of a piece, or of all pieces on one side together."""
    value, pieces = number.value, [p for side in sides for p in side]
    if number.kind == "length":
        lengths = [v for p in pieces for v in (p.axial_mm, p.axial_short_mm, p.depth_mm) if v]
        return any(abs(value - v) <= max(1.0, 0.1 * v) for v in lengths)
    if number.kind == "volume":
        volumes = [sum(p.volume_mm3 for p in some) / 1000 for some in (*sides, *([p] for p in pieces))]
        return any(abs(value - v) <= max(1.0, 0.15 * v) for v in volumes)
    if number.kind == "attenuation":
        return any(abs(value - v) <= 5 for p in pieces for v in (p.mean_hu, p.core_hu) if v is not None)
    if number.kind == "share":
        shares = [[p.lung_share for p in side if p.lung_share is not None] for side in sides]
        return any(known and abs(value - 100 * sum(known)) <= 2 for known in shares)
    return value in {len(side) for side in sides}


def _ungraded(sentence: str, named: Sequence[Evidence]) -> str:
    """Return why a word of degree is not the grade of any of the lesions, on the side named beside it."""
    outlined = [one for one in named if one.outlined]
    words = {band.word for grading in gradings().values() for band in grading.bands}
    said = list(re.finditer(rf"\b({'|'.join(sorted(words))}|left|right)\b", sentence.lower()))
    grades: dict[str, set[str]] = {}
    for one in named:
        for side, pieces in by_side(one.lesion).items() if one.lesion else ():
            grades.setdefault(side, set()).add(grade(one.condition, pieces))
    all_grades = set().union(*grades.values()) if grades else set()
    sides = [m[1] for m in said if m[1] not in words]
    for at, match in enumerate(said):
        word = match[1]
        if word not in words:
            continue
        if len(outlined) > 1:
            return f"Of which condition {word!r} is said cannot be told."
        if word not in all_grades:
            return f"The amount was not graded {word!r}."
        beside = next((m[1] for m in said[at + 1 :] if m[1] not in words), sides[-1] if sides else "")
        if beside in grades and word not in grades[beside]:
            return f"On the {beside} the amount was not graded {word!r}."
    return ""


def _not_so_solid(sentence: str, pieces: Sequence[Piece]) -> str:
    for match in _SOLID.finditer(sentence):
        wanted = match[1].lower() == "solid"
        if not any(is_solid(p) is wanted for p in pieces):
            return f"That it is {match[1].lower()} was not measured."
    return ""
