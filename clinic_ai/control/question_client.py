"""The client of questions."""

from __future__ import annotations

from clinic_ai.control.client import Client, segment
from clinic_ai.control.question_views import QuestionOrder
from clinic_ai.domain import Asked

ASK_S = 4200.0
"""Longest time to wait: that of an answer, at most an hour, and that of loading a model."""


class QuestionClient(Client):
    """Talks to the daemon of one home about questions; raises what ``Client`` raises."""

    def ask(self, study_id: str, order: QuestionOrder) -> Asked:
        """Ask, and return what became of the question. Raise NotFound, NotAllowed, Conflict or ClinicError."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/questions", order, Asked, timeout_s=ASK_S)

    def asked(self, study_id: str) -> list[Asked]:
        """Return what was asked about a study. Raise NotFound or NotAllowed."""
        return self._get(f"/v1/studies/{segment(study_id, 'study')}/questions", list[Asked])
