"""Facts of a study."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import FileKind, InstanceHeader
from clinic_ai.ingest.facts import MAX_VALUES, facts_of

headers = st.lists(
    st.builds(
        InstanceHeader,
        kind=st.just(FileKind.DICOM),
        modality=st.sampled_from(["", "CT", "MR"]),
        body_part=st.sampled_from(["", "CHEST", "HEAD"]),
        study_description=st.sampled_from(["", "a", "b"]),
        frames=st.integers(0, 5),
    )
)


@given(headers, st.randoms())
def test_facts_do_not_depend_on_the_order_of_arrival(given: list[InstanceHeader], random: object) -> None:
    shuffled = list(given)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    facts = facts_of(given, "inbox")
    assert facts == facts_of(shuffled, "inbox")
    assert facts.slices == sum(header.frames for header in given)
    assert "" not in facts.modalities


def test_a_thousand_descriptions_are_not_all_kept() -> None:
    every = [InstanceHeader(kind=FileKind.DICOM, series_description=f"d{n}") for n in range(1000)]
    assert len(facts_of(every, "x").series_descriptions) == MAX_VALUES
