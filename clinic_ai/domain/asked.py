"""A question somebody asked about a study, and what became of it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from clinic_ai.domain.release import Released
from clinic_ai.domain.words import Audience, Probability, Word


class AskOutcome(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    """A model answered, and the guard released it."""
    TEMPLATE = "template"
    """The policy pack answered; no model was asked."""
    HELD = "held"
    """The guard kept the question or the answer back."""
    REFUSED = "refused"
    """The plugin will not answer it, and says why."""
    FAILED = "failed"
    """The engine died or did not answer."""


class AskedDocument(Word):
    """What was said, or why nothing was. Words of a model stand here only as the guard released them.

    ``image`` and ``frame`` count from 1, the images of a study in the order of `study show`.
    """

    sentence: str = ""
    """Why there is no answer; empty if there is one."""
    remedy: str = ""
    rule: str = ""
    """The intent or rule of the policy pack that decided, if one did."""
    answer: Released | None = None
    marks: tuple[str, ...] = ()
    """Sentences that stand wherever the answer is shown."""
    example: str = ""
    """Id of the clinic's healthy example that goes with the answer."""
    image: int | None = None
    frame: int | None = None
    category: str = ""
    adapter: str = ""
    """Slot of the adapter that answered; empty if the base did, or no model."""
    models: tuple[str, ...] = ()
    confidence: Probability | None = None
    seconds: float = Field(default=0.0, ge=0)
    """From the question to its outcome."""


class Asked(Word):
    """One question about one version of a study; ``asked_by`` is the Unix user, ``asked_at`` UTC seconds."""

    question_id: str
    study_id: str
    version: int
    audience: Audience
    asked_by: str
    asked_at: float
    question: str
    """As it went to the model, or as it was asked if it went to none."""
    outcome: AskOutcome
    document: AskedDocument
    policy_hash: str
