"""What counts as finding and side right."""

from __future__ import annotations

import pytest

from clinic_ai_ct.measuring import measure
from clinic_ai_ct.phantoms import Phantom, make
from clinic_ai_ct.phantoms.lesions import Nodule, PericardialEffusion, PleuralEffusion
from clinic_ai_ct.reference.judging import Sides, Wanted, wanted_of

NONE, RIGHT, LEFT, BOTH = Sides(), Sides({"right"}), Sides({"left"}), Sides({"left", "right"})


@pytest.mark.parametrize(
    ("must", "may", "said", "whole", "each"),
    [
        (BOTH, BOTH, BOTH, (1, 0, 0), (2, 0, 0)),
        (BOTH, BOTH, LEFT, (0, 1, 1), (1, 0, 1)),
        (BOTH, BOTH, NONE, (0, 0, 1), (0, 0, 2)),
        (RIGHT, RIGHT, LEFT, (0, 1, 1), (0, 1, 1)),
        (RIGHT, RIGHT, BOTH, (0, 1, 1), (1, 1, 0)),
        (RIGHT, RIGHT, Sides({""}), (0, 1, 1), (0, 1, 1)),
        (NONE, NONE, RIGHT, (0, 1, 0), (0, 1, 0)),
        (NONE, NONE, NONE, (0, 0, 0), (0, 0, 0)),
        (RIGHT, BOTH, RIGHT, (1, 0, 0), (1, 0, 0)),
        (RIGHT, BOTH, BOTH, (1, 0, 0), (2, 0, 0)),
        (RIGHT, BOTH, LEFT, (0, 1, 1), (1, 0, 1)),
    ],
)
def test_a_finding_is_right_with_its_sides(must: Sides, may: Sides, said: Sides, whole: tuple, each: tuple) -> None:
    wanted = Wanted(must, may)
    assert tuple(wanted.whole(said).values()) == whole
    assert tuple(wanted.each(said).values()) == each


def _wanted(phantom: Phantom, name: str) -> Wanted:
    return wanted_of(phantom, measure(name, phantom.masks[name], phantom.volume.grid, phantom.volume.hu))


def test_the_smallest_nodules_need_not_be_told_and_may_be() -> None:
    lesions = (Nodule("right_upper_lobe", 14.0), Nodule("left_lower_lobe", 7.2), PericardialEffusion(18.0))
    phantom = make(11, lesions=lesions, conditions=())
    assert _wanted(phantom, "lung_nodule") == Wanted(RIGHT, BOTH)
    assert _wanted(phantom, "pericardial_effusion") == Wanted(Sides({""}), Sides({""}))
    assert _wanted(phantom, "consolidation") == Wanted(NONE, NONE)
    fluid = make(12, lesions=(PleuralEffusion("left", 300.0), PleuralEffusion("right", 300.0)), conditions=())
    assert _wanted(fluid, "pleural_effusion") == Wanted(BOTH, BOTH)
