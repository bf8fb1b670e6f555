"""A training that is SIGKILLed at random steps makes the very model that an undisturbed one makes."""

from __future__ import annotations

import pytest
from killed_trainings import die_and_go_on

from clinic_ai.contract import Device, Limits, TrainingTask

RECIPE = {"epochs": 3, "batch": 4, "accumulation": 2, "views": 3, "error": 0.3}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(1, marks=pytest.mark.timeout(600)),  # a trainer is nice, and beside other tests it takes long
        pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(3600)]),
    ],
    ids=["one", "many"],
)
def test_a_killed_run_makes_the_same_model(tmp_path, corpus, kills):
    parts = {split: [e for e in corpus.examples if e.split == split] for split in ("train", "validation", "test")}
    few = (*parts["train"][:16], *parts["validation"][:6], *parts["test"][:4])
    task = TrainingTask(
        run_id="R-1",
        dataset=corpus.model_copy(update={"examples": few}),
        base=None,
        recipe=RECIPE,
        run_directory="",
        limits=Limits(),
        device=Device(),
    )
    trainer, module = "clinic_ai_xray.trainer:XrayTrainer", "clinic_ai_xray.training"
    die_and_go_on(task, trainer, module, tmp_path, seed=kills, kills=kills)
