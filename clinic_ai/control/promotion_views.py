"""What the control API takes about candidates; it answers with the words of ``gating`` and ``promoting``."""

from __future__ import annotations

from pydantic import Field

from clinic_ai.control.model_views import ModelChoice
from clinic_ai.control.views import Line, LongLine


class ApproveOrder(ModelChoice):
    """Approve a candidate in the name of a person; without ``reviewer`` in that of the Unix user."""

    reviewer: Line | None = None
    reason: LongLine = ""


class PromoteOrder(ModelChoice):
    """Make a model active; a candidate on the approval of ``reviewer``, if given, else on the one it has."""

    reviewer: Line | None = None
    reason: LongLine = ""


class CanaryOrder(ModelChoice):
    """Run a candidate in the shadow on at most ``most`` studies that were analysed in the last ``hours``."""

    hours: float = Field(default=24.0, gt=0, le=24 * 31)
    most: int = Field(default=50, ge=1, le=1000)
