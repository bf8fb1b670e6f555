"""Thresholds are chosen by the masks that the engine would draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.calibrating import LEAST, PEAKS, THRESHOLDS, Drawing, best_outline, depth_in, drawings, fitted
from clinic_ai_ct.outlining import Outline, draw
from clinic_ai_ct.served import reach_of
from clinic_ai_ct.volume import Grid

GRID = Grid((12, 20, 20), (3.0, 3.0, 3.0))


@pytest.mark.parametrize("seed", range(6))
def test_outlines_are_judged_by_what_they_draw(seed: int) -> None:
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 1.5)
    probability = (1 / (1 + np.exp(-9 * field / field.std() + 12))).astype(np.float32)
    truth = ndimage.gaussian_filter(generator.standard_normal(GRID.shape), 2.0) > 0.1
    judged = list(drawings(probability, truth, 60.0, GRID.voxel_mm3))
    assert len(judged) == len(LEAST) * sum(peak >= threshold for threshold in THRESHOLDS for peak in PEAKS)
    for drawing in judged:
        drawn = draw(probability, GRID, GRID, drawing.outline)
        sizes = sorted((int(drawn.sum()), int(truth.sum())))
        assert drawing.score == pytest.approx((dice(drawn, truth) + sizes[0] / sizes[1]) / 2), drawing
        assert drawing.volume_mm3 == drawn.sum() * GRID.voxel_mm3, drawing


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8])
def test_a_mask_on_finer_slices_is_as_large_as_on_the_voxels_it_was_chosen_by(threshold: float) -> None:
    fine = Grid((48, 80, 80), (0.75, 0.75, 0.75), origin=(-1.125, -1.125, -1.125))
    sure = np.zeros(GRID.shape, np.float32)
    sure[4:8, 5:15, 5:15] = 1.0
    truth = np.zeros(fine.shape, np.bool_)
    truth[16:32, 20:60, 20:60] = True
    drawn = draw(sure, GRID, fine, Outline(threshold, threshold, 60.0))
    assert dice(drawn, truth) > 0.98


def test_a_layer_drawn_at_a_low_threshold_keeps_its_thickness_on_finer_slices() -> None:
    fine = Grid((48, 80, 80), (0.75, 0.75, 0.75), origin=(-1.125, -1.125, -1.125))
    hardly = np.full(GRID.shape, 0.005, np.float32)
    hardly[:, 8:12] = 0.3  # above the threshold, and far from sure
    layer = draw(hardly, GRID, fine, Outline(0.1, 0.2, 1.0))
    assert 10.5 < float(layer.sum(axis=1).max()) * 0.75 <= 12.0


def test_outlines_of_fluid_are_judged_by_its_depth_as_well() -> None:
    truth = np.zeros(GRID.shape, np.bool_)
    truth[2:10, 12:18, 4:16] = True
    probability = np.where(truth, np.float32(0.9), np.float32(0.0))
    probability[2:10, 11, 4:16] = 0.25  # one row more in front
    depth = depth_in("pleural_effusion", np.full(GRID.shape, -800, np.int16), GRID)
    assert depth is not None
    assert depth(truth) == 18.0
    assert depth(np.zeros(GRID.shape, np.bool_)) == 0.0
    scores: dict[float, float] = {}
    for drawing in drawings(probability, truth, 60.0, 27.0, size_of=depth):
        scores[drawing.outline.threshold] = max(scores.get(drawing.outline.threshold, 0.0), drawing.score)
    assert scores[0.3] == 1.0
    assert scores[0.2] == pytest.approx((2 * 6 / 13 + 6 / 7 + 6 / 7) / 3)
    assert depth_in("lung_nodule", np.zeros(GRID.shape, np.int16), GRID) is None


def test_nothing_drawn_where_nothing_is_scores_one() -> None:
    nothing = drawings(np.zeros(GRID.shape, np.float32), np.zeros(GRID.shape, np.bool_), 60.0, GRID.voxel_mm3)
    assert {(drawing.volume_mm3, drawing.score) for drawing in nothing} == {(0.0, 1.0)}


def _scored(outline: Outline, shown: float, not_shown: float) -> list[Drawing]:
    return [Drawing(outline, 40.0, not_shown, shown=False)] * 9 + [Drawing(outline, 90.0, shown, shown=True)]


def test_an_outline_is_chosen_by_what_shows_something_rather_than_by_what_does_not() -> None:
    loose, strict = Outline(0.1, 0.5, 14.0), Outline(0.5, 0.95, 280.0)
    between = [Outline(0.2, 0.7, 28.0), Outline(0.3, 0.85, 140.0)]  # worth nothing, so that neither helps the other
    drawn = {outline: _scored(outline, 0.0, 0.0) for outline in between}
    drawn |= {strict: _scored(strict, 0.5, 1.0), loose: _scored(loose, 0.9, 0.0)}
    assert best_outline(drawn) == loose
    assert best_outline({outline: own[:9] for outline, own in drawn.items()}) == strict, "nothing else is known"
    drawn[strict] = _scored(strict, 0.6, 1.0)
    assert best_outline(drawn) == strict


def test_an_outline_among_good_ones_is_better_than_a_lucky_one_at_the_edge() -> None:
    row = [Outline(threshold, 0.95, 14.0) for threshold in THRESHOLDS]
    worth = [0.84, 0.60, 0.62, 0.70, 0.82, 0.83, 0.81, 0.70, 0.60]
    drawn = {outline: _scored(outline, score, 1.0) for outline, score in zip(row, worth, strict=True)}
    assert best_outline(drawn) == row[5]
    assert best_outline(dict(reversed(drawn.items()))) == row[5], "in whatever order"
    alone = {outline: drawn[outline] for outline in (row[0], row[5])}
    assert best_outline(alone) in alone


def test_the_reach_is_what_the_likeliest_voxels_have_together() -> None:
    probability = np.full(GRID.shape, 0.02, np.float32)
    probability.ravel()[::7][:10] = np.linspace(0.5, 0.95, 10)
    one, three, ten, more, beyond = reach_of(probability, GRID, [27.0 * n for n in (1, 3, 10, 11, 10**6)])
    chances = 1 / (1 + np.exp(-np.array([one, three, ten, more, beyond])))
    assert chances == pytest.approx([0.95, 0.85, 0.5, 0.02, 0.02])
    assert reach_of(np.ones(GRID.shape, np.float32), GRID, [0.001])[0] == pytest.approx(np.log(999))


def test_what_is_just_not_drawn_is_told_by_its_reach() -> None:
    generator = np.random.default_rng(4)
    truth = np.repeat([0.0, 1.0], 30)
    logits = generator.standard_normal(60)
    nothing_drawn = np.column_stack([np.zeros(60), 2 * truth - 3 + 0.3 * generator.standard_normal(60)])
    with_reach, without = (fitted(logits, truth, evidence, outlined=False) for evidence in (nothing_drawn, None))
    assert with_reach.auroc > 0.99
    assert 0.3 < without.auroc < 0.8
    assert with_reach.row[2] > 0
    assert without.row[1:3] == (0.0, 0.0)


def test_the_band_of_a_label_that_is_told_without_doubt_is_not_all_there_is() -> None:
    truth = np.repeat([0.0, 1.0], 20)
    slope, _, _, intercept, low, threshold, high = fitted(20 * truth - 10, truth, None, outlined=True).row
    assert 0.3 < low <= threshold <= high < 0.7
    assert 1 / (1 + np.exp(10 * slope - intercept)) < low
