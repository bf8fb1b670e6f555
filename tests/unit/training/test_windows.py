"""Windows of training: daylight saving, midnight, holidays, overlaps, and a clock that jumps."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clinic_ai.settings import TrainingSettings, TrainingWindow
from clinic_ai.training.windows import HORIZON_S, WEEKDAYS, Windows

BERLIN = ZoneInfo("Europe/Berlin")
ALWAYS = (*WEEKDAYS, "holiday")
CHANGES = {
    # Zone, and a day on which its clock is put forward, back, or by half an hour.
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "America/Santiago": ("2026-04-05", "2026-09-06"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "Africa/Cairo": ("2026-04-24", "2026-10-30"),
    "UTC": ("2026-06-01",),
}


def windows(*spans: str, days: tuple[str, ...] = ALWAYS, holidays: tuple[str, ...] = (), zone: str = "Europe/Berlin"):
    made = tuple(TrainingWindow(start=span[:5], end=span[6:], days=days) for span in spans)
    return Windows(TrainingSettings(window=made, holidays=holidays), ZoneInfo(zone))


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def wall(moment: float | None) -> str:
    return "" if moment is None else f"{datetime.fromtimestamp(moment, BERLIN):%Y-%m-%d %H:%M}"


def test_a_window_over_midnight_is_open_on_both_sides_of_it() -> None:
    found = windows("22:00-06:00")
    assert wall(found.open_until(at("2026-06-10 23:00"))) == "2026-06-11 06:00"
    assert wall(found.open_until(at("2026-06-11 05:59"))) == "2026-06-11 06:00"
    assert found.open_until(at("2026-06-11 06:00")) is None
    assert wall(found.next_opening(at("2026-06-11 06:00"))) == "2026-06-11 22:00"
    assert wall(found.next_opening(at("2026-06-11 23:00"))) == "2026-06-12 22:00"


def test_no_window_is_no_window() -> None:
    found = windows()
    assert not found.configured
    assert found.open_until(at("2026-06-10 23:00")) is None
    assert found.next_opening(at("2026-06-10 23:00")) is None


def test_windows_that_touch_or_overlap_are_one() -> None:
    found = windows("20:00-23:00", "22:30-01:00", "01:00-02:00")
    assert wall(found.open_until(at("2026-06-10 20:30"))) == "2026-06-11 02:00"
    assert wall(found.next_opening(at("2026-06-10 20:30"))) == "2026-06-11 20:00"


def test_windows_without_an_end_are_open_for_the_horizon() -> None:
    found, now = windows("00:00-12:00", "12:00-00:00"), at("2026-06-10 20:30")
    assert found.open_until(now) == now + HORIZON_S
    assert found.next_opening(now) is None


def test_a_holiday_counts_as_a_holiday_alone() -> None:
    christmas = ("2026-12-25",)  # a Friday
    nights, feasts = (windows("22:00-06:00", days=days, holidays=christmas) for days in (("fri",), ("holiday",)))
    assert nights.open_until(at("2026-12-25 23:00")) is None
    assert wall(feasts.open_until(at("2026-12-25 23:00"))) == "2026-12-26 06:00"
    assert feasts.open_until(at("2026-12-18 23:00")) is None
    assert wall(nights.next_opening(at("2026-12-20 00:00"))) == "2027-01-01 22:00"
    assert feasts.next_opening(at("2026-12-27 00:00")) is None


@pytest.mark.parametrize(
    ("span", "now", "until"),
    [
        # On 29 March the clock goes from 01:59 to 03:00, on 25 October from 02:59 back to 02:00.
        ("22:00-02:30", "2026-03-28 23:00", "2026-03-29 03:00"),  # ends when the clock jumps over its end
        ("02:30-04:00", "2026-03-29 03:00", "2026-03-29 04:00"),  # begins when the clock jumps over its start
        ("02:15-02:45", "2026-03-29 03:00", ""),  # and is not there if it lies in what is jumped over
        ("02:15-02:45", "2026-10-25 02:30", "2026-10-25 02:45"),
        ("22:00-02:30", "2026-10-25 01:00", "2026-10-25 02:30"),
    ],
)
def test_a_clock_put_forward_or_back(span: str, now: str, until: str) -> None:
    assert wall(windows(span).open_until(at(now))) == until


def test_an_hour_shown_twice_counts_the_first_time() -> None:
    found = windows("02:15-02:45")
    first, second = at("2026-10-25 02:30"), at("2026-10-25 02:30", fold=1)
    assert second - first == 3600
    assert found.open_until(first) == first + 900
    assert found.open_until(second) is None
    assert windows("02:45-02:15").open_until(at("2026-10-25 02:20", fold=1)) is not None


def test_a_night_lasts_from_noon_to_noon_and_a_year_is_the_calendars() -> None:
    found = windows("22:00-06:00")
    assert [found.night_of(at(f"2026-06-{text}")) for text in ("10 12:00", "11 03:00", "11 11:59", "11 12:00")] == [
        "2026-06-10",
        "2026-06-10",
        "2026-06-10",
        "2026-06-11",
    ]
    assert found.year_of(at("2026-12-31 23:59")) == 2026
    assert found.year_of(at("2027-01-01 00:00")) == 2027


def test_a_clock_that_jumps_is_right_at_the_next_question() -> None:
    found = windows("22:00-06:00")
    night, day = at("2026-06-10 23:00"), at("2026-06-10 12:00")
    for now in (night, day, night + 30 * 86400, day - 3000 * 86400, night):
        open_ = datetime.fromtimestamp(now, BERLIN).hour in {22, 23, 0, 1, 2, 3, 4, 5}
        assert (found.open_until(now) is not None) == open_


def by_hand(spans: list[tuple[str, str, frozenset[str]]], holidays: set[str], zone: ZoneInfo, day: date) -> list[bool]:
    """Say for each minute of three days whether a window is open, by walking through them with a clock in the hand.

    It begins two days earlier, so that what is open at its beginning is known.
    """
    first = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() - 3 * 86400
    walls = [datetime.fromtimestamp(first + 60 * k, zone).replace(tzinfo=None) for k in range(6 * 1440)]
    open_ = [False] * len(walls)
    highest, seen = datetime.min, []
    for moment in walls:  # what the clock has shown or jumped over up to each minute
        highest = max(highest, moment)
        seen.append(highest)
    for start, end, days in spans:
        for ahead in range(-3, 4):
            on = day + timedelta(days=ahead)
            kind = "holiday" if on.isoformat() in holidays else WEEKDAYS[on.weekday()]
            if kind not in days:
                continue
            opens = datetime.fromisoformat(f"{on} {start}")
            closes = datetime.fromisoformat(f"{on} {end}") + timedelta(days=0 if start < end else 1)
            for k, shown in enumerate(seen):
                open_[k] |= opens <= shown < closes
    return open_[2 * 1440 : 5 * 1440]


CLOCK = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 29, 30, 45])).map(lambda hm: f"{hm[0]:02}:{hm[1]:02}")
AROUND = list(range(1440 + 90, 1440 + 300, 10))
"""Minutes around the change of the clock, which is in the small hours of the second day."""
SPAN = st.tuples(CLOCK, CLOCK, st.frozensets(st.sampled_from(ALWAYS), min_size=1)).filter(lambda s: s[0] != s[1])


@settings(max_examples=60, deadline=None)
@given(
    minutes=st.lists(st.integers(0, 3 * 1440 - 1), min_size=5, max_size=5),
    place=st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days]),
    spans=st.lists(SPAN, min_size=1, max_size=3),
    holiday=st.integers(-2, 2),
)
@example(
    minutes=AROUND,
    place=("Australia/Lord_Howe", "2026-10-04"),
    spans=[("02:15", "02:29", frozenset(ALWAYS))],
    holiday=1,
)
@example(
    minutes=AROUND, place=("Europe/Berlin", "2026-10-25"), spans=[("02:45", "02:15", frozenset(ALWAYS))], holiday=1
)
def test_windows_are_those_of_somebody_with_a_clock_in_the_hand(
    minutes: list[int], place: tuple[str, str], spans: list[tuple[str, str, frozenset[str]]], holiday: int
) -> None:
    zone, day = ZoneInfo(place[0]), date.fromisoformat(place[1])
    holidays = {(day + timedelta(days=holiday)).isoformat()}
    made = tuple(TrainingWindow(start=start, end=end, days=tuple(sorted(days))) for start, end, days in spans)
    found = Windows(TrainingSettings(window=made, holidays=tuple(holidays)), zone)
    expected = by_hand(spans, holidays, zone, day)
    first = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() - 86400
    for k in {*minutes, *AROUND[::3]}:
        now = first + 60 * k
        until = found.open_until(now)
        assert (until is not None) == expected[k], datetime.fromtimestamp(now, zone)
        following = found.next_opening(now)
        closed = k if until is None else int((until - first) // 60)
        ahead = expected[closed:] if until is not None else expected[k:]
        if True in ahead and ahead[0] is False:
            assert following == first + 60 * (closed + ahead.index(True))
        if until is not None and closed < len(expected):
            assert all(expected[k:closed])
            assert not expected[closed]
