"""Recommendations, and only those that a published guideline gives for what was measured."""

from __future__ import annotations

from typing import NamedTuple

from clinic_ai_ct.describing import MOST_NODULE_MM, by_side, by_size, is_solid, size_of
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
    """Return the advice of MacMahon et al. (2017) for the largest nodule; nothing if that is a mass.

    Its size is the mean of the longest axial diameter and the one across it, in whole mm (Bankier et al., 2017).
    """
    table, pieces = wording.table("fleischner"), by_size(lesion)
    largest = pieces[0]
    if largest.axial_mm > MOST_NODULE_MM:
        return ""
    many = len(pieces) > 1
    subject = str(table["subject_many" if many else "subject_one"]).format(size=size_of(largest, wording))
    if is_solid(largest) is None:
        subject += str(table["if_solid"]).rstrip(" ,")
    advice = str(table[_row(largest, many=many)])
    text = str(wording.table("recommendations")["fleischner"]).format(Subject=capital(subject), advice=advice)
    return tidy(text)


def _row(largest: Piece, *, many: bool) -> str:
    mean = round((largest.axial_mm + largest.axial_short_mm) / 2)
    kind = "subsolid" if is_solid(largest) is False else "solid"
    number = "many" if many else "one"
    if mean < _ROUTINE_MM:
        return f"{kind}_{number}_below_6"
    if kind == "solid" and not many:
        return f"{kind}_{number}_{'6_to_8' if mean <= _LARGE_MM else 'above_8'}"
    return f"{kind}_{number}_from_6"
