"""What is left out, and parted, where masks are more than can be worked on at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from outlined import all_released, ball, ct_slices, found, outlines, segmentation, thorax
from rendering import task

from clinic_ai.ml import report_seg
from clinic_ai.ml.outlines import read_outlines
from clinic_ai.ml.segmentations import packed_bytes
from clinic_ai.tasks import RenderTask

SHAPE = (4, 12, 20)
MASKS = {name: ball(SHAPE, (0.5, 0.5, 0.5), 6) for name in ("lung_nodule", "heart", "aorta", "no_such_organ")}


@pytest.fixture
def asked(tmp_path: Path) -> RenderTask:
    images = ct_slices(tmp_path, thorax(*SHAPE))
    stored = segmentation(tmp_path, images, MASKS, anatomy=["heart", "aorta", "no_such_organ"])
    findings = (found(images[0], "lung_nodule"),)
    return task(tmp_path, images, findings=findings, verdict=all_released(findings), outlines=outlines(1, stored))


def names(asked: RenderTask, omissions: list[str]) -> list[str]:
    return [segment.name for drawn in read_outlines(asked, omissions) for segment, _ in drawn.segments]


def test_a_mask_without_a_code_is_left_out_and_told_of(asked: RenderTask) -> None:
    omissions: list[str] = []
    assert names(asked, omissions) == ["lung_nodule", "heart", "aorta"]
    assert omissions == ["The mask no_such_organ of ct is not delivered: no code is known for it."]


def test_organs_give_way_to_findings(asked: RenderTask, monkeypatch: pytest.MonkeyPatch) -> None:
    room = packed_bytes(asked.outlines[0].segmentations[0].segmentation, 2)
    monkeypatch.setattr("clinic_ai.ml.outlines.MAX_PACKED_BYTES", room)
    omissions: list[str] = []
    assert names(asked, omissions) == ["lung_nodule"]
    assert omissions[-1].startswith("Masks of organs are not delivered")


def test_large_segmentations_are_parted_into_several_objects(
    asked: RenderTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drawn,) = read_outlines(asked, [])
    monkeypatch.setattr(report_seg, "MAX_VOXELS", 2 * int(np.prod(SHAPE)))
    parts = report_seg.portions(drawn)
    assert [[segment.name for segment, _ in part.segments] for part in parts] == [["lung_nodule", "heart"], ["aorta"]]
    monkeypatch.setattr(report_seg, "MAX_VOXELS", 1)
    assert len(report_seg.portions(drawn)) == 3, "one that is too large alone is an object of its own"
