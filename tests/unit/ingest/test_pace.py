"""The quiet period that is learned: within its bounds, unmoved by one odd pause, moved by what happens again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.ingest.pace import WINDOW, Pace, Seen, announcements_hold, learned, quiet_period

LEAST, MOST = 5.0, 60.0


def period(*pauses: float) -> float:
    return quiet_period(Pace(studies=tuple(Seen(pause_s=p) for p in pauses)), least_s=LEAST, most_s=MOST)


pauses = st.lists(st.floats(0, 86400), max_size=WINDOW)


@given(pauses, st.floats(0.1, 100), st.floats(0.1, 100))
def test_it_is_never_below_the_least_nor_above_the_most(drawn: list[float], one: float, other: float) -> None:
    least, most = sorted((one, other))
    pace = Pace(studies=tuple(Seen(pause_s=pause) for pause in drawn))
    assert least <= quiet_period(pace, least_s=least, most_s=most) <= most


@given(pauses, st.randoms(use_true_random=False))
def test_the_order_of_the_studies_does_not_matter(drawn: list[float], shuffle: random.Random) -> None:
    other = list(drawn)
    shuffle.shuffle(other)
    assert period(*drawn) == period(*other)


@given(st.lists(st.floats(0, LEAST / 1.5), max_size=WINDOW))
def test_studies_that_come_in_one_go_leave_it_at_the_least(drawn: list[float]) -> None:
    assert period(*drawn) == LEAST


@given(st.lists(st.floats(0, 3), min_size=3, max_size=WINDOW - 1), st.floats(14.5, 86400))
def test_one_long_pause_among_short_ones_moves_nothing(drawn: list[float], odd: float) -> None:
    assert period(*drawn, odd) == LEAST


def test_a_pause_that_is_cheap_to_cover_is_covered_at_once_and_a_dear_one_when_it_comes_again() -> None:
    assert period(12.0) == 18.0
    assert period(50.0) == LEAST
    assert period(*[50.0] * 4) == LEAST
    assert period(*[50.0] * 5) == MOST
    assert period(*[1000.0] * 50) == LEAST, "no permitted period would have waited for these"


def test_what_does_not_happen_again_is_forgotten() -> None:
    pace = learned(Pace(), Seen(pause_s=12.0, late=True))
    for _ in range(50):
        pace = learned(pace, Seen(pause_s=0.5))
    assert quiet_period(pace, least_s=LEAST, most_s=MOST) == LEAST
    for _ in range(WINDOW):
        pace = learned(pace, Seen(pause_s=0.5))
    assert (len(pace.studies), pace.late) == (WINDOW, 0)


def test_an_announcement_is_believed_until_it_was_wrong_again_and_again() -> None:
    right, wrong = Seen(pause_s=0, announced=True), Seen(pause_s=0, broken=True)
    assert announcements_hold(Pace())
    assert announcements_hold(Pace(studies=(wrong,)))
    assert not announcements_hold(Pace(studies=(wrong, wrong)))
    assert announcements_hold(Pace(studies=(*[right] * 20, wrong, wrong)))


def arrive(pace: Pace, gaps: list[float], quiet_s: float) -> Pace:
    """Let a study arrive with these gaps, closed whenever nothing came for ``quiet_s``; return what is learned."""
    longest, late = 0.0, False
    for gap in gaps:
        if gap >= quiet_s:
            pace = learned(pace, Seen(pause_s=longest, late=late))
            longest, late = (gap, True) if gap <= MOST else (0.0, False)
        else:
            longest = max(longest, gap)
    return learned(pace, Seen(pause_s=longest, late=late))


def early_closings(rng: random.Random, gaps: list[float], *, studies: int, adaptive: bool) -> tuple[int, float]:
    """Return how many of so many simulated studies were closed early, and the mean quiet period in seconds."""
    pace, early, waited = Pace(), 0, 0.0
    for _ in range(studies):
        quiet = quiet_period(pace, least_s=LEAST, most_s=MOST) if adaptive else LEAST
        drawn = [rng.choice(gaps) * rng.uniform(0.8, 1.2) for _ in range(rng.randint(3, 30))]
        early += any(gap >= quiet for gap in drawn)
        waited += quiet
        pace = arrive(pace, drawn, quiet)
    return early, waited / studies


def test_a_slow_sender_is_waited_for_and_a_fast_one_is_not() -> None:
    # An ultrasound machine that sends each picture as it is taken, and a scanner that pushes hundreds of slices.
    slow, fast = [1.0, 3.0, 8.0, 12.0], [0.01, 0.02, 0.5]
    fixed, _ = early_closings(random.Random(1), slow, studies=300, adaptive=False)
    early, waited = early_closings(random.Random(1), slow, studies=300, adaptive=True)
    assert fixed > 290
    assert early < 10
    assert waited < 25
    assert early_closings(random.Random(1), fast, studies=300, adaptive=True) == (0, LEAST)


def test_a_sender_that_stalls_now_and_then_does_not_slow_all_its_studies() -> None:
    rng = random.Random(2)
    early, waited = early_closings(rng, [0.1] * 5000 + [50.0], studies=500, adaptive=True)
    assert early < 10
    assert waited < 1.2 * LEAST
