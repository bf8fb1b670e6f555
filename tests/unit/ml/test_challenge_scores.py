"""Figures of masks, labels and texts, against values known by hand and against the libraries others use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from clinic_ai.ml.challenge import challenge_table, table_text, values_of
from clinic_ai.ml.label_scores import crg, label_scores, macro
from clinic_ai.ml.mask_scores import dice, hd95, iou, mask_scores
from clinic_ai.ml.text_scores import bleu, has_meteor, meteor, rouge_l, text_scores

SPACING = (2.0, 0.7, 0.7)


def block(first: int, last: int) -> np.ndarray:
    mask = np.zeros((12, 24, 24), dtype=bool)
    mask[2:8, first:last, 4:20] = True
    return mask


# ---------------------------------------------------------------- masks


def test_overlap_of_two_blocks_is_what_it_is_on_paper() -> None:
    scores = mask_scores(block(4, 12), block(8, 16), SPACING)
    assert scores.dice == pytest.approx(0.5)
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.sensitivity == pytest.approx(0.5)
    assert scores.hd95_mm == pytest.approx(4 * 0.7, abs=0.1)


def test_empty_masks_agree_and_one_alone_has_no_distance() -> None:
    empty = np.zeros((12, 24, 24), dtype=bool)
    both = mask_scores(empty, empty, SPACING)
    assert (both.dice, both.iou, both.hd95_mm, both.lesions) == (1.0, 1.0, 0.0, 0)
    assert math.isnan(both.lesion_sensitivity)
    missed = mask_scores(empty, block(4, 8), SPACING)
    assert (missed.dice, missed.sensitivity, missed.found) == (0.0, 0.0, 0)
    assert math.isnan(missed.hd95_mm)
    assert math.isnan(mask_scores(block(4, 8), empty, SPACING).hd95_mm)


def test_a_lesion_is_found_if_enough_of_it_is_hit() -> None:
    truth = block(2, 6) | block(12, 22)
    said = np.zeros_like(truth)
    said[2:8, 2:6, 4:20] = True
    said[2, 12, 4] = True
    assert mask_scores(said, truth, SPACING).lesion_sensitivity == 0.5
    assert mask_scores(said, truth, SPACING, least_overlap=0.0).lesion_sensitivity == 1.0


@pytest.mark.parametrize(
    ("one", "other", "monai"), [((4, 12), (8, 16), 2.8), ((4, 20), (5, 9), 7.7), ((2, 3), (18, 22), 13.3)]
)
def test_hd95_is_that_of_monai(one: tuple[int, int], other: tuple[int, int], monai: float) -> None:
    """``monai.metrics.compute_hausdorff_distance`` of 1.6.1, percentile 95; it takes too long to load here."""
    assert hd95(block(*one), block(*other), SPACING) == pytest.approx(monai, rel=1e-5)


@given(arrays(bool, (3, 4, 5)), arrays(bool, (3, 4, 5)))
@settings(max_examples=40, deadline=None)
def test_overlap_is_the_same_both_ways_and_never_outside_its_range(one: np.ndarray, other: np.ndarray) -> None:
    assert dice(one, other) == dice(other, one)
    assert 0 <= iou(one, other) <= dice(one, other) <= 1
    assert dice(one, one) == 1.0
    far = hd95(one, other, SPACING)
    assert math.isnan(far) or far == pytest.approx(hd95(other, one, SPACING))


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        mask_scores(np.zeros((2, 2)), np.zeros((2, 3)), (1.0, 1.0))


# ---------------------------------------------------------------- labels


def test_figures_of_labels_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(3)
    truth, scores = draw.random((60, 3)) < 0.4, draw.random((60, 3))
    for at, found in enumerate(label_scores(truth, scores, ("a", "b", "c"))):
        called = scores[:, at] >= 0.5
        assert found.auroc == pytest.approx(metrics.roc_auc_score(truth[:, at], scores[:, at]))
        assert found.f1 == pytest.approx(metrics.f1_score(truth[:, at], called))
        assert found.precision == pytest.approx(metrics.precision_score(truth[:, at], called))
        assert found.recall == pytest.approx(metrics.recall_score(truth[:, at], called))
        assert found.accuracy == pytest.approx(metrics.accuracy_score(truth[:, at], called))


def test_missing_labels_count_nowhere() -> None:
    truth, scores = np.array([[1, 0], [0, 0], [1, 1]]), np.array([[0.9, 0.2], [0.1, 0.9], [0.2, 0.8]])
    known = np.array([[True, True], [True, False], [False, True]])
    first, second = label_scores(truth, scores, ("a", "b"), known=known)
    assert (first.rows, first.positives, first.auroc, first.f1, first.accuracy) == (2, 1, 1.0, 1.0, 1.0)
    assert (second.rows, second.auroc, second.precision) == (2, 1.0, 1.0)


def test_a_label_without_positives_has_no_auroc_and_is_left_out_of_the_mean() -> None:
    scored = label_scores([[0, 1], [0, 0]], [[0.1, 0.9], [0.2, 0.3]], ("never", "some"))
    assert math.isnan(scored[0].auroc)
    assert math.isnan(scored[0].f1)
    assert macro(scored)["auroc"] == 1.0
    assert math.isnan(macro(scored[:1])["auroc"])


def test_crg_is_its_formula() -> None:
    truth = np.array([[1, 0, 0, 0], [1, 1, 0, 0]])
    assert crg(truth, truth) == 1.0
    # A = 3, T = 8, w = 5/6, Smax = 2.5; nothing is said: s = -3w
    assert crg(truth, np.zeros_like(truth)) == pytest.approx(2.5 / (5 + 2.5))
    said = np.array([[1, 1, 0, 0], [0, 1, 0, 0]])  # two hits, one miss, one invented
    assert crg(truth, said) == pytest.approx(2.5 / (5 - (2 * 5 / 6 - 5 / 6 - 1)))
    with pytest.raises(ValueError, match="at least one positive"):
        crg(np.zeros((2, 2)), np.zeros((2, 2)))


# ---------------------------------------------------------------- texts


def test_a_text_is_next_to_itself_and_far_from_another() -> None:
    pytest.importorskip("sacrebleu")
    one, other = ["There is a nodule in the right upper lobe."], ["No effusion."]
    same = text_scores(one, one)
    assert all(same[key] == pytest.approx(1.0) for key in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"))
    assert bleu(one, other, 1) < 0.2
    assert rouge_l(one, other) < 0.2
    with pytest.raises(ValueError, match="cannot be held against"):
        text_scores(one, [])


def test_bleu_1_counts_words_and_bleu_4_runs_of_four() -> None:
    pytest.importorskip("sacrebleu")
    said, truth = ["a b c d e f g h"], ["a b c d h g f e"]
    assert bleu(said, truth, 1) == pytest.approx(1.0)
    assert 0 < bleu(said, truth, 4) < 0.6
    assert rouge_l(said, truth) == pytest.approx(5 / 8)


def test_meteor_is_given_only_where_its_words_are_installed() -> None:
    pytest.importorskip("nltk")
    if has_meteor():
        assert meteor(["a nodule"], ["a nodule"]) > 0.9
    else:
        assert "meteor" not in text_scores(["a nodule"], ["a nodule"])
        with pytest.raises(LookupError):
            meteor(["a lesion"], ["a nodule"])


# ---------------------------------------------------------------- the table


def test_the_table_has_each_task_with_its_means_first() -> None:
    scored = label_scores([[0, 1], [1, 0]], [[0.1, 0.9], [0.8, 0.3]], ("nodule", "effusion"))
    cases = [
        mask_scores(block(4, 12), block(8, 16), SPACING),
        mask_scores(np.zeros_like(block(1, 2)), block(4, 8), SPACING),
    ]
    rows = challenge_table(texts={"crg": 0.6, "bleu_1": 0.5}, labels=scored, masks={"nodule": cases, "none": ()})
    values = values_of(rows)
    assert list(values)[:3] == ["report.bleu_1", "report.crg", "classification.auroc"]
    assert values["localisation.nodule.lesion_sensitivity"] == 0.5
    assert values["localisation.dice"] == pytest.approx(0.25)
    assert values["localisation.lesion_sensitivity"] == 0.5
    text = table_text(rows)
    assert text.splitlines()[0].split() == ["task", "of", "figure", "value"]
    assert "1 of 2 cases have none" in text
    assert "1 of 2 positive" in text
    assert table_text(()) == "There are no figures."
