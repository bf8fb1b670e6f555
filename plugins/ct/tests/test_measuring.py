"""What is measured on a mask, against shapes whose measures are known."""

from __future__ import annotations

import math

import chests
import numpy as np
import pytest

from clinic_ai_ct.measuring import masks_of, measure
from clinic_ai_ct.organs import Organs, frame
from clinic_ai_ct.volume import Grid


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return chests.chest()


def test_a_ball_has_its_diameter_volume_and_place(hu: np.ndarray) -> None:
    lesion = measure("lung_nodule", chests.ball(80, -50, 190, 16), chests.GRID, hu)
    (piece,) = lesion.pieces
    assert piece.axial_mm == pytest.approx(32, abs=4)
    assert piece.axial_short_mm == pytest.approx(32, abs=4)
    assert piece.diameter_mm == pytest.approx(32, abs=6)
    assert piece.volume_mm3 == pytest.approx(4 / 3 * math.pi * 16**3, rel=0.1)
    assert piece.centroid == pytest.approx((80, -50, 190), abs=1.5)
    assert (piece.side, piece.place, piece.key_slice) == ("left", "left upper anterior region", 38)
    assert lesion.side == "left"


def test_a_slanting_stick_is_as_long_as_it_is_and_not_as_the_box_around_it() -> None:
    grid, mask = Grid((8, 40, 40), (2.0, 1.0, 1.0)), np.zeros((8, 40, 40), dtype=bool)
    mask[3, range(5, 35), range(5, 35)] = True
    (piece,) = measure("consolidation", mask, grid, np.zeros(grid.shape, np.int16)).pieces
    assert piece.axial_mm == pytest.approx(math.hypot(29, 29) + 1, abs=0.1)
    assert piece.axial_short_mm < 3
    upright = np.zeros_like(mask)
    upright[1:7, 20, 20] = True
    (piece,) = measure("consolidation", upright, grid, np.zeros(grid.shape, np.int16)).pieces
    assert piece.diameter_mm == pytest.approx(12)
    assert piece.axial_mm == pytest.approx(1)


def test_pieces_that_touch_at_a_corner_are_one_and_specks_are_left_out() -> None:
    grid, mask = Grid((6, 6, 6), (1.0, 1.0, 1.0)), np.zeros((6, 6, 6), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[4, 4, 4] = True
    hu = np.zeros(grid.shape, np.int16)
    assert [p.volume_mm3 for p in measure("lung_nodule", mask, grid, hu).pieces] == [2.0, 1.0]
    assert len(measure("lung_nodule", mask, grid, hu, least_mm3=1.5).pieces) == 1
    assert measure("lung_nodule", mask, grid, hu, least_mm3=5).pieces == ()


def test_a_lobe_is_named_where_lobes_are_labelled(hu: np.ndarray) -> None:
    organs = chests.lobes()

    def words(*centre: float, radius: float = 14) -> str:
        return measure("lung_nodule", chests.ball(*centre, radius), chests.GRID, hu, organs).pieces[0].place

    assert words(-80, 0, 190) == "right upper lobe"
    assert words(-80, -40, 90) == "right middle lobe"
    assert words(-80, 40, 90) == "right lower lobe"
    assert words(80, 0, 90) == "left lower lobe"
    assert set(words(80, 0, 142, radius=20).split(" and ")) == {"left lower lobe", "left upper lobe"}


def test_a_consolidation_that_the_organ_mask_leaves_out_is_given_to_the_lobe_beside_it(hu: np.ndarray) -> None:
    organs, mask = chests.lobes(), chests.ball(-80, 40, 90, 13)
    holed = Organs(np.where(mask, 0, organs.labels).astype(np.uint8), organs.names)
    (piece,) = measure("consolidation", mask, chests.GRID, hu, holed).pieces
    assert (piece.place, piece.side) == ("right lower lobe", "right")
    right = chests.lungs()[1].sum() * chests.GRID.voxel_mm3
    assert piece.lung_share == pytest.approx(piece.volume_mm3 / right, rel=0.1)


def test_sides_hold_where_one_lung_holds_no_air(hu: np.ndarray) -> None:
    white = hu.copy()
    left, right = chests.lungs()
    white[right] = 20
    for x in (25, 45, 60):
        assert measure("lung_nodule", chests.ball(x, 0, 122, 9), chests.GRID, white).side == "left"
    _, y, z = chests.coordinates()
    assert measure("pleural_effusion", left & (y > 30) & (z < 120), chests.GRID, white).side == "left"
    assert measure("consolidation", right, chests.GRID, white).side == "right"


def test_where_the_body_is_cut_off_the_lungs_tell_its_middle_and_one_lung_alone_tells_none(hu: np.ndarray) -> None:
    shown = slice(10, 80)  # columns from x = -140 to 136: no skin at the sides
    grid = Grid((*chests.SHAPE[:2], 70), chests.GRID.spacing, (-140.0, -144.0, 0.0))
    assert measure("lung_nodule", chests.ball(-40, 0, 122, 9)[..., shown], grid, hu[..., shown]).side == "right"
    one = slice(44, 80)  # from x = -4: the left lung alone, as in a reconstruction of one side
    grid = Grid((*chests.SHAPE[:2], 36), chests.GRID.spacing, (-4.0, -144.0, 0.0))
    where = frame(hu[..., one], grid)
    assert where is not None
    assert where.middle_x is None
    lesion = measure("pleural_effusion", chests.ball(60, 40, 100, 30)[..., one], grid, hu[..., one])
    assert (lesion.side, [piece.place for piece in lesion.pieces]) == ("", [""])


def test_no_lesion_fills_more_than_its_lung(hu: np.ndarray) -> None:
    _, _, z = chests.coordinates()
    right = chests.lungs()[1]
    filled = right & (z < 135)
    organs = chests.lobes()
    holed = Organs(np.where(filled, 0, organs.labels).astype(np.uint8), organs.names)
    (piece,) = measure("consolidation", filled, chests.GRID, hu, holed).pieces
    assert piece.lung_share == pytest.approx(filled.sum() / right.sum(), rel=0.05)
    halves = filled & ((z < 70) | (z > 80))
    pieces = measure("consolidation", halves, chests.GRID, hu, holed).pieces
    assert sum(piece.lung_share for piece in pieces) < 1


def test_nothing_is_guessed_where_no_lungs_are_seen() -> None:
    water = np.zeros(chests.SHAPE, np.int16)
    assert frame(water, chests.GRID) is None
    lesion = measure("lung_nodule", chests.ball(80, -50, 190, 16), chests.GRID, water)
    assert (lesion.pieces[0].side, lesion.pieces[0].place, lesion.side) == ("", "", "")


def test_a_nodule_at_the_middle_has_no_side(hu: np.ndarray) -> None:
    assert measure("lung_nodule", chests.ball(3, 0, 120, 9), chests.GRID, hu).side == ""


def test_height_is_not_told_where_the_lungs_are_cut_off(hu: np.ndarray) -> None:
    part = slice(14, 30)
    grid = Grid((16, *chests.SHAPE[1:]), chests.GRID.spacing, (-180.0, -144.0, 70.0))
    lesion = measure("lung_nodule", chests.ball(80, -50, 120, 12)[part], grid, hu[part])
    assert lesion.pieces[0].place == "left anterior region"


def test_fluid_on_both_sides_is_parted_and_has_its_depth(hu: np.ndarray) -> None:
    x, y, z = chests.coordinates()
    left, right = chests.lungs()
    joined = (y > 60) & (y < 80) & (np.abs(z - 100) < 40) & (np.abs(x) < 60)
    fluid = (y > 40) & (left | right) & (z < 120) | joined
    lesion = measure("pleural_effusion", fluid, chests.GRID, hu)
    assert {p.side for p in lesion.pieces} == {"left", "right"}
    assert lesion.side == "bilateral"
    assert all(p.depth_mm is not None and 32 <= p.depth_mm <= 44 for p in lesion.pieces)


@pytest.mark.parametrize("reach", [12, 24])
def test_an_effusion_that_bulges_over_the_middle_is_one(hu: np.ndarray, reach: int) -> None:
    x, y, z = chests.coordinates()
    left, _ = chests.lungs()
    behind = (y > 60) & (y < 80) & (np.abs(z - 100) < 12) & (x > -reach) & (x < 100)
    lesion = measure("pleural_effusion", (y > 20) & left & (z < 160) | behind, chests.GRID, hu)
    assert [p.side for p in lesion.pieces] == ["left"]
    assert lesion.side == "left"


def test_a_small_effusion_that_touches_a_large_one_behind_the_spine_stays_one_of_its_side(hu: np.ndarray) -> None:
    x, y, z = chests.coordinates()
    left, right = chests.lungs()
    small = (y > 50) & (z < 60) & (x < 0) & (right | (np.abs(x) < 60) & (y < 80))
    lesion = measure(
        "pleural_effusion", (y > 0) & (left | (x > 0) & (x < 60) & (y < 80)) & (z < 160) | small, chests.GRID, hu
    )
    assert {p.side for p in lesion.pieces} == {"left", "right"}


def test_a_pericardial_layer_is_as_thick_as_it_was_drawn() -> None:
    grid = Grid((60, 60, 60), (2.0, 2.0, 2.0))
    z, y, x = (2.0 * i for i in np.indices(grid.shape))
    far = np.sqrt((x - 60) ** 2 + (y - 60) ** 2 + (z - 60) ** 2)
    lesion = measure("pericardial_effusion", (far > 38) & (far < 50), grid, np.zeros(grid.shape, np.int16))
    (piece,) = lesion.pieces
    assert piece.depth_mm == pytest.approx(12, abs=2.5)
    assert (piece.place, piece.side) == ("around the heart", "")


def test_the_attenuation_of_a_nodule_is_that_of_its_inside(hu: np.ndarray) -> None:
    rim, core = chests.ball(80, 0, 120, 20), chests.ball(80, 0, 120, 14)
    drawn = hu.copy()
    drawn[rim], drawn[core] = -400, 35
    (piece,) = measure("lung_nodule", rim, chests.GRID, drawn).pieces
    assert piece.core_hu == 35
    assert piece.mean_hu < 0
    (small,) = measure("lung_nodule", chests.ball(80, 0, 120, 4.5), chests.GRID, drawn).pieces
    assert small.core_hu is None


def test_masks_say_what_was_measured_and_what_was_not_found(hu: np.ndarray) -> None:
    both = chests.ball(80, -50, 190, 16) | chests.ball(-80, 50, 60, 12)
    lesions = [measure("lung_nodule", both, chests.GRID, hu), measure("consolidation", ~both & both, chests.GRID, hu)]
    large, small, none = masks_of(lesions)
    assert (large.name, large.side, large.level, large.count) == (
        "lung_nodule",
        "left",
        "left upper anterior region",
        1,
    )
    assert large.size_mm is not None
    assert small.size_mm is not None
    assert large.size_mm > small.size_mm
    assert (small.side, none.name, none.count, none.size_mm) == ("right", "consolidation", 0, None)
    fluid = measure("pleural_effusion", chests.ball(-80, 50, 60, 20), chests.GRID, hu)
    (depth,) = masks_of([fluid])
    assert (depth.size_mm, depth.size_is, large.size_is) == (fluid.pieces[0].depth_mm, "depth", "diameter")


def test_masks_of_another_shape_are_refused(hu: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape of the grid"):
        measure("lung_nodule", np.zeros((2, 2, 2), bool), chests.GRID, hu)
