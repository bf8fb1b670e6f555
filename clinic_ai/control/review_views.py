"""What the control API answers and takes about reviews. Words are ``Released``; lists hold metadata alone.

The patient stands in ``ReviewView`` only: who signs has to see whose result it is.
"""

from __future__ import annotations

from pydantic import Field

from clinic_ai.control.views import DecisionRow, Line, LongLine, Order, View
from clinic_ai.domain import Presence, Released, Sha256
from clinic_ai.domain.reviews import MAX_PASSAGES, Correction, Passage

Name = Line


class ReviewRow(View):
    """One artefact that waits for a person. ``rules`` are those of the guard that spoke about it.

    ``priority_reason`` says why the study goes before others, empty if it does not.
    """

    artefact_id: str
    study_id: str
    version: int
    audience: str
    state: str
    action: str
    rules: tuple[str, ...]
    created_at: float
    pseudonym: str = ""
    modality: str = ""
    priority: int = 0
    priority_reason: str = ""


class DecidedRow(View):
    """One decision about the artefact; ``diff`` shows what the person changed, a statement a line."""

    review_id: str
    decision: str
    reviewer: str
    reason: str
    diff: str
    consent: bool
    decided_at: float


class FindingRow(View):
    """What the software says of a condition; ``probability`` is calibrated and ``threshold`` its cut."""

    condition: str
    label: str
    laterality: str
    presence: Presence
    probability: float
    threshold: float


class SubjectRow(View):
    """Whom and what a result is about: names, number and dates as DICOM writes them. For clinicians alone."""

    patient_name: str
    patient_id: str
    birth_date: str
    study_dates: tuple[str, ...]
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]

    @property
    def patient(self) -> str:
        """Name, number and date of birth as people read them."""
        born = f"born {_date(self.birth_date)}" if self.birth_date else "birth date not known"
        return f"{_name(self.patient_name)}, ID {self.patient_id or 'not known'}, {born}"

    @property
    def exam(self) -> str:
        """Modality and body part."""
        return f"{', '.join(self.modalities)} {', '.join(self.body_parts) or 'body part not known'}".strip()

    @property
    def dates(self) -> str:
        """The days the images were taken."""
        return ", ".join(map(_date, self.study_dates)) or "not known"


class SignersView(View):
    """The names that results are signed with here; ``own`` is the one used if none is given, empty if one has to be."""

    names: tuple[str, ...]
    own: str


class ReviewView(View):
    """An artefact as a reviewer reads it; ``digest`` stands for just these words and has to come with a decision.

    ``withheld`` are ids of statements that the guard keeps back even from review; ``decisions`` tell why.
    ``original_decisions`` are what the guard said when the software alone spoke: why the artefact is held.
    """

    row: ReviewRow
    subject: SubjectRow
    signer: str
    """The name a decision will carry; empty if nobody asked to decide."""
    statements: tuple[Released, ...]
    withheld: tuple[str, ...]
    decisions: tuple[DecisionRow, ...]
    original_decisions: tuple[DecisionRow, ...] = ()
    marks: tuple[str, ...]
    findings: tuple[FindingRow, ...]
    digest: str
    history: tuple[DecidedRow, ...]


class ReviewOrder(Order):
    """What every decision says: what was shown, who signs (None: the Unix user), and whether it may be learned from."""

    digest: Sha256
    reviewer: Name | None = None
    consent: bool | None = None


class AcceptReview(ReviewOrder):
    """Sign the words as they were shown."""


class AmendReview(ReviewOrder):
    """Sign other words (None: the same), or say otherwise what is there."""

    statements: tuple[Passage, ...] | None = Field(default=None, max_length=MAX_PASSAGES)
    corrections: tuple[Correction, ...] = Field(default=(), max_length=MAX_PASSAGES)
    reason: LongLine = ""


class RejectReview(ReviewOrder):
    """Let nothing of it go out, and say why."""

    reason: Line
    corrections: tuple[Correction, ...] = Field(default=(), max_length=MAX_PASSAGES)


class ConsentOrder(Order):
    """Whether models may learn from a review."""

    consent: bool


def _name(value: str) -> str:
    """Return a DICOM person name (PN) as people read it: groups by ``=``, components by ``^``."""
    groups = (", ".join(filter(None, map(str.strip, group.split("^")))) for group in value.split("="))
    return " / ".join(filter(None, groups)) or "name not known"


def _date(value: str) -> str:
    """Return a DICOM date (DA) as ``2026-01-31``; what is no date stays as it is."""
    digits = value.isascii() and value.isdigit() and len(value) == 8
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if digits else value
