"""What the API answers about one study beside ``StudyView``: its images, its findings, and what happened to it."""

from __future__ import annotations

from clinic_ai.control.views import View
from clinic_ai.domain import Presence, ValidationFigures

MAX_IMAGES = 2000
"""Images of a stack that are listed one by one; more are counted."""


class ImageRow(View):
    """One file of a stack. It begins with image ``first`` of the stack and holds ``frames`` of them.

    ``rows`` and ``columns`` are pixels of a frame, ``position_mm`` the place on the stack's normal, None if unknown.
    """

    first: int
    frames: int
    instance_number: int | None
    sha256: str
    rows: int
    columns: int
    position_mm: float | None


class StackImages(View):
    """A stack by the number, from 1, under which its pictures are asked for; ``files`` are the first ``MAX_IMAGES``."""

    number: int
    line: str
    images: int
    regular: bool
    scout: bool
    remarks: tuple[str, ...]
    files: tuple[ImageRow, ...]


class SeriesRow(View):
    """A series as the scanner named it, with its stacks."""

    number: int | None
    modality: str
    description: str
    stacks: tuple[StackImages, ...]


class SeriesView(View):
    """All series of a study's newest version that hold images."""

    study_id: str
    version: int
    series: tuple[SeriesRow, ...]


class FoundRow(View):
    """A finding that the guard released. ``probability`` is calibrated, ``threshold`` where it counts as present.

    ``presence`` is what the software says, ``signed`` what the signer says instead, None if that stands. ``stack`` and
    ``image`` are where it was seen, 0 if that image has no picture; ``words`` is the released sentence.
    """

    condition: str
    label: str
    laterality: str
    presence: Presence
    signed: Presence | None
    probability: float
    threshold: float
    model: str
    stack: int
    image: int
    heatmap: bool
    words: str
    validation: ValidationFigures | None


class FindingsView(View):
    """What the report for clinicians says of conditions. ``artefact_id`` is empty while there is none to read.

    ``withheld`` counts findings that the guard keeps back; ``note`` says why there is nothing, or not all.
    """

    study_id: str
    version: int
    artefact_id: str
    state: str
    findings: tuple[FoundRow, ...]
    withheld: int
    note: str


class HappenedRow(View):
    """Something that happened to a study; ``seq`` is its place in the audit, ``at`` UTC seconds."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str


class HistoryView(View):
    """What the audit says of a study and its jobs, the newest first; ``more`` if older rows were left out."""

    study_id: str
    rows: tuple[HappenedRow, ...]
    more: bool
