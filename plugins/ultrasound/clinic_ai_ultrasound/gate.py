"""Which images are asked about at all: what the header says first, then what the pixels and the vision tower show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clinic_ai.contract import LoadedModel
from clinic_ai.domain import FileKind, InstanceHeader, StudyFacts
from clinic_ai.errors import ModelError
from clinic_ai.ml.images import GreyImage

STATISTICS = "feature_stats.safetensors"
"""File of a base: ``mean`` (d) and ``factor`` (d, k) of ``answering.Seen.pooled`` over the images it was trained on."""
LIMIT = "feature_limit"
"""Parameter of a base: the largest ‖(pooled - mean) · factor‖ that is still like those images."""
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


class FeatureGate:
    """Tells images that are unlike those of a base's training, if the base knows these."""

    def __init__(self, mean: torch.Tensor, factor: torch.Tensor, limit: float) -> None:
        self._mean, self._factor, self._limit = mean, factor, limit

    @classmethod
    def of(cls, base: LoadedModel, width: int) -> FeatureGate | None:
        """Return the gate of a base whose vision tower is ``width`` wide, None if the base has none.

        Raise ModelError if its statistics are not what they should be.
        """
        limit = base.manifest.parameters.get(LIMIT)
        if limit is None:
            return None
        try:
            tensors = load_file(Path(base.directory) / STATISTICS)
            mean, factor = tensors["mean"].float(), tensors["factor"].float()
            sound = mean.shape == (width,) and factor.ndim == 2 and factor.shape[0] == width
            sound = sound and bool(torch.isfinite(mean).all() and torch.isfinite(factor).all())
        except (OSError, SafetensorError, KeyError, ValueError):
            sound = False
        if not sound or not isinstance(limit, int | float) or not math.isfinite(limit) or limit <= 0:
            raise ModelError(
                f"The base {base.ref.label()} cannot be used: its {STATISTICS} or its {LIMIT} is not usable.",
                remedy="Import the base again with `clinic-ai model import DIR`.",
            )
        return cls(mean, factor, float(limit))

    def refuse(self, pooled: torch.Tensor) -> Reason | None:
        """Return why an image is not asked about of which the vision tower makes ``pooled`` (d), or None."""
        distance = float(((pooled.cpu() - self._mean) @ self._factor).norm()) / self._limit
        if distance <= 1.0:
            return None
        return Reason(
            "out_of_distribution",
            f"The image is unlike those that the model was trained on ({distance:.2f} times what it accepts).",
        )
