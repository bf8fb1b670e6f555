"""What the control API answers about the queue: any part of it, in any order."""

from __future__ import annotations

from clinic_ai.control.views import StudyRow, View


class QueueRow(StudyRow):
    """A study version in the queue. ``urgent``: its priority is above 0 and it is not done; ``critical``: nobody has
    acknowledged an alert about what it shows.

    ``verdict`` is the strictest that the guard decided of it (empty: not asked yet), ``rejected`` whether a person
    let nothing of that go out. ``at_work`` names the plugins that work on it now, an empty name its report; ``turns``
    counts its jobs that wait for their turn.
    """

    urgent: bool = False
    critical: bool = False
    verdict: str = ""
    rejected: bool = False
    at_work: tuple[str, ...] = ()
    turns: int = 0


class QueuePage(View):
    """A part of the queue from place ``offset``; the top is 0. ``total`` studies have the words looked for.

    ``place`` is where the study stands that was asked about; None: it is not among them.
    """

    studies: tuple[QueueRow, ...]
    offset: int
    total: int
    place: int | None
