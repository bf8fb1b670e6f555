"""The language model behind the projector: tiny ones in memory, the published ones without it."""

from __future__ import annotations

import pytest
import tiny_ct
import torch

from clinic_ai.errors import ModelError
from clinic_ai_ct.configurations import CONFIGURATIONS
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.language import IGNORED, assembled, load_language, lora_numbers, loss, unloaded, with_lora, write
from clinic_ai_ct.network import made

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_ct.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize(("name", "millions"), [("A", 828), ("B", 457), ("C", 84), ("D", 4.9)])
def test_lora_trains_as_many_numbers_as_the_published_architectures_have_room_for(name, millions):
    """The description says 325, 120 and 40 million; its own ranks over these architectures give these."""
    language = CONFIGURATIONS[name].language
    model = unloaded(language)
    assert lora_numbers(model, language.rank, language.targets) / 1e6 == pytest.approx(millions, rel=0.005)
    total = sum(weights.numel() for weights in model.parameters()) / 1e9
    assert total == pytest.approx({"A": 70.55, "B": 27.23, "C": 8.03, "D": 0.1345}[name], rel=0.001)
    assert model.get_input_embeddings().embedding_dim == CONFIGURATIONS[name].network.projector.language_width


def test_peft_trains_exactly_what_is_counted(llama):
    language = load_language(llama, "none", CPU)
    counted = lora_numbers(language.model, 4)
    config = CONFIGURATIONS["D"].language.model_copy(update={"rank": 4})
    adapted = with_lora(language, config)
    assert sum(w.numel() for w in adapted.model.parameters() if w.requires_grad) == counted > 0


def test_image_prompt_and_padding_cost_nothing(llama):
    language = load_language(llama, "none", CPU)
    image = torch.randn(2, 4, language.width)
    inputs, mask, labels = assembled(language, image, ["describe", "describe the chest"], ["no effusion .", "nodule"])
    assert inputs.shape == (2, 1 + 4 + 5, language.width)
    assert torch.equal(inputs[:, 1:5], image)
    end = language.tokenizer.eos_token_id
    no, effusion, dot = language.tokenizer("no effusion .", add_special_tokens=False)["input_ids"]
    assert labels[0, 6:].tolist() == [no, effusion, dot, end]
    assert labels[1, :8].tolist() == [IGNORED] * 8
    assert mask.tolist() == [[1] * 10, [1] * 10]
    shorter = assembled(language, image, ["describe", "describe"], ["no effusion .", "nodule"])
    assert shorter[1][1].tolist() == [1] * 8 + [0] * 2
    assert shorter[2][1, 8:].tolist() == [IGNORED] * 2


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_an_image_goes_through_the_projector_into_what_is_written(llama, quantisation):
    """Alignment: projector and LoRA learn to say one report of one image, through a frozen language model."""
    torch.manual_seed(0)
    language = with_lora(load_language(llama, quantisation, CPU), CONFIGURATIONS["D"].language)
    network = made(tiny_ct.config(), seed=0).train()
    network.projector.match(language.words)
    features = Features(torch.randn(2, 32), torch.randn(2, 64, 32), (4, 4, 4))
    trained = [*network.projector.parameters(), *(w for w in language.model.parameters() if w.requires_grad)]
    optimiser = torch.optim.AdamW(trained, lr=4e-3)
    reports = ["a nodule in the right upper lobe .", "no effusion ."]
    losses = []
    for _ in range(40):
        found = loss(language, network.project(features), ["describe"] * 2, reports)
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        losses.append(found.item())
    assert losses[-1] < 0.3 * losses[0]
    if quantisation == "nf4":
        return
    network.eval()
    spoken = network.project(features)
    assert write(language, spoken[:1], "describe", longest=12) == [reports[0]]
    assert write(language, spoken[1:], "describe", longest=12) == [reports[1]]
    assert len(write(language, spoken[:1], "describe", longest=4, samples=2)) == 2


def test_a_directory_without_a_language_model_is_refused(tmp_path, llama):
    with pytest.raises(ModelError, match="cannot be read"):
        load_language(tmp_path, "none", CPU)
    language = load_language(llama, "none", CPU)
    with pytest.raises(ModelError, match="no layers called"):
        with_lora(language, CONFIGURATIONS["D"].language.model_copy(update={"targets": ("c_attn",)}))
