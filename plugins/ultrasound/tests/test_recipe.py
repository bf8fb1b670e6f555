"""The recipe's targets and curriculum: what they take, and what makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.errors import DatasetError
from clinic_ai_ultrasound.curriculum import Curriculum, Stage, words_of
from clinic_ai_ultrasound.recipe import AdapterRecipe

LAYERS = ("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj")


def test_targets_are_layers_of_the_base():
    recipe = AdapterRecipe.parse({"targets": " q_proj, k_proj,v_proj,out_proj,q_proj "})
    assert recipe.target_names == ("k_proj", "out_proj", "q_proj", "v_proj")
    recipe.check_targets(LAYERS)
    with pytest.raises(
        DatasetError, match="targets name gate_proj, o_proj; the language model of this base has fc1, fc2"
    ):
        AdapterRecipe.parse({"targets": "o_proj,q_proj,gate_proj"}).check_targets(LAYERS)


@pytest.mark.parametrize("targets", ["", " , ", "q_proj;v_proj", ".*", "Q_proj", "a" * 9 + "+$"])
def test_targets_that_are_no_names_are_refused(targets):
    with pytest.raises(DatasetError, match="targets is names of layers with commas between them"):
        AdapterRecipe.parse({"targets": targets})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("short", "curriculum is 'short'"),
        ("2", "curriculum is '2'"),
        ("2:3;5:8", "curriculum is"),
        ("2:-3", "curriculum is"),
        ("2:3,2:8", "ends later and takes longer answers"),
        ("2:8,5:8", "ends later and takes longer answers"),
        ("0:8", "ends later"),
        ("2:0", "takes longer"),
        ("2:3,10:8", "ends with epoch 10 of 10: long answers are never learned"),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(text, says):
    with pytest.raises(DatasetError, match=says):
        AdapterRecipe.parse({"curriculum": text, "epochs": 10})


def test_a_curriculum_goes_from_short_answers_to_all():
    found = Curriculum.parse("2:3, 5:8", 10)
    assert found.stages == (Stage(2, 3), Stage(5, 8), Stage(None, None))
    assert [found.number(epoch) for epoch in (1, 2, 3, 5, 6, 10)] == [1, 1, 2, 2, 3, 3]
    assert found.all_from == 6
    assert found.counts([1, 3, 4, 9], 7) == [2, 2, 3, 3, 3, 4, 4]
    with pytest.raises(
        DatasetError, match="Stage 1 of the recipe's curriculum takes answers of at most 3 words; there is"
    ):
        found.counts([4, 9], 7)
    assert words_of(" In the  left half. ") == 4


def test_without_a_curriculum_every_epoch_takes_all():
    found = Curriculum.parse("", 3)
    assert (len(found.stages), found.all_from) == (1, 1)
    assert found.counts([1, 99], 3) == [2, 2, 2]


@given(st.text(max_size=12), st.integers(1, 9))
def test_whatever_is_written_is_stages_or_an_error_in_words(text, epochs):
    try:
        found = Curriculum.parse(text, epochs)
    except DatasetError:
        return
    assert found.stages[-1] == Stage(None, None)
    assert found.all_from <= epochs
