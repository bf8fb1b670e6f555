"""A training of all phases that is SIGKILLed at random steps makes the model that an undisturbed one makes."""

from __future__ import annotations

import pytest
import training_set
from killed_trainings import die_and_go_on


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(1, marks=pytest.mark.timeout(600)),  # a trainer is nice, and beside other tests it takes long
        pytest.param(20, marks=[pytest.mark.torture, pytest.mark.timeout(3600)]),
    ],
    ids=["one", "many"],
)
def test_a_killed_run_makes_the_same_model(tmp_path, kills):
    dataset = training_set.write_set(tmp_path / "set", 7)
    recipe = {
        "phase": "encoder,classification,localisation,alignment,joint,grpo",
        "language": str(training_set.write_language(tmp_path / "language", dataset)),
        "epochs": 1,
        "rate": 5e-3,
        "accumulation": 2,
        "longest": 8,
    }
    task = training_set.task(tmp_path / "run", dataset, training_set.write_base(tmp_path / "base"), **recipe)
    die_and_go_on(
        task, "clinic_ai_ct.trainer:CTTrainer", "clinic_ai_ct.training.fitting", tmp_path, seed=kills, kills=kills
    )
