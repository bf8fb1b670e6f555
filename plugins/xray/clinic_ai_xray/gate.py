"""Which images the models may judge: what the header says first, then what the pixels show.

Each check returns the reason for a refusal in words, or None. A refused image never gets a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinic_ai.contract import ConditionInfo
from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.ml.greys import Float
from clinic_ai.ml.images import GreyImage

_MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
_RADIOGRAPHY = frozenset({"CR", "DX", "RG"})
# A thoracic spine is no chest, though films of it show one.
_CHEST = re.compile(r"CHEST|THORA(?!C(IC|O)[\W_]*(SPINE|LUMBAR|VERTEBRA))|LUNG|PULM|CXR", re.IGNORECASE)
_OTHER_PART = re.compile(
    r"ABDOM|ANKLE|ARM|BREAST|CALCAN|CLAVIC|ELBOW|FEMUR|FINGER|FOOT|HAND|HEAD|HIP|HUMER|JAW|KNEE|LEG|NECK|PELVI|"
    r"SHOULDER|SKULL|SPINE|TIBIA|TOE|TOOTH|WRIST",
    re.IGNORECASE,
)
_LATERAL = frozenset({"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT"})
_LATERAL_WORD = re.compile(r"\b(LAT|LATERAL|SEITLICH|SIDE VIEW)\b", re.IGNORECASE)
_SMALLEST_SIDE = 64
_WIDEST_ASPECT = 2.0
_MOST_COLOUR = 0.03
_LEAST_CONTRAST = 0.02


@dataclass(frozen=True)
class Reason:
    """Why an image is not judged: a stable code and a sentence."""

    code: str
    sentence: str


def refuse_by_header(header: InstanceHeader, facts: StudyFacts) -> Reason | None:
    """Return why the header forbids to judge this image as an X-ray, or None."""
    modality = (header.modality or _only(facts.modalities)).upper()
    if modality == "MG" or header.sop_class_uid.startswith(_MAMMOGRAPHY):
        return Reason("mammogram", "This is a mammogram; no model here knows those.")
    if modality not in _RADIOGRAPHY and (modality or header.kind is FileKind.DICOM):
        named = f"its modality is {modality}" if modality else "it names no modality"
        return Reason("not_an_xray", f"This is not an X-ray image ({named}).")
    if header.frames > 1:
        return Reason("several_frames", f"The file holds {header.frames} frames; the models judge single films only.")
    return None


@dataclass(frozen=True)
class Shown:
    """The body part and the view of an image, in capitals; empty where nothing names them."""

    body_part: str
    view: str

    @classmethod
    def of(cls, header: InstanceHeader, facts: StudyFacts) -> Shown:
        """Read them off the header; where its own fields are silent, off its series, then off its study."""
        part = (
            header.body_part
            or _described(header.series_description)
            or _only(facts.body_parts)
            or _described(header.study_description)
        )
        view = header.view_position.upper().strip()
        if view in _LATERAL or (not view and _LATERAL_WORD.search(header.series_description)):
            view = "LATERAL"
        return cls("CHEST" if _CHEST.search(part) else part.upper().strip(), view)


def refuse_by_conditions(shown: Shown, conditions: Sequence[ConditionInfo]) -> Reason | None:
    """Return why none of the conditions that there are models for is judged on this image, or None if one is."""
    fits = [condition for condition in conditions if condition.applies_to(shown.body_part, "")]
    if not fits:
        known = ", ".join(sorted({condition.label.lower() for condition in conditions})) or "nothing"
        return Reason(
            "wrong_body_part", f"No model here judges images of this body part; there are models for {known}."
        )
    if not shown.body_part and len({condition.body_parts for condition in fits}) > 1:
        return Reason(
            "unknown_body_part", "The file does not name the body part, and there are models for different ones."
        )
    if any(condition.applies_to(shown.body_part, shown.view) for condition in fits):
        return None
    wanted = " or ".join(sorted({view for condition in fits for view in condition.views}))
    if shown.view == "LATERAL":
        return Reason("lateral_view", f"This is a lateral view; the model judges {wanted} only.")
    return Reason("unknown_view", f"The view is neither of those that the model judges: {wanted}.")


def remarks_by_header(shown: Shown, condition: ConditionInfo) -> list[str]:
    """Return in words what the header leaves open and the judgement takes for granted."""
    remarks = []
    if condition.views and not shown.view:
        remarks.append(f"The file does not name the view; it was judged as {' or '.join(condition.views)}.")
    if condition.body_parts and not shown.body_part:
        part = condition.body_parts[0].strip("*").lower()
        remarks.append(f"The file does not name the body part; it was judged as {part}.")
    return remarks


def refuse_by_pixels(image: GreyImage) -> Reason | None:
    """Return why the pixels cannot be judged, or None."""
    rows, columns = image.source_shape
    if min(rows, columns) < _SMALLEST_SIDE:
        return Reason("too_small", f"The image has only {rows} x {columns} pixels; too few to judge.")
    if max(rows, columns) > _WIDEST_ASPECT * min(rows, columns):
        return Reason(
            "unusual_shape", f"At {rows} x {columns} pixels the image does not have the shape of an X-ray film."
        )
    if image.colour > _MOST_COLOUR:
        return Reason("colour_picture", "This is a colour picture, not an X-ray image.")
    if _contrast(image.pixels) < _LEAST_CONTRAST:
        return Reason("empty_image", "The image is uniform: it is all black, all white or was not exposed.")
    return None


def _contrast(pixels: Float) -> float:
    """Return how far the 2nd and the 98th percentile lie apart, by nearest rank: much cheaper than interpolated."""
    last = pixels.size - 1
    low, high = round(0.02 * last), round(0.98 * last)
    parted = np.partition(pixels, (low, high), axis=None)
    return float(parted[high] - parted[low])


def _described(text: str) -> str:
    """Return the body part that a description names, empty if it names none."""
    if _CHEST.search(text):
        return "CHEST"
    other = _OTHER_PART.search(text)
    return other.group() if other else ""


def _only(values: tuple[str, ...]) -> str:
    """Return what the study says if it says one thing; a study of several body parts says nothing of one image."""
    return values[0] if len(set(values)) == 1 else ""
