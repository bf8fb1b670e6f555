"""How long to wait for more of a study: learned for each source from how its studies arrived before.

The question is that of the newsvendor: too short a quiet period closes studies early, too long a one delays all.
Of every study its longest pause is remembered (one that was closed before its last instance came has the pause that
made it so). For a quiet period q, each study costs q seconds, and a study that pauses longer costs ``EARLY_CLOSE_S``
seconds more: its result is superseded and made again. The q with the least mean cost is taken, of those that would
have covered one of the pauses with ``MARGIN`` to spare, and of the least one.

So a pause is covered if it comes often enough for what covering it costs: 13 s more for every study pay if one study in
23 needs them. ``PRIOR_STUDIES`` imagined studies without a pause keep the first few real ones from deciding: the first
study of all that went on after 12 s raises 5 s to 18 s, the first that went on after 50 s does not, five of them do. A
single odd pause among many moves nothing, and what does not come again is forgotten, at the latest after ``WINDOW``.

Pauses are of the monotonic clock: setting the clock teaches nothing.
"""

from __future__ import annotations

import math

from pydantic import Field

from clinic_ai.domain import Word

WINDOW = 200
"""Studies remembered of a source."""
PRIOR_STUDIES = 20
EARLY_CLOSE_S = 300.0
MARGIN = 1.5


class Seen(Word):
    """How one study arrived: its longest pause, and whether it went on after it had been closed.

    ``announced`` and ``broken`` are of studies closed for the number their headers announce, and of those among them
    to which more came.
    """

    pause_s: float = Field(ge=0, le=86400, allow_inf_nan=False)
    late: bool = False
    announced: bool = False
    broken: bool = False


class Pace(Word):
    """What is known of a source, the oldest study first."""

    studies: tuple[Seen, ...] = Field(default=(), max_length=WINDOW)

    @property
    def late(self) -> int:
        """How many of the studies went on after they had been closed."""
        return sum(seen.late for seen in self.studies)


def learned(pace: Pace, seen: Seen) -> Pace:
    """Return the pace with one more study; the oldest is forgotten when there are too many."""
    return Pace(studies=(*pace.studies, seen)[-WINDOW:])


def quiet_period(pace: Pace, *, least_s: float, most_s: float) -> float:
    """Return the quiet period in seconds for a source, between ``least_s`` and ``most_s``; never less than ``least_s``.

    The order of the studies does not matter.
    """
    # A pause that no permitted period covers is a miss whatever is chosen, and so decides nothing.
    pauses = [seen.pause_s for seen in pace.studies if least_s < seen.pause_s * MARGIN and seen.pause_s <= most_s]
    covers = sorted(min(most_s, math.ceil(pause * MARGIN * 10) / 10) for pause in pauses)
    total = len(pace.studies) + PRIOR_STUDIES
    best, least_cost = least_s, least_s + EARLY_CLOSE_S * len(covers) / total
    for number, period in enumerate(covers, start=1):
        if number < len(covers) and covers[number] == period:
            continue  # the last of equals covers them all
        cost = period + EARLY_CLOSE_S * (len(covers) - number) / total
        if cost < least_cost:
            best, least_cost = period, cost
    return best


def announcements_hold(pace: Pace) -> bool:
    """Return whether the numbers that a source announces may be believed: at most one in ten was wrong, or a first."""
    announced = sum(seen.announced for seen in pace.studies)
    return 10 * sum(seen.broken for seen in pace.studies) <= announced + 10
