"""What is asked about images: categories of views, their questions, and how a model words its answers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from clinic_ai.domain.release import Released
from clinic_ai.domain.words import Audience, Key, Probability, Sha256, Word, Words

Alias = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Code(Word):
    """A coded concept: scheme designator and value as in DICOM PS3.16, such as SCT 71341001, and its meaning."""

    scheme: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{1,16}$")]
    value: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
    meaning: str = Field("", max_length=64)


class Generation(Word):
    """How an answer is generated: beam search without sampling. The defaults are those of the first clinic."""

    max_new_tokens: int = Field(100, ge=1, le=1000)
    min_new_tokens: int = Field(5, ge=0, le=100)
    num_beams: int = Field(3, ge=1, le=16)
    no_repeat_ngram_size: int = Field(3, ge=0, le=20)
    repetition_penalty: float = Field(1.2, ge=1.0, le=5.0, allow_inf_nan=False)


class CategoryInfo(Word):
    """A kind of view that has its own questions and its own adapter; the adapter's slot is ``key``."""

    key: Key
    label: str = Field(min_length=1, max_length=80)
    aliases: tuple[Alias, ...] = ()
    """Other names people and folders use, wrong spellings too; compared without case, blanks and punctuation."""
    body_parts: tuple[Alias, ...] = ()
    """Values of Body Part Examined (0018,0015) that say this category, such as FEMUR."""
    codes: tuple[Code, ...] = ()
    """View or anatomy codes of DICOM headers that say this category; one that several share leaves it open which."""
    questions: tuple[Words, ...] = ()
    """Asked of every image of the category when it arrives."""
    generation: Generation | None = None
    """Where it differs from the defaults."""


class QuestionAnswer(Word):
    """A question about an image and the answer somebody gave to it."""

    question: Words
    answer: Words


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


def plain_name(text: str) -> str:
    """Return a name as names are compared: without case, blanks and punctuation."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def categories_named(name: str, categories: Iterable[CategoryInfo]) -> tuple[CategoryInfo, ...]:
    """Return the categories whose key, label or alias this is; several if that leaves it open which one is meant."""
    wanted = plain_name(name)
    return tuple(c for c in categories if wanted and wanted in map(plain_name, (c.key, c.label, *c.aliases)))
