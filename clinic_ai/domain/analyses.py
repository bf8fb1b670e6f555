"""Models and what they say of a study, before anybody else may read it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from clinic_ai.domain.evidence import Distance, Mask
from clinic_ai.domain.words import FileName, Key, Probability, Sha256, Word, Words


class AdapterRef(Word):
    """A LoRA adapter over a base model."""

    name: str
    version: str
    digest: Sha256


class ModelRef(Word):
    """A model as a job pins it; ``digest`` is the SHA-256 of its manifest, which pins every file."""

    plugin: Key
    slot: Key = "main"
    name: str
    version: str
    digest: Sha256
    adapter: AdapterRef | None = None
    reference: bool = True
    """A reference model ships with the appliance and is not for clinical use."""

    def label(self) -> str:
        """Return ``plugin/name/version`` with the first twelve digits of the digest."""
        return f"{self.plugin}/{self.name}/{self.version} ({self.digest[:12]})"


class ModelState(StrEnum):
    """Where a model stands in the registry; see ``states.MODEL``."""

    IMPORTED = "IMPORTED"
    CANDIDATE = "CANDIDATE"
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"


class Presence(StrEnum):
    """What the operating point says of a calibrated probability."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class ValidationFigures(Word):
    """How a condition was validated; ``_low`` and ``_high`` bound the 95 % interval of each figure."""

    dataset: str
    positives: int
    negatives: int
    auroc: Probability
    auroc_low: Probability
    auroc_high: Probability
    sensitivity: Probability | None = None
    sensitivity_low: Probability | None = None
    sensitivity_high: Probability | None = None
    specificity: Probability | None = None
    specificity_low: Probability | None = None
    specificity_high: Probability | None = None


class Finding(Word):
    """One condition judged on one image. ``probability`` is calibrated; ``condition`` is a key of codes.toml."""

    condition: Key
    label: str
    probability: Probability
    threshold: Probability
    presence: Presence
    instance_sha256: Sha256
    heatmap: FileName | None = None
    laterality: Literal["left", "right", "bilateral", ""] = ""
    model: str = ""
    """``slot`` of the model that judged it."""
    validation: ValidationFigures | None = None


class Answer(Word):
    """An answer to a question about an image; its text is unguarded, and so are its ``notes``."""

    question: Words
    text: Words
    confidence: Probability | None = None
    """Calibrated probability that the answer is right; None if the model has no calibration."""
    instance_sha256: Sha256 | None = None
    frame: int | None = Field(default=None, ge=0)
    """The frame it was read from, counted from 0; None for an object of one frame."""
    category: str = Field(default="", max_length=64)
    adapter: str = Field(default="", max_length=64)
    """Slot of the adapter that answered; empty if the base did."""
    flags: tuple[Key, ...] = ()
    """What was wrong with the text as generated, such as ``repetition``."""
    notes: tuple[Words, ...] = ()
    """Sentences that belong to the answer: that the base answered, which frame it is of, what was cut out."""


class Refusal(Word):
    """An image a plugin will not judge, and why, in words."""

    instance_sha256: Sha256
    code: Key
    sentence: str


class ProducedFile(Word):
    """A file a child made in its job directory. ``extent`` is (top, left, bottom, right) in 0..1 of the image."""

    name: FileName
    role: Literal["heatmap", "mask", "picture", "data"]
    media_type: Literal[
        "image/png", "image/jpeg", "application/json", "application/dicom", "application/pdf", "application/x-npz"
    ]
    instance_sha256: Sha256 | None = None
    extent: tuple[Probability, Probability, Probability, Probability] = (0.0, 0.0, 1.0, 1.0)
    caption: str = ""


class SliceRef(Word):
    """One slice: an image of the task by its SHA-256, and the frame of it, counted from 0."""

    sha256: Sha256
    frame: int = Field(ge=0)


class Segment(Word):
    """One structure of a segmentation: ``number`` counts from 1 and is its place in the array, from 1.

    ``name`` is a condition's key for a finding, or the key of an anatomical structure.
    """

    number: int = Field(ge=1)
    name: Key
    role: Literal["finding", "anatomy"] = "finding"
    label: str = Field(min_length=1, max_length=64)
    model: str = ""
    """Slot of the model that made it."""


class Segmentation(Word):
    """Masks over one stack of slices, voxel for voxel on the images as they arrived: nothing was resampled.

    The file holds one array ``masks`` (segment, slice, row, column) of bits, packed along the columns by
    ``numpy.packbits``; slices in the order of ``slices``, segments in that of ``segments``. They may overlap.
    """

    file: FileName
    slices: tuple[SliceRef, ...] = Field(min_length=1)
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    segments: tuple[Segment, ...] = Field(min_length=1)


ReportSection = Literal["findings", "impression", "recommendations"]
"""Sections of a written report, in the order in which they are read."""


class ReportSentence(Word):
    """One sentence of a written report, and what it rests on: findings, masks, or that nothing was found.

    ``findings`` and ``masks`` are places in those of the analysis, counted from 0. One that rests on neither is
    about the examination itself, or a recommendation that follows from ``conditions``.
    """

    section: ReportSection
    text: Words
    conditions: tuple[Key, ...] = ()
    findings: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()
    normal: bool = False
    """It says that something was looked for and not found."""


class Analysis(Word):
    """What an engine says of a study. No word of it may leave before the guard released it."""

    plugin: Key
    plugin_version: str
    models: tuple[ModelRef, ...]
    findings: tuple[Finding, ...] = ()
    answers: tuple[Answer, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    remarks: tuple[Words, ...] = ()
    files: tuple[ProducedFile, ...] = ()
    masks: tuple[Mask, ...] = ()
    """What its segmentations show; the guard holds the text against them."""
    segmentations: tuple[Segmentation, ...] = ()
    report: tuple[ReportSentence, ...] = ()
    """A written report, sentence by sentence, in the order in which they are read; unguarded."""
    distances: tuple[Distance, ...] = ()
    timings_ms: dict[str, float] = Field(default_factory=dict)
