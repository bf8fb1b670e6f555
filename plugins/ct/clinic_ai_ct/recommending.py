"""Recommendations, and only those that a published guideline gives for what was measured."""

from __future__ import annotations

import math
from typing import NamedTuple

from clinic_ai_ct.describing import CALCIFIED_HU, by_side, by_size, is_mass, is_solid, size_of
from clinic_ai_ct.lesions import Lesion, Piece
from clinic_ai_ct.wording import Wording, capital, tidy

_ROUTINE_MM = 6.0
_LARGE_MM = 8.0


class Recommendation(NamedTuple):
    """One recommendation and the lesion it follows from."""

    text: str
    lesion: str


def recommend(lesions: tuple[Lesion, ...], wording: Wording) -> tuple[Recommendation, ...]:
    """Return what guidelines advise on the lesions that are there; often nothing."""
    table = wording.table("recommendations")
    found: list[Recommendation] = []
    for lesion in lesions:
        if not lesion.pieces:
            continue
        if lesion.name == "lung_nodule":
            advice = _fleischner(lesion, wording)
            if advice:
                found.append(Recommendation(advice, lesion.name))
        elif lesion.name == "pericardial_effusion":
            found.append(Recommendation(str(table["echocardiography"]), lesion.name))
        elif lesion.name == "pleural_effusion" and list(by_side(lesion)) in (["left"], ["right"]):
            found.append(Recommendation(str(table["image_guidance"]), lesion.name))
    return tuple(found)


def _fleischner(lesion: Lesion, wording: Wording) -> str:
    """Return the advice of MacMahon et al. (2017); nothing if one is a mass, or all are calcified throughout.

    Of several nodules the one decides for which it asks the most.
    """
    table, pieces = wording.table("fleischner"), by_size(lesion)
    open_ones = [piece for piece in pieces if piece.core_hu is None or piece.core_hu < CALCIFIED_HU]
    if not open_ones or any(map(is_mass, pieces)):
        return ""
    deciding = max(open_ones, key=_demand)  # of those that ask the same, the largest
    subject = "subject_one" if len(pieces) == 1 else "subject_many" if deciding is pieces[0] else "subject_deciding"
    words = str(table[subject]).format(size=size_of(deciding, wording))
    if is_solid(deciding) is None:
        words += str(table["if_solid"]).rstrip(" ,")
    advice = str(table[_row(deciding, many=len(open_ones) > 1)])
    text = str(wording.table("recommendations")["fleischner"]).format(Subject=capital(words), advice=advice)
    return tidy(text)


def _mean_mm(piece: Piece) -> int:
    """Return the mean of the longest axial diameter and the one across it, in whole mm (Bankier et al., 2017)."""
    return math.floor((piece.axial_mm + piece.axial_short_mm) / 2 + 0.5)


def _demand(piece: Piece) -> tuple[bool, bool]:
    """Return how much is asked for one of several nodules, as comparable values: a row of the table for each."""
    return _mean_mm(piece) >= _ROUTINE_MM, is_solid(piece) is False


def _row(piece: Piece, *, many: bool) -> str:
    mean = _mean_mm(piece)
    kind = "subsolid" if is_solid(piece) is False else "solid"
    number = "many" if many else "one"
    if mean < _ROUTINE_MM:
        return f"{kind}_{number}_below_6"
    if kind == "solid" and not many:
        return f"{kind}_{number}_{'6_to_8' if mean <= _LARGE_MM else 'above_8'}"
    return f"{kind}_{number}_from_6"
