"""Places named in a sentence, held against where the pieces of the lesions lie that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clinic_ai_ct.evidence import Evidence
from clinic_ai_ct.lesions import Piece

_PLACE = r"(?:left|right|upper|middle|lower|anterior|posterior)"
_RUN = re.compile(rf"\b{_PLACE}(?:[\s-]{_PLACE})*(?:\s(?:lobes?|regions?|zones?))?\b", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:\s?(?:x|×|by)\s?\d+(?:\.\d+)?)?\s?(mm|cm)\b", re.IGNORECASE)


def misplaced(sentence: str, named: Sequence[Evidence]) -> str:
    """Return why a place is not where any piece lies, or a size not that of the piece there; empty if all is right.

    A place is a run of words such as "right upper lobe" or "upper left anterior region". Sentences that say as many
    sizes as places pair them in their order; the sizes alone are checked by ``numbers``.
    """
    pieces = [p for one in named if one.lesion for p in one.lesion.pieces]
    runs = [m for m in _RUN.finditer(sentence) if not _denied(sentence, m.start())]
    places = [frozenset(re.findall(r"[a-z]+", m[0].lower())) for m in runs]
    if not pieces:
        findings = {one.strongest.laterality for one in named if one.strongest}
        wrong = [m[0] for m, p in zip(runs, places, strict=True) if not p <= findings]
        return f"Where it lies ({wrong[0]}) was not measured." if wrong else ""
    for match, words in zip(runs, places, strict=True):
        if not any(_there(words, p) for p in pieces):
            return f"None of it lies in the place named ({match[0]})."
    sizes = [float(m[1]) * (10 if m[2].lower() == "cm" else 1) for m in _SIZE.finditer(sentence)]
    if len(sizes) == len(places):
        for size, words, match in zip(sizes, places, runs, strict=True):
            if not any(_there(words, p) and _as_large(size, p) for p in pieces):
                return f"What lies in the place named ({match[0]}) has another size."
    return ""


def _denied(sentence: str, at: int) -> bool:
    """Whether a place belongs to a denial before it in the same part of the sentence: "no effusion on the left"."""
    part = re.split(r"[;,]|\bbut\b|\band\b", sentence[:at])[-1]
    return bool(re.search(r"\b(?:no|not|without|none)\b", part, re.IGNORECASE))


def _there(words: frozenset[str], piece: Piece) -> bool:
    """Whether all words of a place are true of a piece; "zone" is another word for region."""
    known = {*re.findall(r"[a-z]+", piece.place), piece.side}
    known |= {"left", "right"} if piece.side == "bilateral" else set()
    wanted = {{"lobes": "lobe", "regions": "region", "zone": "region", "zones": "region"}.get(w, w) for w in words}
    return wanted <= known


def _as_large(size: float, piece: Piece) -> bool:
    measured = [v for v in (piece.axial_mm, piece.depth_mm) if v]
    return any(abs(size - v) <= max(1.0, 0.1 * v) for v in measured)
