"""Thresholds are chosen by the masks that the engine would draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.outlining import Outline, draw
from clinic_ai_ct.reference.calibrating import PEAKS, THRESHOLDS, _Pieces
from clinic_ai_ct.volume import Grid

GRID = Grid((12, 20, 20), (3.0, 3.0, 3.0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("least", [27.0, 400.0])
def test_pieces_score_as_what_is_drawn(seed: int, least: float) -> None:
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 1.5)
    probability = (1 / (1 + np.exp(-9 * field / field.std() + 12))).astype(np.float32)
    truth = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 2.0) > 0.1
    for threshold in THRESHOLDS:
        pieces = _Pieces(probability, truth, threshold)
        for peak in (peak for peak in PEAKS if peak >= threshold):
            mask = draw(probability, GRID, GRID, Outline(threshold, peak, least))
            assert pieces.dice(peak, least / GRID.voxel_mm3) == pytest.approx(dice(mask, truth))


def test_nothing_drawn_where_nothing_is_scores_one() -> None:
    nothing = _Pieces(np.zeros(GRID.shape, np.float32), np.zeros(GRID.shape, np.bool_), 0.5)
    assert nothing.dice(0.7, 1.0) == 1.0
