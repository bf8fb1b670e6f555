"""Figures of answers, and the confidence learned from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from corpus import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_ai_ultrasound.answering import Answered
from clinic_ai_ultrasound.evaluation import Compared, Said, calibrate, generation_of
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.scoring import METRICS, Scored, by_type, edit_similarity, normalised, token_f1


@pytest.mark.parametrize(
    ("said", "truth", "same"),
    [
        ("The femur.", "the  FEMUR", True),
        ("2.5 mm", "25 mm", False),
        ("-2", "2", False),
        ("no fluid", "fluid", False),
        ("", "Yes", False),
        ("Écho: normal", "écho normal", True),
    ],
)
def test_what_counts_as_the_same_answer(said, truth, same):
    assert (normalised(said) == normalised(truth)) is same


def test_figures_by_hand():
    scored = Scored(["in the right half", "yes"], ["in the left half", "Yes."], ["p1", "p2"])
    rows = {key: values.tolist() for key, values in scored.by_metric.items()}
    assert rows["exact_match"] == [0, 1]
    assert rows["token_f1"] == [0.75, 1]
    assert rows["rouge_l"] == pytest.approx([0.75, 1])
    assert rows["edit_similarity"] == pytest.approx([1 - 4 / 17, 1])
    assert 0 < rows["bleu"][0] < 0.75
    assert rows["bleu"][1] == pytest.approx(1)
    figures = scored.figures()
    assert figures.values["exact_match"] == 0.5
    assert figures.intervals["exact_match"] == (0, 1)
    assert scored.figures([1]).intervals == {}  # of one patient


@settings(max_examples=40)
@given(st.text(max_size=40), st.text(max_size=40))
def test_figures_are_shares_and_one_for_the_truth_itself(said, truth):
    for metric in (token_f1, edit_similarity):
        assert 0 <= metric(said, truth) <= 1
        assert metric(truth, truth) == 1
    values = Scored([said], [truth], ["p"]).figures().values
    assert set(values) == set(METRICS)
    assert all(0 <= value <= 1 + 1e-9 for value in values.values())


def test_questions_are_their_own_type_and_rare_ones_are_pooled():
    asked = ["Is it?", "Which view?", "Which  view?", "What is it?"]
    assert by_type(asked, most=3) == {"Which view?": [1, 2], "Is it?": [0], "What is it?": [3]}
    assert by_type(asked, most=2) == {"Which view?": [1, 2], "other questions": [0, 3]}


# ---------------------------------------------------------------- what was said


def said_of(means, exact, *, worse=()) -> Said:
    """Return answers of two models: the first says nothing right, the second what ``exact`` says."""
    dataset = make_dataset(lambda number: number, train=len(means), validation=0, test=0)
    rows = [(example, example.pairs[0]) for example in dataset.examples]
    second = [
        Answered(pair.answer if right else "Nothing.", mean, ())
        for (_, pair), mean, right in zip(rows, means, exact, strict=True)
    ]
    first = [Answered("Nothing.", -1.0, ())] * len(means)
    return Said([example for example, _ in rows], [pair for _, pair in rows], [first, second])


def test_before_and_after_are_compared_on_the_same_answers():
    scores = Compared.of(said_of([-0.1] * 10, [True] * 6 + [False] * 4)).scores()
    assert (scores.split, scores.examples) == ("test", 10)
    assert (scores.values["base_exact_match"], scores.values["exact_match"]) == (0, 0.6)
    assert scores.values["gain_exact_match"] == 0.6
    low, high = scores.intervals["gain_exact_match"]
    assert 0 <= low < 0.6 < high <= 1


def test_surer_answers_get_a_higher_chance():
    generator = np.random.default_rng(1)
    means = -generator.exponential(1.0, 200)
    exact = generator.random(200) < 1 / (1 + np.exp(-(2 + 2 * means)))
    calibration, why_not = calibrate(said_of(means.tolist(), exact.tolist()), model=1)
    assert why_not == ""
    assert calibration.slope == pytest.approx(2, abs=0.7)
    chance = [calibration.probability(mean) for mean in means]
    assert np.mean(chance) == pytest.approx(exact.mean(), abs=0.02)


@pytest.mark.parametrize(
    ("means", "exact", "says"),
    [
        ([-1.0] * 7, [True, False] * 3 + [True], "has 7 answers, 8 are needed"),
        ([-1.0] * 8 + [math.nan] * 4, [True] * 8 + [False] * 4, "All of the 8 validation answers are exactly right"),
        ([-1.0] * 9, [False] * 9, "None of the 9"),
        ([-1.0, -2.0] * 5, [False, True] * 5, "surer answers are not right more often"),
    ],
)
def test_no_confidence_is_made_up(means, exact, says):
    calibration, why_not = calibrate(said_of(means, exact), model=1)
    assert calibration is None
    assert says in why_not


def test_answers_are_generated_as_the_category_says():
    categories = describe_plugin().categories
    own = categories[0].model_copy(update={"generation": generation_of("", ()).model_copy(update={"num_beams": 1})})
    assert generation_of(own.key, (own,)).num_beams == 1
    assert generation_of("unknown", (own,)).num_beams == 3
