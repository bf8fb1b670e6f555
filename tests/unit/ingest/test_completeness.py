"""What is missing of a study, by announced numbers and by holes, and what only looks as if it were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slices import image, row

from clinic_ai.domain import Instance
from clinic_ai.ingest.completeness import Tally, assess, holes_in


def numbered(*numbers: int | None, series: str = "1.2.2", **changes: object) -> list[Instance]:
    """Return images of one series with these instance numbers, lying nowhere; the same number may come again."""
    return [
        image(n, None, series=series, **{"series_number": 2, "instance_number": number, **changes})
        for n, number in enumerate(numbers)
    ]


# ------------------------------------------------------------ holes


@pytest.mark.parametrize(
    ("numbers", "holes"),
    [
        (range(1, 13), []),
        (range(12), []),  # from 0
        (range(101, 113), []),
        (range(1, 40, 2), []),  # odd ones only: every other image went elsewhere
        ([1, 2, 4], [(3, 3)]),
        ([*range(1, 13), *range(16, 21)], [(13, 15)]),
        ([1, 3, 5, 9], [(7, 7)]),
        ([1, 2, 5, 6, 7, 9], [(3, 4), (8, 8)]),
        ([5, 80, 311], None),  # key images keep the numbers they had elsewhere
        ([7], None),
        ([-3, -2, 0], [(-1, -1)]),
        ([1, 2, 2**53 - 1], None),
    ],
)
def test_holes_between_instance_numbers(numbers: list[int], holes: list[tuple[int, int]] | None) -> None:
    assert holes_in(set(numbers)) == holes


@given(st.sets(st.integers(-(2**53), 2**53), min_size=1, max_size=50))
def test_holes_are_disjoint_from_what_is_there_and_no_more_than_it(numbers: set[int]) -> None:
    holes = holes_in(numbers)
    if holes is None:
        return
    steps = [high - low for low, high in zip(sorted(numbers), sorted(numbers)[1:], strict=False)]
    step = min(steps)
    missing = [number for first, last in holes for number in range(first, last + 1, step)][:1000]
    assert not numbers & set(missing)
    assert all(min(numbers) < number < max(numbers) for number in missing)


@given(st.integers(-50, 50), st.integers(3, 60), st.integers(1, 7), st.data())
def test_every_number_taken_out_of_a_row_is_found(first: int, count: int, step: int, data: st.DataObject) -> None:
    whole = [first + step * n for n in range(count)]
    taken = data.draw(st.sampled_from(whole[1:-1]))
    holes = holes_in(set(whole) - {taken})
    if count > 3:  # of three, the two that are left count by a step of their own
        assert holes == [(taken, taken)]


def test_a_hole_is_named_with_its_series() -> None:
    found = assess(numbered(*range(1, 13), *range(16, 21)))
    assert found.missing == ("instance numbers 13–15 of series 2 are missing",)
    assert found.words == "17 instances; instance numbers 13–15 of series 2 are missing"
    assert assess(numbered(1, 2, 4)).missing == ("instance number 3 of series 2 is missing",)
    assert assess(numbered(1, 2, 4, series_number=None)).missing == ("instance number 3 of a series is missing",)


def test_many_holes_are_not_all_told() -> None:
    found = assess(numbered(*(n for n in range(1, 60) if n % 4)))
    assert found.missing == ("instance numbers 4, 8, 12, 11 more gaps of series 2 are missing",)
    series = [one for n in range(9) for one in numbered(1, 2, 4, series=f"1.2.{n}", series_number=n)]
    assert assess(series).words.endswith("; 6 more of that kind")
    assert len(assess(series).missing) == 9


def test_several_acquisitions_may_share_their_numbers() -> None:
    shared = numbered(1, 2, 3, 4) + numbered(1, 2, 3, 4, series="1.2.2")
    assert assess(shared).contiguous == "numbered"
    # 3 of one acquisition is there as 3 of the other: no hole is seen, and none is made up.
    assert assess(numbered(1, 2, 4, 1, 2, 3, 4)).missing == ()


def test_a_scout_numbered_among_the_slices_makes_no_hole() -> None:
    scout = image(5, None, series="1.2.2", series_number=2, instance_number=5, image_type=("ORIGINAL", "LOCALIZER"))
    slices = numbered(1, 2, 3, 4, 6, 7, 8)
    assert assess([*slices, scout]).missing == ()


def test_objects_of_many_frames_are_counted_as_one() -> None:
    found = assess(numbered(1, 2, 3, frames=30))
    assert (found.words, found.missing) == ("3 instances, numbered without gaps", ())


def test_without_numbers_the_places_of_slices_tell() -> None:
    without = {"instance_number": None}
    whole = assess(row([0.0, 2.0, 4.0, 6.0], **without))
    assert whole.words == "4 instances, placed without gaps"
    (missing,) = assess(row([0.0, 2.0, 4.0, 8.0, 10.0], **without)).missing
    assert missing.startswith("slices of series 1 are missing: gap of 4.0 mm")


def test_blocks_of_slices_that_are_numbered_through_are_no_hole() -> None:
    assert assess(row([0.0, 2.0, 4.0, 40.0, 42.0, 44.0])).missing == ()


def test_nothing_is_claimed_of_what_cannot_be_counted() -> None:
    assert assess(numbered(5, 80, 311)).words == "3 instances"
    assert assess(numbered(None, None, 3)).words == "3 instances"
    assert assess(numbered(1, 2, 3) + numbered(None, None, series="1.2.3")).words == "5 instances"
    assert assess(numbered(1)).words == "1 instance"
    assert assess([]).words == "0 instances"


# ------------------------------------------------------------ announced numbers


def tally(instances: list[Instance]) -> Tally:
    found = Tally()
    for instance in instances:
        found.add(instance.header)
    return found


def test_a_study_is_complete_with_as_many_instances_as_announced() -> None:
    whole = numbered(1, 2, 3, number_of_study_related_instances=3)
    assert tally(whole).complete
    assert tally(whole).words == "all 3 instances that its headers announce are there"
    assert not tally(whole[:2]).complete
    assert assess(whole[:2]).missing == ("its headers announce 3 instances",)
    more = [*whole, *numbered(4)]
    assert not tally(more).complete, "a number that is exceeded is wrong"
    assert assess(more).missing == ()


def test_of_different_announcements_the_largest_counts() -> None:
    mixed = numbered(1, 2, number_of_study_related_instances=2) + numbered(3, number_of_study_related_instances=3)
    assert tally(mixed).complete
    assert not tally(mixed[:2] + numbered(9, number_of_study_related_instances=8)).complete


def test_a_study_is_complete_with_all_its_series_each_whole() -> None:
    two = {"number_of_study_related_series": 2}
    one = numbered(1, 2, 3, series="1.2.1", series_number=1, number_of_series_related_instances=3, **two)
    other = numbered(1, 2, series="1.2.2", images_in_acquisition=2, acquisition_number=1, **two)
    assert tally(one + other).complete
    assert tally(one + other).words.startswith("all 2 series that its headers announce are there, each whole")
    assert not tally(one).complete
    assert assess(one).missing == ("1 of 2 announced series are there",)
    assert assess([*one, other[0]]).missing == ("series 2 has 1 of 2 announced instances",)
    silent = numbered(1, 2, series="1.2.2", **two)
    assert not tally(one + silent).complete, "nothing says how much belongs to the second series"


def test_every_acquisition_of_a_series_must_be_whole() -> None:
    said = {"number_of_study_related_series": 1, "images_in_acquisition": 2}
    first = numbered(1, 2, acquisition_number=1, **said)
    second = numbered(3, 4, acquisition_number=2, **said)
    assert tally(first + second).complete
    assert not tally([*first, second[0]]).complete
    assert not tally(first + numbered(9, acquisition_number=None)).complete, "of one nobody knows how many there are"


instances = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(1, 9) | st.none(),
        st.integers(1, 9) | st.none(),
        st.integers(1, 4) | st.none(),
        st.integers(1, 2) | st.none(),
        st.integers(1, 9) | st.none(),
    ),
    min_size=1,
    max_size=15,
)


@given(instances, st.randoms(use_true_random=False))
def test_what_is_found_does_not_depend_on_the_order(drawn: list[tuple[int | None, ...]], random: object) -> None:
    every = [
        image(
            n,
            None,
            series=f"1.2.{series}",
            series_number=series,
            instance_number=number,
            number_of_study_related_instances=announced,
            number_of_study_related_series=series_announced,
            acquisition_number=acquisition,
            images_in_acquisition=in_acquisition,
        )
        for n, (series, number, announced, series_announced, acquisition, in_acquisition) in enumerate(drawn)
    ]
    shuffled = list(every)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = assess(every), assess(shuffled)
    assert (one.missing, one.words, one.tally.complete) == (other.missing, other.words, other.tally.complete)
    if one.tally.complete:
        assert one.tally.words == other.tally.words
        assert not any("announce" in words for words in one.missing)
