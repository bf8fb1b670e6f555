"""Questions that somebody asked about an image, and what became of them."""

from __future__ import annotations

from enum import StrEnum

from clinic_ai.domain.release import Released
from clinic_ai.domain.words import Audience, Probability, Sha256, Word, Words


class QuestionOutcome(StrEnum):
    """What became of a question that somebody asked."""

    ANSWERED = "answered"
    """A model answered, and the guard let the answer out."""
    TEMPLATE = "template"
    """The guard answered with a template of its pack; no model was asked."""
    HELD = "held"
    """The guard kept back the question or the answer."""
    REFUSED = "refused"
    """The plugin would not or could not answer."""


class QuestionDocument(Word):
    """What is kept of a question beside its words. Nothing unguarded: of an answer that was held there is no word."""

    released: Released | None = None
    """The answer as the guard let it out; for a refusal its words, if they may be read."""
    marks: tuple[str, ...] = ()
    """Sentences that stand beside the answer wherever it is shown."""
    reason: str = ""
    """Why there is no answer, or none by a model; for staff, not for the patient."""
    remedy: str = ""
    plugin: str = ""
    models: tuple[str, ...] = ()
    """Labels of the models that answered; none if no model did."""
    image: int = 0
    """Number of the image in the study's order, counted from 1."""
    instance_sha256: Sha256 | None = None
    frame: int | None = None
    """The frame the answer was read from, counted from 0; None for an object of one frame."""
    category: str = ""
    adapter: str = ""
    """Slot of the adapter that answered; empty if the base did, or nobody."""
    confidence: Probability | None = None
    """Calibrated probability that the answer is right; None if the model has no calibration."""
    example: str = ""
    """The healthy example that goes with a template, by its id."""
    seconds: float = 0.0
    """From the question to its answer."""


class AskedQuestion(Word):
    """A question somebody asked about an image of a study, and what became of it. ``asked_at`` is UTC seconds."""

    question_id: str
    study_id: str
    version: int
    audience: Audience
    asked_by: str
    asked_at: float
    question: Words
    """As it was asked; it may hold personal data."""
    outcome: QuestionOutcome
    document: QuestionDocument
    policy_hash: str
