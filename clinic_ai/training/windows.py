"""When the appliance may train by itself: the clinic's windows, on its calendar and by the clock on its wall.

Windows are written in the time of the clock on the wall, so they move with daylight saving. A time that the clock
skips counts as the moment at which it jumps; a time that it shows twice counts the first time. Everything here is a
pure function of the time of day in UTC seconds: a clock that somebody sets is right again at the next question.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from clinic_ai.settings import TrainingSettings
from clinic_ai.settings.training import TrainingWindow

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

LOOK_BACK = timedelta(days=2)
"""Nothing that began earlier is still open: a window lasts less than a day, or 25 hours where the clock is set back."""
HORIZON_S = 8 * 86400.0
"""Windows that touch without end are said to be open for this long."""
LOOK_AHEAD = timedelta(days=400)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Windows:
    """The windows of ``[training]``, in one time zone; None is that of the machine."""

    def __init__(self, settings: TrainingSettings, zone: tzinfo | None = None) -> None:
        self._zone = zone
        self._windows = tuple(_Window(window, settings.holidays) for window in settings.window)

    @property
    def configured(self) -> bool:
        """Whether there is any window."""
        return bool(self._windows)

    def open_until(self, now: float) -> float | None:
        """Return when the window that is open at ``now`` closes, None if none is open; both in UTC seconds.

        Windows that overlap or touch are one. Those that never end are said to be open for ``HORIZON_S`` more.
        """
        closes = None
        while (later := self._closing(closes or now)) is not None:
            closes = later
            if closes >= now + HORIZON_S:
                return now + HORIZON_S
        return closes

    def next_opening(self, now: float) -> float | None:
        """Return when a window opens next, once the present one has closed; None if none does within 400 days."""
        after = self.open_until(now) or now
        if after >= now + HORIZON_S:
            return None
        openings = (
            next((opens for opens, _ in self._spans(window, after) if opens >= after), None) for window in self._windows
        )
        return min((opens for opens in openings if opens is not None), default=None)

    def night_of(self, now: float) -> str:
        """Return the night that ``now`` belongs to: the ISO date on which it began; nights last from noon to noon."""
        return (self._wall(now) - timedelta(hours=12)).date().isoformat()

    def year_of(self, now: float) -> int:
        """Return the calendar year that ``now`` belongs to."""
        return self._wall(now).year

    # ------------------------------------------------------------

    def _closing(self, now: float) -> float | None:
        """Return the latest closing time of the windows that are open at ``now``."""
        open_ones = (
            closes
            for window in self._windows
            for opens, closes in self._spans(window, now, until=now)
            if opens <= now < closes
        )
        return max(open_ones, default=None)

    def _spans(self, window: _Window, now: float, until: float | None = None) -> Iterator[tuple[float, float]]:
        """Yield when a window opens and closes, from two days before ``now`` to ``until``, else 400 days later.

        One that the clock jumps over as a whole does not open.
        """
        wall = self._wall(now)
        last = wall + LOOK_AHEAD if until is None else self._wall(until) + timedelta(days=1)
        for start, end in window.spans(wall - LOOK_BACK, last):
            opens, closes = self._instant(start), self._instant(end)
            if opens < closes:
                yield opens, closes

    def _wall(self, now: float) -> datetime:
        """Return what the clock on the wall shows, without a zone."""
        return datetime.fromtimestamp(now, self._zone).replace(tzinfo=None)

    def _instant(self, wall: datetime) -> float:
        """Return the first moment at which the clock shows ``wall``, or later because it was put forward."""
        first = wall.replace(tzinfo=self._zone, fold=0).timestamp()
        if self._wall(first) == wall:
            return first
        # Skipped: by the offset of before and of after it lies on both sides of the jump, which is to be found.
        seconds = range(int(wall.replace(tzinfo=self._zone, fold=1).timestamp()), int(first) + 1)
        return float(seconds[bisect_left(seconds, wall, key=self._wall)])


class _Window:
    """One window by the clock on the wall: its days by a cron trigger, which knows no zone here."""

    def __init__(self, window: TrainingWindow, holidays: tuple[str, ...]) -> None:
        self._days = frozenset(window.days)
        self._holidays = frozenset(holidays)
        start, end = (timedelta(hours=int(text[:2]), minutes=int(text[3:])) for text in (window.start, window.end))
        self._length = end - start if start < end else end - start + timedelta(days=1)
        self._trigger = self._starts(start)

    def spans(self, first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield start and end of each day's window that starts between the two."""
        now: datetime = first.replace(tzinfo=UTC)
        fired = self._trigger.get_next_fire_time(None, now)
        while fired is not None and fired.replace(tzinfo=None) <= last:
            start = fired.replace(tzinfo=None)
            if self._kind(start.date()) in self._days:
                yield start, start + self._length
            fired = self._trigger.get_next_fire_time(fired, fired)

    def _kind(self, day: date) -> str:
        return "holiday" if day.isoformat() in self._holidays else WEEKDAYS[day.weekday()]

    def _starts(self, start: timedelta) -> BaseTrigger:
        """Return the trigger of its weekdays and of the holidays, those that do not count among them."""
        from apscheduler.triggers.combining import OrTrigger  # only where there are windows: it costs memory
        from apscheduler.triggers.cron import CronTrigger

        clock = {"hour": start.seconds // 3600, "minute": start.seconds // 60 % 60, "timezone": UTC}
        weekdays = [day for day in WEEKDAYS if day in self._days]
        triggers = [CronTrigger(day_of_week=",".join(weekdays), **clock)] if weekdays else []
        if "holiday" in self._days:
            days = (date.fromisoformat(text) for text in self._holidays)
            triggers += [CronTrigger(year=day.year, month=day.month, day=day.day, **clock) for day in days]
        return OrTrigger(triggers)
