"""The client of questions about images."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_ai.control.client import Client, all_pages, page_query, segment
from clinic_ai.control.pages import QuestionPage
from clinic_ai.control.question_views import AskedView, AskOrder

ASK_S = 4200.0
"""Longer than a daemon takes at most: a model to load, and an hour of ``questions.answer_timeout_s``."""


class QuestionClient(Client):
    """Talks to the daemon of one home about questions; raises what ``Client`` raises."""

    def ask(self, study_id: str, order: AskOrder) -> AskedView:
        """Ask about an image of a study. Raise NotFound, NotAllowed or Conflict, or what the engine failed with."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/questions", order, AskedView, timeout_s=ASK_S)

    def questions(self, study_id: str) -> list[AskedView]:
        """Return the questions that were asked about a study. Raise NotFound or NotAllowed."""

        def fetch(before: str | None) -> tuple[Sequence[AskedView], str | None]:
            path = f"/v1/studies/{segment(study_id, 'study')}/questions"
            page = self._get(path, QuestionPage, page_query(before))
            return page.questions, page.next_before

        return list(all_pages(fetch))
