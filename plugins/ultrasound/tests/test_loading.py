"""What the loader takes as a base, and what it refuses in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_base, seal

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai_ultrasound.loading import load_base, served_dtype
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.prompts import prompt


def test_a_base_sees_the_image(loaded, picture_file):
    logits = []
    for seed in (0, 1):
        inputs = loaded.processor(picture(picture_file(seed)), prompt("Which view?"), return_tensors="pt")
        with torch.inference_mode():
            logits.append(loaded.model(**inputs).logits)
    assert (inputs["input_ids"] == loaded.model.config.image_token_id).sum() == loaded.image_tokens
    assert not torch.equal(*logits)


def config(**changes):
    """Damage: other values in config.json, of a part where the value is a dictionary."""

    def change(directory):
        path = directory / "config.json"
        content = json.loads(path.read_text())
        for key, value in changes.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
        path.write_text(json.dumps(content))

    return change


def weights(change):
    """Damage: a change of the tensors."""

    def rewrite(directory):
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def only_a_pickle(directory):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def cut_short(directory):
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


def as_it_is(directory):
    """No damage; the manifest is what is wrong."""


DAMAGE = {
    "of another class": (config(model_type="blip"), {}, "config.json is of a 'blip' model, not of 'blip-2'"),
    "an encoder of its own": (config(text_config={"model_type": "t5"}), {}, "language model is a t5"),
    "no image token": (config(image_token_index=None), {}, "no image_token_index, so it would answer without seeing"),
    "another image token": (config(image_token_index=5), {}, "would answer without seeing the image"),
    "stored quantised": (config(quantization_config={"quant_method": "bitsandbytes"}), {}, "stored quantised"),
    "a layer too many": (config(text_config={"num_hidden_layers": 1}), {}, "go beyond its config.json"),
    "a layer too few": (config(text_config={"num_hidden_layers": 3}), {}, "lack its config.json"),
    "another width": (config(text_config={"ffn_dim": 72}), {}, "do not fit its config.json"),
    "no config": (lambda d: (d / "config.json").write_text("{"), {}, "config.json cannot be read"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").write_text("{}"), {}, "tokenizer or image processor"),
    "zero queries": (weights(lambda t: t["query_tokens"].zero_()), {}, "cannot see"),
    "not a number": (weights(lambda t: t["language_projection.bias"][3:].fill_(float("nan"))), {}, "not all finite"),
    "a pickle": (only_a_pickle, {}, "weights cannot be read"),
    "cut short": (cut_short, {}, "weights cannot be read"),
    "an adapter inside": (lambda d: (d / "adapter_config.json").write_text("{}"), {}, "an adapter among its files"),
    "no family": (as_it_is, {"parameters": {"family": "llava"}}, "family is 'llava'"),
    "half precision": (as_it_is, {"parameters": {"family": "blip2", "dtype": "float16"}}, "dtype is 'float16'"),
    "another quantisation": (as_it_is, {"quantisation": "nf4"}, "quantisation is 'nf4'"),
    "another slot": (as_it_is, {"slot": "femur"}, "a base has the slot 'base'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_would_answer_wrongly_is_refused_in_words(tiny, tmp_path, damage):
    change, words, sentence = DAMAGE[damage]
    directory = tmp_path / "base"
    shutil.copytree(tiny.directory, directory)
    change(directory)
    manifest = tiny.manifest.model_dump(exclude={"files", "plugin", "format", "licence", "source", "intended_use"})
    with pytest.raises(ModelError, match=sentence) as caught:
        load_base(seal(directory, **manifest | words), Device())
    assert caught.value.remedy


def test_a_missing_file_is_named(tiny, tmp_path):
    shutil.copytree(tiny.directory, tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"its file tokenizer\.json is missing"):
        load_base(LoadedModel(ref=tiny.ref, directory=str(tmp_path / "base"), manifest=tiny.manifest), Device())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tiny):
    with pytest.raises(ModelError, match="GPU 0 is not there"):
        load_base(tiny, Device(kind="cuda"))


def test_a_tokenizer_saved_by_the_processor_can_be_loaded_again(loaded, tmp_path):
    """It knows the image token already, which the processor of transformers does not expect."""
    base = make_base(tmp_path / "base")
    loaded.processor.save_pretrained(tmp_path / "base")
    again = load_base(LoadedModel(ref=base.ref, directory=base.directory, manifest=base.manifest), Device())
    text = prompt("Which view?")
    assert again.tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]


def test_an_int8_base_keeps_no_file_of_floats_in_memory(tiny_int8):
    base = load_base(tiny_int8, Device())
    assert base.model.language_model.model.decoder.layers[0].fc1.weight.dtype is torch.int8
    assert tiny_int8.directory not in Path("/proc/self/maps").read_text()


def test_bfloat16_is_served_only_where_the_processor_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert served_dtype("bfloat16", cpu) is dtype
        assert served_dtype("float32", cpu) is torch.float32
