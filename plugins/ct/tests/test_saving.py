"""Networks on disk, and text encoders beside them."""

from __future__ import annotations

import json

import pytest
import tiny_ct
import torch
from safetensors.torch import load_file, save_file

from clinic_ai.errors import ModelError
from clinic_ai_ct.network import made
from clinic_ai_ct.saving import CONFIG, WEIGHTS, read_network, write_network
from clinic_ai_ct.text import load_text_encoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_ct.make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def saved(tmp_path):
    """A network with a bundled text encoder, and where it lies."""
    network = made(tiny_ct.config(), seed=3)
    write_network(network, tmp_path)
    return network.eval(), tmp_path


def with_bert(directory):
    config = tiny_ct.config()
    config = config.model_copy(update={"text": config.text.model_copy(update={"bundled": False})})
    return made(config, seed=1, texts=load_text_encoder(directory))


@torch.no_grad()
def test_what_is_read_judges_as_what_was_written(saved):
    network, directory = saved
    image, _, regions = tiny_ct.volumes()
    again = read_network(tiny_ct.seal(directory))
    assert not again.training
    for one, other in zip(
        (network.classify(network.encode(image, regions)), network.localise(network.encode(image), image)),
        (again.classify(again.encode(image, regions)), again.localise(again.encode(image), image)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_network_judges_without_the_text_encoder_it_learned_with(tmp_path, bert):
    image, _, _ = tiny_ct.volumes()
    learned = with_bert(bert).train()
    torch.nn.init.normal_(learned.classifier.prompts.soft)
    write_network(learned, tmp_path)
    again = read_network(tiny_ct.seal(tmp_path))
    assert not again.classifier.prompts.attached
    with torch.no_grad():
        expected = learned.eval().classify(learned.encode(image))
        assert torch.allclose(again.classify(again.encode(image)), expected, atol=1e-6)
    assert not any("bert" in name or "bundled" in name for name in load_file(tmp_path / WEIGHTS))


def test_soft_prompts_go_on_learning_with_their_own_text_encoder_only(tmp_path, bert):
    image, _, _ = tiny_ct.volumes()
    write_network(with_bert(bert), tmp_path)
    model = tiny_ct.seal(tmp_path)
    going_on = read_network(model, load_text_encoder(bert)).train()
    going_on.classify(going_on.encode(image)).sum().backward()
    assert going_on.classifier.prompts.soft.grad.abs().max() > 0
    assert read_network(model).train().classifier.prompts.soft.grad is None
    other = load_text_encoder(tiny_ct.make_bert(tmp_path / "other", seed=9))
    with pytest.raises(ModelError, match="not the one"):
        read_network(model, other)


def test_what_is_read_of_labels_tells_them_apart(bert):
    said = with_bert(bert).classifier.prompts.said
    assert said.abs().max() > 0
    assert torch.corrcoef(said)[0, 1] < 0.9


@pytest.mark.parametrize("harm", ["no weights", "no config", "other shapes", "not finite", "cut", "unknown key"])
def test_damaged_models_are_refused(saved, harm):
    _, directory = saved
    weights, config = directory / WEIGHTS, directory / CONFIG
    state = load_file(weights)
    if harm == "no weights":
        weights.unlink()
    elif harm == "no config":
        config.unlink()
    elif harm == "other shapes":
        save_file(state | {"classifier.bias": torch.zeros(7)}, weights)
    elif harm == "not finite":
        save_file(state | {"classifier.bias": torch.full((3,), float("nan"))}, weights)
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        said = json.loads(config.read_text())
        said["network"]["colour"] = "red"
        config.write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"tiny"):
        read_network(tiny_ct.seal(directory))


def test_models_of_other_plugins_and_directories_without_a_text_encoder_are_refused(saved, tmp_path):
    with pytest.raises(ModelError, match="no safetensors model of the plugin ct"):
        read_network(tiny_ct.seal(saved[1], plugin="xray"))
    with pytest.raises(ModelError, match="cannot be read"):
        load_text_encoder(tmp_path)
