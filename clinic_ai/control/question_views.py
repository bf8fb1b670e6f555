"""What the control API takes and gives of questions about images. Images and frames count from 1 here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from clinic_ai.control.views import Order, View
from clinic_ai.domain import QuestionOutcome
from clinic_ai.domain.words import MAX_QUESTION


class AskOrder(Order):
    """A question about one image of a study, and who is to read the answer."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION, strip_whitespace=True)]
    audience: Literal["clinician", "patient"] = "clinician"
    image: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{1,64}$")] | None = None
    """Its number in the study's order, or eight or more digits of its SHA-256; not needed if there is one alone."""
    frame: int | None = Field(default=None, ge=1, le=1_000_000)
    """None: the plugin chooses."""


class AskedView(View):
    """A question and what became of it; ``text``, ``annotations`` and ``marks`` are as the guard let them out."""

    question_id: str
    study_id: str
    version: int
    audience: str
    asked_by: str
    asked_at: float
    question: str
    outcome: QuestionOutcome
    text: str
    annotations: tuple[str, ...]
    marks: tuple[str, ...]
    reason: str
    """Why there is no answer, or none by a model."""
    remedy: str
    image: int
    frame: int | None
    """None for an object of one frame, or if no model answered."""
    category: str
    adapter: str
    """Slot of the adapter that answered; empty if the base did, or nobody."""
    models: tuple[str, ...]
    """Labels of the models that answered; none if no model did."""
    confidence: float | None
    """Calibrated probability that the answer is right; None if the model has no calibration."""
    example: str
    """The healthy example that goes with a template."""
    seconds: float
    policy_hash: str
