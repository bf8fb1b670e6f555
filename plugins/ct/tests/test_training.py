"""Phases of training on small phantoms: they run in order, their metrics move, and what is wrong is named."""

from __future__ import annotations

import pytest
import training_set

from clinic_ai.ml.model_files import open_model
from clinic_ai_ct.trainer import CTTrainer


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return training_set.write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return training_set.write_base(tmp_path_factory.mktemp("models") / "base")


def test_encoder_classifier_and_localiser_learn_in_order(phantoms, base, tmp_path):
    recipe = {"phase": "encoder,classification,localisation", "epochs": 4, "rate": 5e-3, "accumulation": 2}
    told = training_set.Told()
    result = CTTrainer().train(training_set.task(tmp_path, phantoms, base, **recipe), told)
    assert result.state == "finished"
    for number, metric in enumerate(("restored", "auroc", "dice"), start=1):
        history = [entry for entry in result.history if entry["phase"] == number]
        assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
        assert history[-1]["validation_loss"] < history[0]["validation_loss"]
        assert len({entry[f"validation_{metric}"] for entry in history}) > 1
    assert {"classification.auroc", "localisation.dice", "report.rouge_l"} <= result.scores.values.keys()
    assert "phase 3 of 3: localisation" in {report.message for report in told.reports}
    model = open_model(tmp_path / "model")
    assert model.manifest.parameters["phases"] == "encoder, classification, localisation"
    assert CTTrainer().evaluate(model, phantoms).values == pytest.approx(result.scores.values)
