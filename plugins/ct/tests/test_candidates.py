"""What a training leaves can be served: the engine loads it, and its numbers mean something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import served_models
import torch
import training_set

from clinic_ai.contract import Device
from clinic_ai.domain import Presence
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.unlike import LIMIT, STATISTICS
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.engine import CTEngine
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import made
from clinic_ai_ct.served import MaskEvidence, drawn_of, serve
from clinic_ai_ct.sliding import Reading
from clinic_ai_ct.trainer import CTTrainer
from clinic_ai_ct.training import calibrating, serving
from clinic_ai_ct.training.cases import cases_of
from clinic_ai_ct.training.chests import chest_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return training_set.write_set(tmp_path_factory.mktemp("set"), 6)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve volumes to validate on, half of them with an effusion, and six to learn from."""
    dataset = training_set.write_set(tmp_path_factory.mktemp("many"), 20)
    place = {example.sha256: int(example.patient_key.split("_")[1]) for example in dataset.examples}
    examples = [
        one.model_copy(
            update={"split": "validation" if (n := place[one.sha256]) < 12 else "train" if n < 18 else "test"}
        )
        for one in dataset.examples
    ]
    return dataset.model_copy(update={"examples": tuple(examples)})


def config():
    """A network of the voxels that the phantoms have, so that it reads each at once."""
    found = served_models.network_config()
    encoder = found.encoder.model_copy(update={"volume": training_set.SHAPE, "patch": (2, 8, 8)})
    localiser = found.localiser.model_copy(update={"tile": training_set.SHAPE})
    return found.model_copy(update={"encoder": encoder, "localiser": localiser, "spacing": training_set.SPACING})


def base_of(folder, **changes):
    return served_models.model(folder / "base", made(config(), 5), **changes)


def candidate_of(folder, dataset, base, **recipe):
    """Learn an epoch from ``base`` in ``folder``; return the candidate and what was noted."""
    task = training_set.task(folder, dataset, base, epochs=1, **recipe)
    result = CTTrainer().train(task, training_set.Told())
    assert result.state == "finished"
    return open_model(folder / "model"), result.notes


@pytest.mark.parametrize("phase", ["classification", "encoder"])
def test_a_candidate_tells_what_is_unlike_as_long_as_its_encoder_does(phantoms, tmp_path, phase):
    base = base_of(tmp_path, far=True)
    (tmp_path / "run").mkdir()
    candidate, notes = candidate_of(tmp_path / "run", phantoms, base, phase=phase)
    CTEngine().load(candidate, Device())
    unlike = serve(candidate, Device()).unlike
    told = any("cannot tell volumes that are unlike" in note for note in notes)
    if phase == "encoder":
        assert unlike is None
        assert LIMIT not in candidate.manifest.parameters
        assert not (tmp_path / "run" / "model" / STATISTICS).exists()
        assert told
    else:
        assert unlike is not None
        assert unlike.limit == base.manifest.parameters[LIMIT]
        assert unlike.mean.equal(serve(base, Device()).unlike.mean)
        assert not told


def test_an_encoder_that_learned_is_measured_anew(many, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "LEAST_KNOWN", 6)
    base = base_of(tmp_path, far=True)
    (tmp_path / "run").mkdir()
    candidate, _ = candidate_of(tmp_path / "run", many, base, phase="encoder", rate=1e-2)
    unlike = serve(candidate, Device()).unlike
    assert unlike is not None
    network = serve(candidate, Device()).network
    distances = []
    for case in cases_of(many):
        image, regions = chest_of(case, config()).tensors(config(), CPU)
        distances += [unlike.distance(calibrating.read(network, image, r).features.global_[0]) for r in (regions, None)]
    assert np.mean([distance <= unlike.limit for distance in distances]) > 0.9
    assert unlike.distance(torch.full((16,), 50.0)) > unlike.limit


def test_a_candidate_is_calibrated_where_there_are_enough_examples(many, tmp_path):
    base = base_of(tmp_path)
    (tmp_path / "run").mkdir()
    candidate, notes = candidate_of(tmp_path / "run", many, base, phase="classification,localisation")
    before, after = ({rule.label: rule for rule in serve(model, Device()).rules} for model in (base, candidate))
    assert list(before) == list(after)
    assert {label for label in before if before[label] != after[label]} == {"pleural_effusion"}
    assert "Calibrated on 12 volumes of the validation part: pleural_effusion." in notes
    kept = next(note for note in notes if note.startswith("Calibrated as in the model it started from"))
    assert kept.endswith(": pericardial_effusion, consolidation, ground_glass_opacity, lung_nodule, "
                         "cardiomegaly, fibrosis.")  # fmt: skip
    CTEngine().load(candidate, Device())


def test_what_only_speaks_is_served_as_before(many, tmp_path):
    base = base_of(tmp_path, far=False)
    language = str(training_set.write_language(tmp_path / "language", many))
    (tmp_path / "run").mkdir()
    candidate, notes = candidate_of(tmp_path / "run", many, base, phase="alignment", language=language)
    for key, value in base.manifest.parameters.items():
        assert candidate.manifest.parameters[key] == value, key
    assert not any("alibrated" in note for note in notes)
    CTEngine().load(candidate, Device())


class Oracle:
    """Reads what is true, in numbers of its own: a logit of 4 more or less than 6, and masks that are too timid."""

    def __init__(self, cases, config) -> None:
        self._config, self._at = config, iter(cases)
        self._drawn = np.random.default_rng(1)

    def __call__(self, network, image, regions=None) -> Reading:
        case = next(self._at)
        truth = [case.labels.get(label, 0) for label in self._config.classifier.labels]
        logits = torch.tensor([[4.0 * (2 * one - 1) + 6.0 + self._drawn.normal() for one in truth]])
        masks = torch.full((1, len(LESIONS), *image.shape[2:]), -6.0)
        for name, there in chest_of(case, self._config).masks.items():
            masks[0, LESIONS.index(name)][torch.from_numpy(there)] = -0.7
        return Reading(Features(torch.zeros(1, 16), torch.zeros(1, 1, 16), (1, 1, 1)), logits, masks, 1)


def lesions_of(cases):
    """Let every other case show all that a network draws, by masks of effusions or nodules, and the rest nothing."""
    drawn = next(mask for case in cases for mask in case.masks.values())
    path = next(case.volume for case in cases if drawn in case.masks.values())
    found = []
    for number, case in enumerate(cases):
        shown = int(number % 2)
        labels = dict.fromkeys((*LESIONS, "cardiomegaly"), shown)
        masks = dict.fromkeys(LESIONS, drawn) if shown else {}
        found.append(replace(case, volume=path, labels=labels, regions=None, masks=masks, report=None))
    return found


def test_a_network_without_a_base_is_served_once_there_are_examples(many, tmp_path, monkeypatch):
    network = made(config(), 3)
    cases = lesions_of([case for case in cases_of(many) if case.split == "validation"])
    monkeypatch.setattr(calibrating, "read", Oracle(cases, config()))
    found = calibrating.calibrate(network, cases, None, CPU)
    assert not any("cannot be used" in note for note in found.notes)
    model = served_models.model(tmp_path / "model", network, **found.parameters)
    served = serve(model, Device())
    assert [rule.label for rule in served.rules] == [*LESIONS, "cardiomegaly"], "of the others nothing is known"
    assert all(outline.threshold <= 0.3 for outline in served.outlines), "a chance of one third is drawn"
    large = next(rule for rule in served.rules if rule.label == "cardiomegaly")
    assert large.band.presence(large.probability(10.0, MaskEvidence())) is Presence.PRESENT
    assert large.band.presence(large.probability(2.0, MaskEvidence())) is Presence.ABSENT
    for rule in served.rules[:5]:
        shown = MaskEvidence(drawn_of(2e5, rule.label), -0.7)
        assert rule.band.presence(rule.probability(10.0, shown)) is Presence.PRESENT
        assert rule.band.presence(rule.probability(2.0, MaskEvidence(0.0, -6.0))) is Presence.ABSENT


def test_a_network_that_cannot_be_served_says_what_it_lacks(many, monkeypatch):
    cases = lesions_of([case for case in cases_of(many) if case.split == "validation"])
    few = cases[:8]
    monkeypatch.setattr(calibrating, "read", Oracle(few, config()))
    found = calibrating.calibrate(made(config(), 3), few, None, CPU)
    assert found.parameters == {}
    assert any("cannot be used: nothing says how to judge pericardial_effusion" in note for note in found.notes)
    unmasked = [replace(case, masks={}) for case in cases]
    monkeypatch.setattr(calibrating, "read", Oracle(unmasked, config()))
    found = calibrating.calibrate(made(config(), 3), unmasked, None, CPU)
    assert found.parameters == {}, "nobody says how to draw it"
