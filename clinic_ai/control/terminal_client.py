"""The client of the terminal's screens: all they ask, of one daemon."""

from __future__ import annotations

from clinic_ai.control.log_client import LogClient
from clinic_ai.control.machine_client import MachineClient
from clinic_ai.control.night_client import NightClient
from clinic_ai.control.preview_client import PreviewClient
from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.question_client import QuestionClient
from clinic_ai.control.queue_client import QueueClient
from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.study_client import StudyClient


class TerminalClient(
    ReviewClient,
    PromotionClient,
    QuestionClient,
    MachineClient,
    PreviewClient,
    StudyClient,
    LogClient,
    NightClient,
    QueueClient,
):
    """Talks to the daemon of one home about all that the screens show; raises what ``Client`` raises."""
