"""Which images the chest models may judge: what the header says first, then what the pixels show.

Each check returns the reason for a refusal in words, or None. A refused image never gets a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.ml.greys import Float
from clinic_ai.ml.images import GreyImage

_MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
_RADIOGRAPHY = frozenset({"CR", "DX", "RG"})
_CHEST = re.compile(r"CHEST|THORA|LUNG|PULM|CXR", re.IGNORECASE)
_OTHER_PART = re.compile(
    r"ABDOM|ANKLE|ARM|BREAST|CALCAN|CLAVIC|ELBOW|FEMUR|FINGER|FOOT|HAND|HEAD|HIP|HUMER|JAW|KNEE|LEG|NECK|PELVI|"
    r"SHOULDER|SKULL|SPINE|TIBIA|TOE|TOOTH|WRIST",
    re.IGNORECASE,
)
_FRONTAL = frozenset({"", "PA", "AP"})
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
    """Return why the header forbids to judge this image as a frontal chest X-ray, or None."""
    modality = (header.modality or _only(facts.modalities)).upper()
    if modality == "MG" or header.sop_class_uid.startswith(_MAMMOGRAPHY):
        return Reason("mammogram", "This is a mammogram; the model knows chest X-rays only.")
    if modality not in _RADIOGRAPHY and (modality or header.kind is FileKind.DICOM):
        named = f"its modality is {modality}" if modality else "it names no modality"
        return Reason("not_an_xray", f"This is not an X-ray image ({named}); the model knows chest X-rays only.")
    return _refuse_body_part(header, facts) or _refuse_view(header)


def _refuse_body_part(header: InstanceHeader, facts: StudyFacts) -> Reason | None:
    part = header.body_part or _only(facts.body_parts)
    described = f"{header.study_description} {header.series_description}"
    if part:
        if not _CHEST.search(part):
            return Reason("wrong_body_part", "The image shows another body part; the model knows the chest only.")
    elif not _CHEST.search(described) and _OTHER_PART.search(described):
        return Reason("wrong_body_part", "Its description names another body part; the model knows the chest only.")
    return None


def _refuse_view(header: InstanceHeader) -> Reason | None:
    view = header.view_position.upper().strip()
    if view in _LATERAL or (not view and _LATERAL_WORD.search(header.series_description)):
        return Reason("lateral_view", "This is a lateral view; the model judges frontal views (PA or AP) only.")
    if view not in _FRONTAL:
        return Reason("unknown_view", "The view is neither PA nor AP; the model judges frontal views only.")
    return None


def remarks_by_header(header: InstanceHeader, facts: StudyFacts) -> list[str]:
    """Return in words what the header leaves open and the judgement takes for granted."""
    remarks = []
    if not header.view_position:
        remarks.append("The file does not name the view; it was judged as a frontal one.")
    if not (header.body_part or _only(facts.body_parts)):
        remarks.append("The file does not name the body part; it was judged as a chest.")
    return remarks


def refuse_by_pixels(image: GreyImage) -> Reason | None:
    """Return why the pixels cannot be judged, or None."""
    rows, columns = image.source_shape
    if min(rows, columns) < _SMALLEST_SIDE:
        return Reason("too_small", f"The image has only {rows} x {columns} pixels; too few to judge.")
    if max(rows, columns) > _WIDEST_ASPECT * min(rows, columns):
        return Reason(
            "unusual_shape", f"At {rows} x {columns} pixels the image does not have the shape of a chest film."
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


def _only(values: tuple[str, ...]) -> str:
    """Return what the study says if it says one thing; a study of several body parts says nothing of one image."""
    return values[0] if len(set(values)) == 1 else ""
