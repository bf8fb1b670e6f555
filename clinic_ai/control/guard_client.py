"""The client of the guard's trial."""

from __future__ import annotations

from clinic_ai.control.client import LONG_S, Client
from clinic_ai.control.guard_views import CheckOrder
from clinic_ai.domain import Audience, StatementKind
from clinic_ai.guard.asking import GuardCheck


class GuardClient(Client):
    """Talks to the daemon of one home about the guard; raises what ``Client`` raises."""

    def check_words(
        self,
        study_id: str,
        audience: Audience,
        *,
        text: str | None,
        question: str | None,
        language: str | None,
        kind: StatementKind = "answer",
    ) -> GuardCheck:
        """Return what would become of a text and a question about a study; ``kind`` is what the text would be.

        Raise NotFound or NotAllowed.
        """
        order = CheckOrder(
            study_id=study_id, audience=audience, text=text, kind=kind, question=question, language=language
        )
        return self._post("/v1/guard/check", order, GuardCheck, timeout_s=LONG_S)
