"""What a training leaves can be served: the engine loads it, and its numbers mean something."""

from __future__ import annotations

import pytest
import served_models
import training_set

from clinic_ai.contract import Device
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.unlike import LIMIT, STATISTICS
from clinic_ai_ct.engine import CTEngine
from clinic_ai_ct.served import serve
from clinic_ai_ct.trainer import CTTrainer


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return training_set.write_set(tmp_path_factory.mktemp("set"), 6)


def candidate_of(folder, dataset, base, **recipe):
    """Learn an epoch from ``base`` in ``folder``; return the candidate."""
    task = training_set.task(folder, dataset, base, epochs=1, **recipe)
    assert CTTrainer().train(task, training_set.Told()).state == "finished"
    return open_model(folder / "model")


@pytest.mark.parametrize("phase", ["classification", "encoder"])
def test_a_candidate_tells_what_is_unlike_as_long_as_its_encoder_does(phantoms, tmp_path, phase):
    base = served_models.model(tmp_path / "base", far=True)
    (tmp_path / "run").mkdir()
    candidate = candidate_of(tmp_path / "run", phantoms, base, phase=phase)
    CTEngine().load(candidate, Device())
    unlike = serve(candidate, Device()).unlike
    if phase == "encoder":
        assert unlike is None
        assert LIMIT not in candidate.manifest.parameters
        assert not (tmp_path / "run" / "model" / STATISTICS).exists()
    else:
        assert unlike is not None
        assert unlike.limit == base.manifest.parameters[LIMIT]
        assert unlike.mean.equal(serve(base, Device()).unlike.mean)
