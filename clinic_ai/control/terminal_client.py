"""The client of the terminal's screens: all they ask, of one daemon."""

from __future__ import annotations

from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.question_client import QuestionClient
from clinic_ai.control.queue_client import QueueClient
from clinic_ai.control.review_client import ReviewClient


class TerminalClient(ReviewClient, PromotionClient, QuestionClient, QueueClient):
    """Talks to the daemon of one home about all that the screens show; raises what ``Client`` raises."""
