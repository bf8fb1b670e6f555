"""Thresholds are chosen by the masks that the engine would draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.outlining import draw
from clinic_ai_ct.reference.calibrating import LEAST, PEAKS, THRESHOLDS, _scores
from clinic_ai_ct.volume import Grid

GRID = Grid((12, 20, 20), (3.0, 3.0, 3.0))


@pytest.mark.parametrize("seed", range(6))
def test_outlines_are_judged_by_what_they_draw(seed: int) -> None:
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 1.5)
    probability = (1 / (1 + np.exp(-9 * field / field.std() + 12))).astype(np.float32)
    truth = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 2.0) > 0.1
    judged = dict(_scores(probability, truth, 60.0, GRID.voxel_mm3))
    assert len(judged) == len(LEAST) * sum(peak >= threshold for threshold in THRESHOLDS for peak in PEAKS)
    for outline, score in judged.items():
        assert score == pytest.approx(dice(draw(probability, GRID, GRID, outline), truth)), outline


def test_nothing_drawn_where_nothing_is_scores_one() -> None:
    nothing = _scores(np.zeros(GRID.shape, np.float32), np.zeros(GRID.shape, np.bool_), 60.0, GRID.voxel_mm3)
    assert {score for _, score in nothing} == {1.0}
