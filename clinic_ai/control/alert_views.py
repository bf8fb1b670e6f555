"""What is said of alerts, and what is said when one is acknowledged."""

from __future__ import annotations

from clinic_ai.control.views import Line, OptionalLine, Order, View


class AckOrder(Order):
    """To whom a critical finding was told, in one line; empty: nobody is named.

    ``reviewer`` is who acknowledges it, a name of [review] reviewers; None: the Unix user.
    """

    told_to: OptionalLine = ""
    reviewer: Line | None = None


class CriticalView(View):
    """An open alert about a critical finding, with what was found. Times are UTC seconds."""

    alert_id: int
    study_id: str
    what: str
    category: int
    act_within: str
    raised_at: float
    notices: int
    next_at: float
    escalated: bool
