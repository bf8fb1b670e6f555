"""What is said of one lesion: a sentence for the findings, one for the impression. Numbers are those measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinic_ai_ct.grading import grade
from clinic_ai_ct.lesions import Lesion, Piece
from clinic_ai_ct.wording import Wording, rounded

NON_SOLID_HU = -300.0
"""A nodule whose inside has a lower median is called non-solid. A bound in common use; the guidelines give none."""
_AS_LUNG_HU = -800.0
"""What is darker inside than any ground glass is a cavity or a cyst: the median tells nothing of its wall."""
CALCIFIED_HU = 200.0
"""A nodule whose inside has a higher median is calcified throughout; a bound in common use."""
MOST_NODULE_MM = 30
"""Larger ones are masses, not nodules (Hansell et al., Radiology 2008;246:697)."""
_LISTED = 6
_PHYSIOLOGICAL_MM = 4.0
"""Pericardial fluid no thicker than this is no certain effusion on CT (Adler et al., Eur Heart J 2015;36:2921)."""


@dataclass(frozen=True)
class Said:
    """The sentences on one lesion."""

    findings: tuple[str, ...]
    impression: str


def describe(lesion: Lesion, wording: Wording) -> Said:
    """Return what is said of a lesion that has at least one piece."""
    if lesion.name == "lung_nodule":
        return _nodules(lesion, wording)
    if lesion.name == "pleural_effusion":
        return _pleural(lesion, wording)
    if lesion.name == "pericardial_effusion":
        return _pericardial(lesion, wording)
    return _parenchymal(lesion, wording)


def by_side(lesion: Lesion) -> dict[str, list[Piece]]:
    """Return the pieces by side: right, left, both at once, unknown; sides without any are left out."""
    sides = {side: [p for p in lesion.pieces if p.side == side] for side in ("right", "left", "bilateral", "")}
    return {side: pieces for side, pieces in sides.items() if pieces}


# ---------------------------------------------------------------- nodules


def by_size(lesion: Lesion) -> list[Piece]:
    """Return the pieces of a lesion, that with the longest axial diameter first."""
    return sorted(lesion.pieces, key=lambda p: (-p.axial_mm, -p.volume_mm3))


def is_solid(piece: Piece) -> bool | None:
    """Return whether a nodule is solid; None if it is too small to tell, or holds air."""
    if piece.core_hu is None or piece.core_hu < _AS_LUNG_HU:
        return None
    return piece.core_hu >= NON_SOLID_HU


def is_mass(piece: Piece) -> bool:
    """Return whether a nodule is too large for one, by the size that is told."""
    return round(piece.axial_mm) > MOST_NODULE_MM


def size_of(piece: Piece, wording: Wording) -> str:
    """Return both axial diameters in whole mm: "8 x 6 mm"."""
    return wording.phrase("size", long=round(piece.axial_mm), short=max(1, round(piece.axial_short_mm)))


def _nodules(lesion: Lesion, wording: Wording) -> Said:
    pieces = by_size(lesion)
    largest = pieces[0]
    size, place = size_of(largest, wording), in_place([largest], wording)
    solidity = wording.phrase("non_solid") if is_solid(largest) is False else ""
    if len(pieces) == 1:
        median = "" if largest.core_hu is None else f" ({wording.phrase('median', hu=round(largest.core_hu))})"
        said = wording.sentence("findings", "nodule", size=size, solidity=solidity, in_place=place, attenuation=median)
        short = wording.sentence("impression", "nodule", size=size, solidity=solidity, in_place=place)
    else:
        count = wording.number(len(pieces))
        items = [_item(p, wording) for p in pieces[:_LISTED]]
        both = "_both" if lesion.side == "bilateral" else ""
        key = ("nodules" if len(pieces) <= _LISTED else "nodules_many") + both
        said = wording.sentence("findings", key, count=count, list=wording.listed(items))
        short = wording.sentence(
            "impression",
            f"nodules{both}",
            count=count,
            size=size,
            largest_place=f" {place}" if place else "",
        )
    if not is_mass(largest):
        return Said((said,), short)
    by_size_a_mass = wording.phrase("mass_by_size")
    return Said((said, wording.sentence("findings", "too_large")), f"{short.removesuffix('.')}, {by_size_a_mass}.")


def _item(piece: Piece, wording: Wording) -> str:
    solid = f" ({wording.phrase('non_solid').strip()})" if is_solid(piece) is False else ""
    return " ".join(filter(None, (size_of(piece, wording), in_place([piece], wording)))) + solid


# ---------------------------------------------------------------- fluid


def _pleural(lesion: Lesion, wording: Wording) -> Said:
    sides = by_side(lesion)
    if len(sides) == 1 and ("" not in sides or len(lesion.pieces) == 1):  # how many several of no side are is open
        ((side, pieces),) = sides.items()
        graded, name = _and_blank(grade(lesion.name, pieces)), _and_blank("" if side == "bilateral" else side)
        told = _fluid(pieces, "deep", wording)
        if not side:
            told = f" {wording.phrase('no_side')}{told}"
        slots = {"grade": graded, "side": name, "details": told, "grade_side": graded + name}
        return Said(
            (wording.sentence("findings", "pleural_effusion", **slots),),
            wording.sentence("impression", "pleural_effusion", **slots),
        )
    items = [_on_side(lesion.name, side, pieces, wording, full=True) for side, pieces in sides.items()]
    brief = [_on_side(lesion.name, side, pieces, wording, full=False) for side, pieces in sides.items()]
    key = f"{lesion.name}_{'both' if lesion.side == 'bilateral' else 'list'}"
    grades = {grade(lesion.name, pieces) for pieces in sides.values()}
    same = len(grades) == 1 and set(sides) == {"left", "right"}
    return Said(
        (wording.sentence("findings", key, list=wording.listed(items)),),
        wording.sentence("impression", f"{lesion.name}_same", grade=_and_blank(grades.pop()))
        if same
        else wording.sentence("impression", key, list=wording.listed(brief)),
    )


def _on_side(name: str, side: str, pieces: Sequence[Piece], wording: Wording, *, full: bool) -> str:
    where = wording.phrase("side_of", side=side) if side in {"left", "right"} else wording.phrase("no_side")
    return " ".join(filter(None, (grade(name, pieces), where))) + (_fluid(pieces, "deep", wording) if full else "")


def _pericardial(lesion: Lesion, wording: Wording) -> Said:
    graded = _and_blank(grade(lesion.name, lesion.pieces))
    slots = {"grade": graded, "details": _fluid(lesion.pieces, "thick", wording), "grade_": graded}
    thickest = max(p.depth_mm or 0.0 for p in lesion.pieces)
    more = (wording.sentence("findings", "physiological"),) if 0 < thickest <= _PHYSIOLOGICAL_MM else ()
    return Said(
        (wording.sentence("findings", "pericardial_effusion", **slots), *more),
        wording.sentence("impression", "pericardial_effusion", **slots),
    )


def _fluid(pieces: Sequence[Piece], how: str, wording: Wording) -> str:
    """Return ", 18 mm deep (about 120 mL, median attenuation 8 HU)".

    The attenuation is that inside the largest collection: at its rim voxels are partly lung, which would look like fat.
    """
    depths = [p.depth_mm for p in pieces if p.depth_mm is not None]
    amount = wording.phrase("volume", ml=rounded(sum(p.volume_mm3 for p in pieces) / 1000))
    core = max(pieces, key=lambda p: p.volume_mm3).core_hu
    inside = "" if core is None else f", {wording.phrase('median', hu=round(core))}"
    depth = f", {wording.phrase(how, mm=round(max(depths)))}" if depths else ""
    return f"{depth} ({amount}{inside})"


# ---------------------------------------------------------------- consolidation and ground glass


def _parenchymal(lesion: Lesion, wording: Wording) -> Said:
    sides = by_side(lesion)
    several = len(lesion.pieces) > max(1, len(sides))
    slots = {
        "areas": wording.phrase("areas") if several else "",
        "there": wording.phrase("there_are" if several else "there_is"),
        "is": wording.phrase("are" if several else "is"),
    }
    if len(sides) == 1:
        ((side, pieces),) = sides.items()
        slots |= {"in_place": in_place(pieces, wording), "extent": _extent(lesion.name, pieces, wording)}
        details = _area(lesion.name, side, pieces, wording, alone=True)
        return Said(
            (wording.sentence("findings", lesion.name, **slots, details=details),),
            wording.sentence("impression", lesion.name, **slots),
        )
    places = [in_place(pieces, wording) or wording.phrase("elsewhere") for pieces in sides.values()]
    areas = [_area(lesion.name, side, pieces, wording) for side, pieces in sides.items()]
    items = [place + area for place, area in zip(places, areas, strict=True)]
    key = f"{lesion.name}_{'both' if lesion.side == 'bilateral' else 'list'}"
    return Said(
        (wording.sentence("findings", key, **slots, list=wording.listed(items)),),
        wording.sentence("impression", key, **slots, list=wording.listed(places)),
    )


def _area(name: str, side: str, pieces: Sequence[Piece], wording: Wording, *, alone: bool = False) -> str:
    """Return ", 41 mm across, about 6 % of the right lung (minimal extent)".

    That it is the largest is said only where the sentence is about this side ``alone``: else of which would be unclear.
    """
    key = "largest_across" if alone and len(pieces) > 1 else "across"
    told = [wording.phrase(key, mm=round(max(p.axial_mm for p in pieces)))]
    shares = [p.lung_share for p in pieces if p.lung_share is not None]
    if len(shares) == len(pieces) and side:
        lung = wording.phrase("lungs" if side == "bilateral" else "lung", side=side)
        percent = round(100 * sum(shares))
        told.append(wording.phrase("lung_share" if percent else "below_one_percent", percent=percent, lung=lung))
    return f", {', '.join(told)}{_extent(name, pieces, wording)}"


def _extent(name: str, pieces: Sequence[Piece], wording: Wording) -> str:
    word = grade(name, pieces)
    return f" ({wording.phrase('extent', grade=word)})" if word else ""


# ---------------------------------------------------------------- places


def in_place(pieces: Sequence[Piece], wording: Wording) -> str:
    """Return "in the right upper lobe", "in both lungs", "on the left" or nothing, by what is known of all pieces."""
    places = list(dict.fromkeys(p.place for p in pieces))
    if all("lobe" in place for place in places):
        lobes = dict.fromkeys(lobe for place in places for lobe in place.replace(" and ", ", ").split(", "))
        return wording.phrase("in_the", place=wording.listed(list(lobes)))
    if len(places) == 1 and places[0]:
        return wording.phrase("in_the", place=places[0])
    sides = {p.side for p in pieces}
    if len(sides) > 1 or "" in sides:
        return ""
    (side,) = sides
    if side == "bilateral":
        return wording.phrase("both_lungs").strip()
    return wording.phrase("in_the", place=wording.phrase("lung", side=side))


def _and_blank(word: str) -> str:
    return f"{word} " if word else ""
