"""A training that is SIGKILLed at random steps makes the very adapter that an undisturbed one makes."""

from __future__ import annotations

import pytest
from corpus import make_dataset
from killed_trainings import die_and_go_on

from clinic_ai.contract import Device, Limits, TrainingTask

RECIPE = {"epochs": 3, "batch": 2, "accumulation": 2, "rate": 2e-2, "curriculum": "1:4", "keep": 3}


@pytest.mark.parametrize(
    "kills",
    [
        # In the suite ``test_trainer.py`` stops the run at every step, and the X-ray and CT trainers are killed.
        pytest.param(1, marks=[pytest.mark.torture, pytest.mark.timeout(600)]),
        pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(3600)]),
    ],
    ids=["one", "many"],
)
def test_a_killed_run_makes_the_same_adapter(tmp_path, picture_file, tiny, kills):
    task = TrainingTask(
        run_id="R-1",
        dataset=make_dataset(picture_file, train=4, validation=2, test=2),
        base=tiny,
        recipe=RECIPE,
        run_directory="",
        limits=Limits(),
        device=Device(),
    )
    trainer, module = "clinic_ai_ultrasound.trainer:UltrasoundTrainer", "clinic_ai_ultrasound.fitting"
    die_and_go_on(task, trainer, module, tmp_path, seed=kills, kills=kills)
