"""What text is held against beside findings: masks, what the images can tell at all, and how far off they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clinic_ai.domain.instances import Finite, Vector
from clinic_ai.domain.words import Key, Word

Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Literal["left", "right", "bilateral", ""]


class Mask(Word):
    """What a segmentation shows, in numbers; the pixels stay where they are.

    ``name`` is a condition's key (``lung_nodule``), or with ``role`` "anatomy" a place (``t8``). A mask of a
    condition that was looked for and not found has ``count`` 0.
    """

    name: Key
    role: Literal["finding", "anatomy"] = "finding"
    side: Side = ""
    """The patient's side; empty where it is unknown or means nothing."""
    level: str = Field(default="", max_length=80)
    """Where it lies in words a report would use: "T8", "rib 4", "right upper lobe"."""
    centroid: Vector | None = None
    """(x, y, z) in mm in the patient's coordinates: x to the left, y to the back, z to the head."""
    count: int = Field(default=1, ge=0)
    """Separate pieces."""
    size_mm: Millimetres | None = None
    """Longest diameter of the largest piece, or by ``size_is`` its depth; None where the image has no scale."""
    size_is: Literal["diameter", "depth"] = "diameter"
    """What ``size_mm`` measures: reports give the size of free fluid as its depth."""
    volume_mm3: Millimetres | None = None


class ImageFacts(Word):
    """What can be read off the images at all, beside ``StudyFacts``; None is what nobody said."""

    calibrated: bool | None = None
    """Whether every image says how many millimetres a pixel is."""
    priors: int | None = Field(default=None, ge=0)
    """Earlier studies that the models were given."""
    burned_in: Literal["yes", "no", ""] = ""
    """Whether text is burnt into the pixels of any image, as the headers say (0028,0301)."""


class Distance(Word):
    """How far a study lies from what a model was trained on, in the model's own measure, and how far it may."""

    model: str
    value: Finite = Field(ge=0)
    limit: Finite = Field(gt=0)
