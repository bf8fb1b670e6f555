"""Which images are asked about at all: what the header says first, then what the pixels and the vision tower show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.ml.images import GreyImage
from clinic_ai.ml.unlike import Unlike

CANNOT_TELL = "The base model cannot tell images that are unlike those of its training."
_ENHANCED_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
_SMALLEST_SIDE = 64
_LEAST_CONTRAST = 0.02
_SOME_COLOUR, _MOST_COLOUR = 0.02, 0.2
"""Mean distance of the strongest from the weakest of red, green and blue, 0..1. A Doppler box colours a part of the
image, a tinted grey scale all of it a little; beyond the second it is a photograph or a drawing."""


@dataclass(frozen=True)
class Reason:
    """Why an image is not asked about: a stable code, a sentence, and what a person can do."""

    code: str
    sentence: str
    remedy: str = ""


def refuse_by_header(header: InstanceHeader, facts: StudyFacts) -> Reason | None:
    """Return why the header says that this is no ultrasound image, or None.

    A PNG or JPEG has the modality that its folder gives it; where nothing names one, it is let through to the
    pixels.
    """
    studies = set(facts.modalities)
    modality = (header.modality or (studies.pop() if len(studies) == 1 else "")).upper()
    if modality != "US" and (modality or header.kind is FileKind.DICOM):
        named = f"its modality is {modality}" if modality else "it names no modality"
        return Reason("not_an_ultrasound", f"This is not an ultrasound image ({named}).")
    if header.kind is FileKind.DICOM and not header.rows:
        return Reason("no_pixels", "The file holds no image.")
    if header.sop_class_uid == _ENHANCED_VOLUME:
        return Reason("volume", "This is a 3-D volume; questions are answered about plain images and loops only.")
    return None


def refuse_by_pixels(image: GreyImage) -> Reason | None:
    """Return why the pixels cannot be asked about, or None."""
    rows, columns = image.source_shape
    if min(rows, columns) < _SMALLEST_SIDE:
        return Reason("too_small", f"The image has only {rows} x {columns} pixels; too few to judge.")
    if image.colour > _MOST_COLOUR:
        return Reason("colour_picture", "This is a colour picture; an ultrasound image is grey, but for Doppler.")
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    if high - low < _LEAST_CONTRAST:
        return Reason("empty_image", "The image is uniform: there is nothing to see in it.")
    return None


def remarks_by_pixels(image: GreyImage) -> list[str]:
    """Return in words what had to be assumed of an image."""
    remarks = list(image.remarks)
    if image.colour > _SOME_COLOUR:
        remarks.append("The image has colours, as Doppler has; the model saw their brightness only.")
    return remarks


def refuse_unlike(unlike: Unlike, pooled: torch.Tensor) -> Reason | None:
    """Return why an image is not asked about of which the vision tower makes ``pooled`` (d), or None."""
    distance = unlike.distance(pooled) / unlike.limit
    if distance <= 1.0:
        return None
    return Reason(
        "out_of_distribution",
        f"The image is unlike those that the model was trained on ({distance:.2f} times what it accepts).",
    )
