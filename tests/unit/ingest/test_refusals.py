"""What is written down of refusals: no count is lost, and nobody hides another."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.ingest.refusals import SAY_AGAIN_S, Refusals
from clinic_ai.tasks import Caller, Refusal

REFUSAL = st.builds(
    lambda address, peer, reason, count: Refusal(
        caller=Caller(ae_title="X", address=address, peer=peer), reason=reason, count=count
    ),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.sampled_from(["", "ct room", "mr room"]),
    st.sampled_from(["too_many", "no_room"]),
    st.integers(1, 9),
)


def counted(refusals: list[Refusal]) -> Counter[tuple[Caller, str]]:
    counts: Counter[tuple[Caller, str]] = Counter()
    for refusal in refusals:
        counts[refusal.caller, refusal.reason] += refusal.count
    return counts


@given(st.lists(st.tuples(st.floats(0, SAY_AGAIN_S), st.lists(REFUSAL, max_size=4)), max_size=30))
def test_each_is_counted_and_none_is_said_twice_a_minute(reports: list[tuple[float, list[Refusal]]]) -> None:
    refusals, now = Refusals(), 0.0
    said: list[tuple[float, Refusal]] = []
    for pause, refused in [*reports, (SAY_AGAIN_S, []), (SAY_AGAIN_S, [])]:
        now += pause
        said += [(now, one) for one in refusals.worth_saying(refused, now)]
    assert counted([one for _, one in said]) == counted([one for _, refused in reports for one in refused])
    last: dict[tuple[Caller, str], float] = {}
    for at, one in said:
        kind = (one.caller, one.reason)
        assert kind not in last or at - last[kind] >= SAY_AGAIN_S - 1e-6
        last[kind] = at


def test_a_crowd_of_callers_does_not_grow_without_end_and_none_is_left_uncounted() -> None:
    refusals = Refusals()
    crowd = [Refusal(caller=Caller(ae_title="X", address=f"{n}"), reason="too_many", count=1) for n in range(5000)]
    said = [one for refused in crowd for one in refusals.worth_saying([refused, refused], 0.0)]
    said += refusals.worth_saying([], SAY_AGAIN_S)
    assert counted(said) == counted(crowd * 2)
    assert len(refusals._said) <= 1000
