"""What is cut out of an answer, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai_ultrasound.repetition import without_repetition

WORDS = st.sampled_from(["the", "The", "left", "cec.", "half", "no", "No,", "a", "b.", "...", "1.5", "x", "is it?"])


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("The cecum. with a mass in bowel cec. cec. cec. cec.", "The cecum. with a mass in bowel cec."),
        ("the the the femur", "the femur"),
        ("It lies in the left half in the left half in the left", "It lies in the left half"),
        ("The view is axial. The head is whole. The view is axial.", "The view is axial. The head is whole."),
        ("A b c. D e f. A b c. D e f. A b", "A b c. D e f."),
        ("Yes. Yes.", "Yes."),
        ("to and to and to and fro", "to and fro"),
    ],
)
def test_loops_are_cut_to_their_first_round(said, left):
    assert without_repetition(said) == (left, True)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "In the left half.",
        "Yes. It is very very bright. Yes.",
        "No. There is no sign of it, and no shadow.",
        "It measures 1.5 x 1.5 x 1.4 cm, approx. 3 mm more than approx. half of it.",
        "From side  to side, two blanks and all.",
    ],
)
def test_other_text_stays_as_it_is(said):
    assert without_repetition(said) == (said, False)


@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=80))
def test_twice_is_once_and_nothing_grows(said):
    once, cut = without_repetition(said)
    assert without_repetition(once) == (once, False)
    assert len(once) < len(said) if cut else once == said
    assert set(once.split()) <= set(said.split()), "no word is made up"
    assert bool(once.strip()) == bool(said.strip()), "something always stays"


@given(st.lists(st.integers(0, 9999), unique=True, max_size=60))
def test_words_that_all_differ_are_left_alone(numbers):
    said = " ".join(f"w{number}" for number in numbers)
    assert without_repetition(said) == (said, False)
