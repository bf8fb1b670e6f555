"""What is asked about images: categories of views, their questions, and how a model words its answers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, StringConstraints

from clinic_ai.domain.words import Key, Word, Words

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


def plain_name(text: str) -> str:
    """Return a name as names are compared: without case, blanks and punctuation."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def categories_named(name: str, categories: Iterable[CategoryInfo]) -> tuple[CategoryInfo, ...]:
    """Return the categories whose key, label or alias this is; several if that leaves it open which one is meant."""
    wanted = plain_name(name)
    return tuple(c for c in categories if wanted and wanted in map(plain_name, (c.key, c.label, *c.aliases)))
