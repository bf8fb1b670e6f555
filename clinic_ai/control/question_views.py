"""What the routes about questions take and give."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from clinic_ai.control.views import Order
from clinic_ai.guard.intents import MAX_QUESTION

FRAMES = 1_000_000
"""Number of a frame at most."""


class QuestionOrder(Order):
    """A question about a study, for whom the answer is meant, and which image and frame it is about, from 1."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION)]
    audience: Literal["clinician", "patient"] = "clinician"
    image: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{0,64}$")] = ""
    """Its number, or the beginning of its SHA-256; empty where the study has one image."""
    frame: int | None = Field(default=None, ge=1, le=FRAMES)
