"""The report on phantoms, by their true masks: side, lobe and size are those that were drawn."""

from __future__ import annotations

import pytest

from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.measuring import masks_of, measure
from clinic_ai_ct.organs import Organs
from clinic_ai_ct.phantoms.making import make
from clinic_ai_ct.report import write_report


@pytest.mark.parametrize("seed", [2, 5])
def test_what_was_drawn_is_told_with_its_side_and_lobe_and_nothing_else(seed: int) -> None:
    phantom = make(seed, shape=(56, 72, 72), spacing=(5.0, 4.9, 4.9))
    organs = Organs(phantom.organs, dict(enumerate(REGIONS, start=1)))
    volume = phantom.volume
    lesions = [measure(name, mask, volume.grid, volume.hu, organs) for name, mask in phantom.masks.items()]
    for lesion in lesions:
        drawn = [d for d in phantom.lesions if d.name == lesion.name]
        assert bool(drawn) is bool(lesion.pieces)
        sides = {d.side for d in drawn} - {""}
        assert lesion.side == ("bilateral" if len(sides) > 1 else next(iter(sides), ""))
        assert sum(p.volume_mm3 for p in lesion.pieces) == pytest.approx(1000 * sum(d.ml for d in drawn), rel=0.01)
        if lesion.name == "consolidation":
            places = " ".join(p.place for p in lesion.pieces)
            assert all(d.lobe.replace("_", " ") in places for d in drawn)
    shown = {d.name for d in phantom.lesions}
    said = {c for s in write_report((), lesions) if s.section == "impression" and not s.normal for c in s.conditions}
    assert said == shown
    assert {m.name for m in masks_of(lesions) if m.count} == shown
