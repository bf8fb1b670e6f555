"""What the control API takes to try the guard; it answers ``guard.asking.GuardCheck``."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints, model_validator

from clinic_ai.control.views import Order
from clinic_ai.domain import Audience, StatementKind, Words
from clinic_ai.domain.words import MAX_QUESTION


class CheckOrder(Order):
    """What to try: a text, a question, or both, for one audience, about one study."""

    study_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    audience: Audience
    text: Words | None = None
    kind: StatementKind = "answer"
    """What the text would be; a template for patients is chosen by it."""
    question: Annotated[str, StringConstraints(max_length=MAX_QUESTION)] | None = None
    language: Annotated[str, StringConstraints(max_length=16)] | None = None
    """The clinic's if it is not given."""

    @model_validator(mode="after")
    def _has_something(self) -> CheckOrder:
        if self.text is None and self.question is None:
            raise ValueError("there is neither a text nor a question")
        return self
