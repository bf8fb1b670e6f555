"""What the control API answers and takes about single files: where one lies, what may be decided, how two differ."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clinic_ai.control.views import FileRow, Line, Order, View
from clinic_ai.domain import FileDecision

MAX_FILES = 1000
"""Files of one order; for more there is the study."""
FileNumber = Annotated[int, Field(ge=1, le=2**63 - 1)]


class ChoiceView(View):
    """One way to accept a file: ``option`` is how the command line says it, ``meaning`` what follows."""

    decision: FileDecision
    option: str
    meaning: str


class FileView(View):
    """One file: its row, where its bytes lie (empty: nowhere), and how it may be accepted."""

    file: FileRow
    place: str
    choices: tuple[ChoiceView, ...]
    conflict: bool
    """Whether it contradicts the study of its row, so that the two can be compared."""


class SideView(View):
    """One of two objects that contradict each other, by what its header says of the image and not of the patient."""

    sha256: str
    size_bytes: int
    kind: str
    modality: str
    study_date: str
    study_description: str
    series_number: int | None
    series_description: str
    instance_number: int | None
    rows: int
    columns: int
    frames: int


class ComparisonView(View):
    """A quarantined file beside the object of its study that it contradicts.

    ``stored`` is None if it contradicts the study as a whole. ``differing`` names what differs, by DICOM keyword;
    ``pixels`` says whether the image data do, byte by byte and without decoding.
    """

    arrived: SideView
    stored: SideView | None
    differing: tuple[str, ...]
    pixels: Literal["same", "different", "unknown"]
    sentence: str


class AcceptOrder(Order):
    """Accept these files, and with ``study`` all that contradict it and that the decision fits."""

    files: tuple[FileNumber, ...] = Field(default=(), max_length=MAX_FILES)
    study: Line | None = None
    decision: FileDecision = FileDecision.AGAIN


class DiscardOrder(Order):
    """Remove the bytes of these files, and with ``study`` of all that contradict it; ``reason`` is kept."""

    files: tuple[FileNumber, ...] = Field(default=(), max_length=MAX_FILES)
    study: Line | None = None
    reason: Line


class DecidedView(View):
    """What was decided, in one sentence, and the numbers of the files."""

    sentence: str
    files: tuple[int, ...]
