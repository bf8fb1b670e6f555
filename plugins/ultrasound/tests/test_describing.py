"""Bases described before they are loaded: the documented model in full size, and what a GPU without room would do."""

from __future__ import annotations

import json

import pytest

from clinic_ai.contract import Device, Limits, TrainingTask
from clinic_ai.describing import DescribeTask
from clinic_ai.errors import DatasetError, ModelError
from clinic_ai_ultrasound.costs import TrainingMemory
from clinic_ai_ultrasound.gpu_room import GpuRoom
from clinic_ai_ultrasound.laying import Room
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.trainer import UltrasoundTrainer

MIB = 1 << 20
BLIP2 = {
    "vision_config": {
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
    },
    "qformer_config": {"num_hidden_layers": 12, "cross_attention_frequency": 2, "encoder_hidden_size": 1408},
    "text_config": {
        "model_type": "opt",
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "ffn_dim": 10_240,
        "num_attention_heads": 32,
        "vocab_size": 50_304,
        "word_embed_proj_dim": 2560,
    },
    "num_query_tokens": 32,
    "image_token_index": 50_265,
}
"""What config.json of Salesforce/blip2-opt-2.7b says of sizes."""


@pytest.fixture
def full(tmp_path, tiny):
    """A function: BLIP-2 OPT-2.7B as a config.json alone, in int8 or bfloat16."""

    def make(quantisation: str):
        (tmp_path / "config.json").write_text(json.dumps(BLIP2))
        manifest = tiny.manifest.model_copy(
            update={"quantisation": quantisation, "parameters": {"family": "blip2", "dtype": "bfloat16"}}
        )
        return tiny.model_copy(update={"directory": str(tmp_path), "manifest": manifest})

    return make


def describe(model, *, gpu=0, memory=4096, base=None, **recipe):
    task = DescribeTask(model=model, base=base, recipe=recipe, limits=Limits(memory_mb=memory), gpu_memory_mb=gpu)
    return UltrasoundTrainer().describe(task)


def test_the_documented_model_has_the_documented_figures(full):
    found = describe(full("int8"))
    assert found.trained == 2_621_440
    layers = {group.name: group for group in found.groups}
    assert sum(group.size_bytes for group in found.groups) / 1e9 == pytest.approx(4.202, abs=5e-4)
    assert layers["language_model.model.decoder.layers.*"].layers == 32
    assert layers["language_model.model.decoder.layers.*"].trained == found.trained
    assert layers["vision_model.encoder.layers.*"].trained == 0
    assert sum(group.parameters for group in found.groups) == found.parameters == 3_744_761_856
    memory = found.memory
    assert (memory.gradients, memory.optimiser) == (4 * found.trained, 8 * found.trained)
    assert memory.total == memory.weights + memory.gradients + memory.optimiser + memory.activations
    assert not found.fits
    assert "may use 4096 MiB" in found.notes[-1]
    more = describe(full("int8"), rank=16, targets="q_proj,k_proj,v_proj,out_proj", batch=8)
    assert more.trained == 4 * found.trained
    assert more.memory.activations == 8 * memory.activations


def test_what_a_gpu_has_no_room_for_is_laid_aside(full):
    whole = describe(full("none"), gpu=24_000, memory=16_000)
    assert [one.where for one in whole.laid] == ["gpu"]
    assert whole.notes[-1] == "All weights fit into this GPU."
    small = describe(full("none"), gpu=5000, memory=16_000)
    sizes = {one.where: one.size_bytes for one in small.laid}
    assert set(sizes) == {"gpu", "cpu"}
    assert sizes["gpu"] < 5000 * MIB
    assert sum(sizes.values()) == sum(group.size_bytes for group in small.groups)
    assert small.fits
    assert "are laid aside and brought when needed" in small.notes[-1]
    tight = describe(full("none"), gpu=5000, memory=3000)
    assert {one.where for one in tight.laid} == {"gpu", "cpu", "disk"}
    quantised = describe(full("int8"), gpu=3000)
    assert not quantised.fits
    assert "weights of a quantised base cannot be laid aside" in quantised.notes[-1]
    assert not describe(full("none"), gpu=200, memory=16_000).fits


def test_an_adapter_is_described_over_its_base(tiny, adapters):
    assert describe(adapters["femur"], base=tiny).parameters == describe(tiny).parameters
    with pytest.raises(ModelError, match="is not in use, so it cannot be described"):
        describe(adapters["femur"])
    with pytest.raises(DatasetError, match="targets name gate_proj"):
        describe(tiny, targets="gate_proj")


def test_a_quantised_base_without_room_is_refused_in_words(tmp_path, tiny_int8):
    with pytest.raises(
        ModelError, match="does not fit into the memory of the GPU, and weights of a quantised"
    ) as caught:
        load_base(tiny_int8, Device(), Room(0, 0, tmp_path))
    assert "training.device" in caught.value.remedy


def test_less_lies_on_a_gpu_that_was_too_small_after_all(tmp_path, tiny):
    memory = TrainingMemory(600 * MIB, 20 * MIB, 40 * MIB, 140 * MIB)

    def room_on(kind, free, most=0):
        task = TrainingTask(
            run_id="R-1",
            dataset={"dataset_id": "D", "plugin": "ultrasound", "digest": "1" * 64, "examples": ()},
            base=tiny,
            run_directory=str(tmp_path),
            limits=Limits(memory_mb=4000, gpu_memory_mb=most),
            device=Device(kind=kind),
        )
        return GpuRoom(task, memory, lambda _: free * MIB)

    assert room_on("cpu", 1).room() is None
    assert not room_on("cpu", 1).shrink("none")
    assert room_on("cuda", 900).room() is None
    assert room_on("cuda", 700).room() == Room(500, 3100, tmp_path / "aside")
    assert room_on("cuda", 9000, most=700).room().gpu_mb == 500
    gpu = room_on("cuda", 900)
    assert not gpu.shrink("int8")
    assert gpu.shrink("none")
    assert gpu.room().gpu_mb == 350
    assert room_on("cuda", 900).room().gpu_mb == 350  # the next process knows
    assert not room_on("cuda", 900).shrink("none")
