"""How slices lie: the same whatever their order and however the patient lies; everything odd is found and said."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slices import AXIAL, CORONAL, image, rotation, row, turned_instances

from clinic_ai.domain import FramePlane, Instance, PlaneGeometry
from clinic_ai.ingest.geometry import (
    NoVolume,
    Oddity,
    RegularVolume,
    StackGeometry,
    describe_series,
    describe_study,
    measure,
    regular_volume,
)
from clinic_ai.ingest.stacks import MAX_ORIENTATIONS, stacks_of

COUNTS = st.integers(3, 40)
SPACINGS = st.floats(0.3, 12.0)
LOCALIZER = ("ORIGINAL", "PRIMARY", "LOCALIZER")
SEEDS = st.randoms(use_true_random=False)
FEW = settings(max_examples=60, deadline=None)


def even(count: int, spacing: float, start: float = -300.0) -> list[float]:
    return [start + number * spacing for number in range(count)]


def only(instances: list[Instance]) -> StackGeometry:
    (stack,) = stacks_of(instances)
    return measure(stack)


def codes(found: StackGeometry) -> set[Oddity]:
    return {remark.code for remark in found.remarks}


def order(instances: list[Instance]) -> list[tuple[str, int]]:
    return [(plane.sha256, plane.frame) for stack in stacks_of(instances) for plane in stack.planes]


# ---------------------------------------------------------------- what must not matter


@FEW
@given(count=COUNTS, spacing=SPACINGS, random_=SEEDS)
def test_any_order_of_arrival_gives_the_same_stacks(count: int, spacing: float, random_: random.Random) -> None:
    instances = [
        *row(even(count, spacing)),
        *row([0.0, 0.0, 5.0], series="1.2.4"),
        image(90, (0.0, 0.0, 0.0), image_type=LOCALIZER),
        image(91, (0.0, 0.0, 0.0), image_orientation_patient=CORONAL),
        image(92, None),
    ]
    shuffled = random_.sample(instances, len(instances))

    assert order(shuffled) == order(instances)
    assert describe_study(shuffled) == describe_study(instances)


@FEW
@given(
    count=COUNTS,
    spacing=SPACINGS,
    axis=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)),
    degrees=st.floats(-180, 180),
    moved=st.tuples(*[st.floats(-2000, 2000)] * 3),
    spoilt=st.booleans(),
)
def test_however_the_patient_lies_the_spacing_is_the_same(
    count: int,
    spacing: float,
    axis: tuple[float, ...],
    degrees: float,
    moved: tuple[float, ...],
    spoilt: bool,
) -> None:
    places = even(count, spacing)
    if spoilt:
        del places[1 : 1 + count // 2]
    instances = row(places)

    straight, other = only(instances), only(turned_instances(instances, rotation(axis, degrees), moved))

    assert (other.regular, codes(other)) == (straight.regular, codes(straight))
    assert [plane.sha256 for plane in other.stack.planes] == [plane.sha256 for plane in straight.stack.planes]
    assert (straight.spacing is None) == (other.spacing is None)
    if straight.spacing and other.spacing:
        assert other.spacing.median == pytest.approx(straight.spacing.median, abs=1e-6)


@FEW
@given(count=COUNTS, spacing=SPACINGS, random_=SEEDS)
def test_a_voxel_lies_where_its_slice_says(count: int, spacing: float, random_: random.Random) -> None:
    matrix = rotation([random_.uniform(-1, 1), 0.5, 0.25], random_.uniform(0, 180))
    instances = turned_instances(row(even(count, spacing)), matrix, (1.0, 2.0, 3.0))
    (stack,) = stacks_of(random_.sample(instances, count))
    volume = regular_volume(stack)
    assert isinstance(volume, RegularVolume)
    at = {instance.sha256: instance.header.geometry for instance in instances}

    for number, (sha256, _) in enumerate(volume.slices):
        geometry = at[sha256]
        assert geometry is not None
        assert geometry.image_position_patient is not None
        voxel = [o + number * volume.spacing[0] * d for o, d in zip(volume.origin, volume.directions[0], strict=True)]
        assert voxel == pytest.approx(geometry.image_position_patient, abs=1e-4)
    assert volume.spacing == pytest.approx((spacing, 0.5, 0.5), abs=1e-6)


# ---------------------------------------------------------------- what must be found


@FEW
@given(count=st.integers(4, 40), spacing=SPACINGS, lost=st.integers(1, 5), data=st.data())
def test_a_gap_is_always_found(count: int, spacing: float, lost: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(1, count - 1))
    places = even(count, spacing)
    places[before:] = [place + lost * spacing for place in places[before:]]

    found = only(row(places))

    assert not found.regular
    assert [remark.code for remark in found.remarks] == [Oddity.GAP]
    assert f"after slice {before} (between images {before} and {before + 1})" in found.remarks[0].words


@FEW
@given(count=COUNTS, spacing=SPACINGS, data=st.data())
def test_a_slice_sent_twice_is_always_found(count: int, spacing: float, data: st.DataObject) -> None:
    twice = data.draw(st.integers(1, count))
    places = even(count, spacing)
    found = only([*row(places), image(count + 1, (-100.0, -50.0, places[twice - 1]))])

    assert codes(found) == {Oddity.DUPLICATE_POSITIONS}
    assert found.remarks[0].sentence == f"Slices {twice} and {twice + 1} lie in the same place."


@FEW
@given(count=COUNTS, spacing=st.floats(2, 12), degrees=st.floats(2, 30))
def test_a_tilted_gantry_is_always_found(count: int, spacing: float, degrees: float) -> None:
    found = only(row(even(count, spacing), shift=math.tan(math.radians(degrees)), gantry_detector_tilt=degrees))

    assert [remark.words for remark in found.remarks] == [f"tilted by {degrees:.1f} degrees"]


@FEW
@given(count=st.integers(4, 40), spacing=st.floats(1, 12), data=st.data())
def test_one_slice_out_of_its_place_is_always_found(count: int, spacing: float, data: st.DataObject) -> None:
    places = even(count, spacing)
    at = data.draw(st.integers(1, count - 2))
    places[at] += data.draw(st.sampled_from([-0.4, -0.25, 0.25, 0.4])) * spacing

    assert codes(only(row(places))) <= {Oddity.UNEVEN_SPACING, Oddity.GAP}
    assert not only(row(places)).regular


def test_half_of_the_steps_double_is_no_gap_but_uneven() -> None:
    found = only(row([0, 5, 10, 15, 20, 30, 40, 50, 60]))
    assert [remark.words for remark in found.remarks] == ["uneven spacing, 5.0 mm to 10.0 mm"]


def test_a_slow_drift_is_uneven_though_no_step_is() -> None:
    places = [number * 1.0 + (number**2) * 0.001 for number in range(40)]
    assert codes(only(row(places))) == {Oddity.UNEVEN_SPACING}


def test_positions_written_with_one_decimal_are_regular() -> None:
    assert only(row([round(number * 0.625, 1) for number in range(200)])).regular is False  # a sixth of a voxel
    assert only(row([round(number * 1.25, 1) for number in range(200)])).regular


def test_a_plugin_may_ask_for_more_or_less() -> None:
    (stack,) = stacks_of(row([0.0, 1.0, 2.05, 3.0]))
    assert isinstance(regular_volume(stack), RegularVolume)
    refused = regular_volume(stack, tolerance_mm=0.01)
    assert isinstance(refused, NoVolume)
    assert (refused.code, refused.sentence) == (
        "uneven_spacing",
        "This is no regular volume: uneven spacing, 0.95 mm to 1.05 mm.",
    )
    (gap,) = stacks_of(row([0.0, 1.0, 2.0, 4.0]))
    assert isinstance(regular_volume(gap, tolerance_mm=100.0), NoVolume)


def test_slices_moved_sideways_are_no_tilt() -> None:
    instances = [image(n, (5.0 * (n == 3), 0.0, float(n))) for n in range(1, 8)]
    assert codes(only(instances)) == {Oddity.SHIFTED}


def test_a_nominal_tilt_that_positions_do_not_show_is_said_and_harmless() -> None:
    found = only(row([0, 1, 2], gantry_detector_tilt=-12.0))
    assert found.regular
    assert found.remarks[0].words == "the header names a gantry tilt of -12.0 degrees, the positions show none"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rows": 128}, Oddity.DIFFERENT_SIZES),
        ({"pixel_spacing": (0.5, 0.6)}, Oddity.DIFFERENT_PIXEL_SPACING),
        ({"pixel_spacing": None}, Oddity.NO_PIXEL_SPACING),
        ({"frame_of_reference_uid": "1.2.10"}, Oddity.FRAMES_OF_REFERENCE),
    ],
)
def test_one_image_unlike_the_others_is_found(changes: dict[str, object], code: Oddity) -> None:
    found = only([*row([0, 1, 2]), image(4, (-100.0, -50.0, 3.0), **changes)])
    assert codes(found) == {code}
    assert isinstance(regular_volume(found.stack), NoVolume)


def test_several_phases_of_one_place_are_told_apart_from_a_slice_sent_twice() -> None:
    instances = [image(n, (0.0, 0.0, float(n % 5))) for n in range(15)]
    (remark,) = only(instances).remarks
    assert (remark.code, remark.words[:30]) == (Oddity.REPEATED_POSITIONS, "3 images in each of 5 places (")


def test_many_gaps_and_duplicates_are_counted_not_listed() -> None:
    gaps = only(row([number + 10 * (number // 5) for number in range(50)]))
    assert [remark.words for remark in gaps.remarks][-1] == "4 more gaps"
    twice = only(row([number for number in range(20) for _ in range(1 + number % 2)]))
    assert [remark.words for remark in twice.remarks][-1] == "5 more places hold several slices"


# ---------------------------------------------------------------- what belongs together


def test_a_scout_and_two_orientations_are_three_stacks() -> None:
    found = describe_series(
        [
            image(
                1, (0.0, 0.0, 0.0), image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), image_orientation_patient=CORONAL
            ),
            *[image(n, (0.0, 0.0, float(n))) for n in range(2, 6)],
            *[image(n, (0.0, float(n), 0.0), image_orientation_patient=CORONAL) for n in range(6, 9)],
        ]
    )
    assert [(s.stack.scout, s.stack.images, s.regular) for s in found.stacks] == [
        (True, 1, False),
        (False, 4, True),
        (False, 3, True),
    ]
    assert {remark.code for remark in found.remarks} == {Oddity.SCOUT, Oddity.MIXED_ORIENTATION, Oddity.SEVERAL_STACKS}
    assert not found.regular
    assert describe_series(row([0, 1, 2])).regular


def test_a_volume_that_may_lack_a_slice_is_refused() -> None:
    placed = measure(next(stack for stack in stacks_of([*row([0, 1, 2]), image(9, None)]) if stack.placed))
    assert codes(placed) == {Oddity.SOME_UNPLACED}
    assert placed.remarks[0].words == "1 more image of the series lies at an unknown place"


def test_a_headers_of_an_older_version_are_not_known_to_lie_anywhere() -> None:
    (found,) = describe_series([image(1, None, geometry=None)]).stacks
    assert codes(found) == {Oddity.NO_POSITIONS}


def test_objects_without_pixels_are_no_images() -> None:
    assert stacks_of([image(1, None, frames=0)]) == ()


@pytest.mark.parametrize("cosines", [(0.0,) * 6, (1.0, 0, 0, 1.0, 0, 0), (1e-200,) * 6])
def test_cosines_that_span_no_plane_are_no_orientation(cosines: tuple[float, ...]) -> None:
    (found,) = describe_series([image(1, (0.0, 0.0, 0.0), image_orientation_patient=cosines)]).stacks
    assert not found.stack.placed


def test_a_thousand_orientations_make_a_limited_number_of_stacks() -> None:
    instances = []
    for number in range(1000):
        matrix = rotation((0.0, 0.0, 1.0), number * 0.18)
        instances += turned_instances(
            [image(number, (0.0, 0.0, 0.0), image_orientation_patient=CORONAL)], matrix, (0, 0, 0)
        )
    stacks = stacks_of(instances)
    assert len(stacks) == MAX_ORIENTATIONS + 1
    rest = max(stacks, key=lambda stack: stack.images)
    assert Oddity.MIXED_ORIENTATION in codes(measure(rest))


# ---------------------------------------------------------------- objects of many frames


def enhanced(heights: list[float | None], **changes: object) -> Instance:
    frames = tuple(
        FramePlane(image_position_patient=None if z is None else (0.0, 0.0, z), image_orientation_patient=AXIAL)
        for z in heights
    )
    geometry = PlaneGeometry(pixel_spacing=(0.5, 0.5), frames=frames, frames_placed="each")
    return image(1, None, geometry=geometry, frames=len(heights), **changes)


def test_frames_are_sorted_as_slices_are() -> None:
    instance = enhanced([4.0, 0.0, 2.0])
    volume = regular_volume(stacks_of([instance])[0])
    assert isinstance(volume, RegularVolume)
    assert volume.slices == tuple((instance.sha256, frame) for frame in (1, 2, 0))
    assert volume.spacing[0] == 2.0


def test_a_gap_between_frames_names_no_image_numbers() -> None:
    assert only([enhanced([0.0, 1.0, 2.0, 5.0])]).remarks[0].words == "gap of 3.0 mm after slice 3"


def test_frames_nobody_placed_are_counted_and_not_unrolled() -> None:
    (stack,) = stacks_of([image(1, None, frames=400_000_000)])
    assert (len(stack.planes), stack.images, stack.placed) == (1, 400_000_000, False)
    assert measure(stack).remarks[0].words == "it is not known where each frame lies"


def test_one_frame_without_a_place_spoils_the_volume() -> None:
    stacks = stacks_of([enhanced([0.0, 1.0, None])])
    assert sorted((stack.placed, stack.images) for stack in stacks) == [(False, 1), (True, 2)]
    assert all(isinstance(regular_volume(stack), NoVolume) for stack in stacks)
