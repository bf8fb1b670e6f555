"""Where a study's priority comes from, in whatever order its parts come."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import FileKind, InstanceHeader, Urgency
from clinic_ai.ingest.urgency import TERMS, priority_of, raised_by, sentence, urgency_of


def header(requested: str = "", study: str = "") -> InstanceHeader:
    return InstanceHeader(kind=FileKind.DICOM, requested_procedure_priority=requested, study_priority_id=study)


@pytest.mark.parametrize(
    ("headers", "source", "priority", "words"),
    [
        ([header("STAT")], 0, 50, "+50 as its headers say STAT"),
        (
            [header(), header("HIGH"), header("ROUTINE")],
            10,
            40,
            "+30 as its headers say HIGH, +10 for where it comes from",
        ),
        ([header("ROUTINE", "HIGH")], 0, 30, "+30 as its headers say HIGH"),
        ([header(study="LOW")], 0, -20, "-20 as its headers say LOW"),
        ([header("MEDIUM")], -5, -5, "+0 as its headers say MEDIUM, -5 for where it comes from"),
        ([header("STAT")], 100, 100, "+50 as its headers say STAT, +100 for where it comes from"),
        ([header("LOW")], -100, -100, "-20 as its headers say LOW, -100 for where it comes from"),
        ([header("VERY URGENT INDEED")], 0, 0, ""),
        ([header()], 0, 0, ""),
    ],
)
def test_headers_and_source_make_the_priority(
    headers: list[InstanceHeader], source: int, priority: int, words: str
) -> None:
    urgency = urgency_of(headers, source)
    assert (priority_of(urgency), sentence(urgency)) == (priority, words)


headers = st.lists(
    st.builds(header, st.sampled_from(["", "X", *TERMS]), st.sampled_from(["", "HIGH", "LOW"])), max_size=9
)


@given(headers, st.integers(-100, 100), st.data())
def test_batches_and_their_order_do_not_matter(drawn: list[InstanceHeader], source: int, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(drawn))
    cut = data.draw(st.integers(0, len(shuffled)))
    parts = [urgency_of(shuffled[:cut], source), urgency_of(shuffled[cut:], source)]
    assert reduce(raised_by, parts) == urgency_of(drawn, source)


@given(headers, headers)
def test_what_comes_later_may_only_raise_it(first: list[InstanceHeader], later: list[InstanceHeader]) -> None:
    before = urgency_of(first, 0)
    after = raised_by(before, urgency_of(later, 0))
    if before.header is not None:
        assert priority_of(after) >= priority_of(before)


def test_what_a_person_ordered_stands_above_the_rest_and_stays() -> None:
    ordered = Urgency(source=10, header=30, term="HIGH", ordered=-40, ordered_by="anna")
    assert (priority_of(ordered), sentence(ordered)) == (-40, "set by anna")
    later = raised_by(ordered, urgency_of([header("STAT")], 10))
    assert (priority_of(later), sentence(later)) == (-40, "set by anna")
    assert later.header == 50
