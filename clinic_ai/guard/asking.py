"""What passes between the daemon and the guard child about a question."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from clinic_ai.domain import Audience, GuardAction, GuardVerdict, Released, Sha256, Word
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.guard.intents import HealthyExample, QuestionSubject


class QuestionTask(Word):
    """Say whether a model may be asked this, under the pack with this digest."""

    audience: Audience
    subject: QuestionSubject
    question: Annotated[str, StringConstraints(max_length=MAX_QUESTION)]
    policy_hash: Sha256


class QuestionVerdict(Word):
    """What becomes of a question: ``allow``, ``replace`` (answered by a template) or ``hold``.

    Only an allowed one has a ``question`` for the model: hidden characters and personal data are taken out of it.
    """

    audience: Audience
    action: GuardAction
    intent: str = ""
    """Which intent of the pack it is; empty for an allowed one."""
    reason: str = ""
    question: str = ""
    reply: Released | None = None
    example: HealthyExample | None = None
    """The picture that goes with the reply."""
    policy_hash: Sha256


class GuardCheck(Word):
    """What would become of a text, and of a question; whichever was given."""

    text: GuardVerdict | None = None
    question: QuestionVerdict | None = None
