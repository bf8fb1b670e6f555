"""Metrics, calibration and checkpoints."""

from __future__ import annotations

import crepes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_ai.domain import Presence
from clinic_ai.ml.calibration import Band, abstention_band, conformal_band, fit_temperature, probabilities, sigmoid
from clinic_ai.ml.metrics import (
    at_threshold,
    auroc,
    auroc_interval,
    best_f1_threshold,
    best_threshold,
    calibration_slope,
    difference_interval,
    expected_calibration_error,
    point_intervals,
)

scored = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(scored)
def test_auroc_is_the_chance_that_a_positive_outranks_a_negative(rows):
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    labels, scores = zip(*rows, strict=True)
    assert auroc(labels, scores) == pytest.approx(wins / len(positives) / len(negatives))


def test_auroc_needs_both_classes():
    with pytest.raises(ValueError, match="at least one"):
        auroc([1, 1], [0.1, 0.2])


def test_the_interval_is_wider_when_patients_have_many_images():
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, 2, 40), 5)
    scores = np.repeat(generator.normal(0, 1, 40), 5) + labels
    alone = auroc_interval(labels, scores, [str(i) for i in range(200)], rounds=400)
    together = auroc_interval(labels, scores, [str(i // 5) for i in range(200)], rounds=400)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
    assert together[0] < auroc(labels, scores) < together[1]


def test_a_few_images_told_apart_without_error_promise_no_certainty():
    logits, labels = np.array([-9.0, -7, -8, 6, 9, 12]), np.array([0, 0, 0, 1, 1, 1])
    chance = probabilities(logits, fit_temperature(logits, labels))
    assert chance[:3].mean() == pytest.approx(1 / 5, abs=0.05)
    assert chance[3:].mean() == pytest.approx(4 / 5, abs=0.05)


def test_a_temperature_is_found_again():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, 6_000)
    labels = generator.random(6_000) < probabilities(logits, 1.0)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.05)
    calibrated = expected_calibration_error(labels, probabilities(3 * logits, 3.0))
    assert calibrated < 0.02 < expected_calibration_error(labels, probabilities(3 * logits, 1.0))


@given(st.floats(-1e4, 1e4))
def test_sigmoid_never_overflows(logit):
    assert 0.0 <= sigmoid(logit) <= 1.0
    assert sigmoid(logit) == pytest.approx(float(probabilities([logit], 1.0)[0]), abs=1e-12)


@given(st.floats(0.05, 0.95), st.floats(0, 1))
@settings(max_examples=50)
def test_the_band_holds_the_share_it_was_asked_for(threshold, abstain):
    values = np.random.default_rng(2).random(400)
    band = abstention_band(values, threshold, abstain=abstain)
    assert band.low <= band.threshold <= band.high
    inside = np.mean([band.presence(value) is Presence.UNCERTAIN for value in values])
    assert inside == pytest.approx(abstain, abs=0.02)


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2.0, count)
    return probabilities(logits, 1.0), generator.random(count) < probabilities(logits, 1.0)


@given(st.integers(0, 1000), st.integers(60, 300), st.sampled_from([0.05, 0.1, 0.2]))
@settings(max_examples=25)
def test_the_conformal_band_says_what_crepes_says(seed, count, error):
    values, labels = drawn(seed, count)
    tried = np.linspace(0.001, 0.999, 199)
    band = conformal_band(values, labels, 0.5, error=error)
    unlike = np.where(labels, 1 - values, values)
    peer = crepes.ConformalClassifier().fit(unlike, bins=labels.astype(int))
    plausible = [
        peer.predict_p(each, bins=np.full(len(tried), label), smoothing=False) > error
        for label, each in ((0, tried), (1, 1 - tried))
    ]
    for value, negative, positive in zip(tried, *plausible, strict=True):
        said = band.presence(value)
        if negative and positive:
            assert said is Presence.UNCERTAIN
        elif negative or positive:
            assert said is (Presence.PRESENT if positive else Presence.ABSENT)


def test_the_conformal_band_keeps_its_promise_on_the_next_images():
    missed = []
    for seed in range(200):
        values, labels = drawn(seed, 120)
        band = conformal_band(values, labels, 0.5, error=0.1)
        next_values, next_labels = drawn(10_000 + seed, 200)
        called = np.array([band.presence(value) for value in next_values])
        missed.append(
            [np.mean(called[next_labels] == Presence.ABSENT), np.mean(called[~next_labels] == Presence.PRESENT)]
        )
    assert np.all(np.mean(missed, axis=0) <= 0.1)


def test_the_conformal_band_refuses_a_promise_it_cannot_keep():
    with pytest.raises(ValueError, match="9 of each are needed"):
        conformal_band([0.1] * 20 + [0.9] * 8, [0] * 20 + [1] * 8, 0.5, error=0.1)
    band = conformal_band([0.1] * 20 + [0.9] * 9, [0] * 20 + [1] * 9, 0.5, error=0.1)
    assert band.low == band.threshold == band.high == pytest.approx(0.5)


def test_the_slope_tells_what_is_too_sure():
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, 20_000)
    labels = generator.random(20_000) < probabilities(logits, 1.0)
    assert calibration_slope(labels, logits) == pytest.approx(1.0, abs=0.05)
    assert calibration_slope(labels, 2 * logits) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="at least one"):
        calibration_slope([1, 1], [0.0, 1.0])


def test_paired_differences_are_surer_than_their_parts():
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 2, 300)
    one = labels + generator.normal(0, 1, 300)
    patients = [str(i) for i in range(300)]
    low, high = difference_interval(labels, one, one + generator.normal(0, 0.05, 300), patients, rounds=300)
    alone = auroc_interval(labels, one, patients, rounds=300)
    assert low <= 0 <= high
    assert high - low < 0.3 * (alone[1] - alone[0])


def test_the_intervals_of_an_operating_point_hold_it():
    values, labels = drawn(5, 400)
    widths = []
    for images_each in (1, 8):
        patients = [str(row // images_each) for row in range(400)]
        (low, high), (low_specificity, high_specificity) = point_intervals(labels, values, 0.4, patients, rounds=300)
        point = at_threshold(labels, values, 0.4)
        assert low <= point.sensitivity <= high
        assert low_specificity <= point.specificity <= high_specificity
        widths.append(high - low)
    assert 0 < widths[0] < 0.2


def test_the_edges_of_the_band():
    band = Band(0.4, 0.5, 0.6)
    assert [band.presence(p) for p in (0.39, 0.4, 0.59, 0.6)] == [
        Presence.ABSENT,
        Presence.UNCERTAIN,
        Presence.UNCERTAIN,
        Presence.PRESENT,
    ]


def test_the_best_threshold_separates_what_can_be_separated():
    labels, values = [0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.9]
    threshold = best_threshold(labels, values)
    assert threshold == pytest.approx(0.5)
    point = at_threshold(labels, values, threshold)
    assert (point.sensitivity, point.specificity) == (1.0, 1.0)


def test_the_best_f1_threshold_weighs_one_too_many_as_one_missed():
    labels, values = [0] * 20 + [1, 0, 1, 1], [0.1] * 20 + [0.2, 0.3, 0.4, 0.5]
    assert best_f1_threshold(labels, values) == pytest.approx(0.15)  # 3 of 4 are right, none is missed
    labels[20] = 0
    assert best_f1_threshold(labels, values) == pytest.approx(0.35)
    assert best_f1_threshold([1, 1], [0.7, 0.7]) == 0.7
