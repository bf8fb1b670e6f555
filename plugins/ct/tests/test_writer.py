"""The language model that writes: whatever it writes, the report says what the evidence carries."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from chests import GRID, ball, chest, finding
from served_models import all_of
from tiny_ct import make_llama, seal

from clinic_ai.contract import Device
from clinic_ai.errors import ModelError
from clinic_ai_ct import writer as module
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.measuring import measure
from clinic_ai_ct.report import write_report
from clinic_ai_ct.served import Served
from clinic_ai_ct.writer import LANGUAGE_SLOT, Writer, prompt_of

FINDINGS = [finding("lung_nodule", 0.95), finding("pleural_effusion", 0.02)]
FEATURES = Features(torch.zeros(1, 16), torch.zeros(1, 4, 16), (1, 2, 2))


@pytest.fixture(scope="module")
def lesions() -> list[Lesion]:
    nodule = measure("lung_nodule", ball(-75, 0, 120, 12), GRID, chest())
    return [nodule, Lesion("pleural_effusion")]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Writer:
    directory = make_llama(tmp_path_factory.mktemp("language") / "llama")
    return Writer.load(seal(directory, slot=LANGUAGE_SLOT), Device())


@pytest.fixture
def served(written, tmp_path) -> Served:
    return Served(written.ref, None, tmp_path, all_of("lung_nodule"), (), (), (), None, torch.device("cpu"))


def texts(report) -> list[str]:
    return [sentence.text for sentence in report.sentences]


def test_what_a_model_that_learned_nothing_writes_is_replaced_by_the_template(written, served, lesions):
    template = write_report(FINDINGS, lesions)
    report = written.write(served, FEATURES, FINDINGS, lesions, template)
    assert report.sentences == template
    assert "template" in report.remarks[0]


def test_true_sentences_stay_and_false_ones_go(written, served, lesions, monkeypatch):
    template = write_report(FINDINGS, lesions)
    true = next(s.text for s in template if s.section == "findings" and not s.normal)
    monkeypatch.setattr(module, "write", lambda *_, **__: [f"FINDINGS: {true} There is a large pneumothorax."])
    report = written.write(served, FEATURES, FINDINGS, lesions, template)
    assert true in texts(report)
    assert not any("pneumothorax" in text for text in texts(report))
    assert any("effusion" in s.text and s.normal for s in report.sentences), "what it left out is completed"
    assert report.remarks[1].startswith("1 of its sentences was left out")


def test_the_prompt_tells_where_masks_are(lesions):
    assert prompt_of(lesions).startswith("[FINDING] Lung nodule detected in right middle region\n")


def test_a_network_for_another_width_and_an_adapter_without_weights_are_refused(written, served, lesions, tmp_path):
    served.network.config = served.network.config.model_copy(
        update={"projector": served.network.config.projector.model_copy(update={"language_width": 99})}
    )
    with pytest.raises(ModelError, match="width 99"):
        written.write(served, FEATURES, FINDINGS, lesions, ())
    (tmp_path / "adapter_config.json").write_text("{}")
    other = written.ref.model_copy(update={"digest": hashlib.sha256(b"other").hexdigest()})
    stranger = Served(other, None, Path(tmp_path), served.network, (), (), (), None, served.device)
    with pytest.raises(ModelError, match="does not fit the language model"):
        written.write(stranger, FEATURES, FINDINGS, lesions, ())
