"""Steps of a BLIP-2 OPT-2.7B built from its config with random weights: whole on a GPU, a few layers on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import ModelRef
from clinic_ai_ultrasound.collating import Row, collate
from clinic_ai_ultrasound.fitting import add_adapter, forward
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.recipe import AdapterRecipe

VISION_LAYERS, LANGUAGE_LAYERS = 39, 32
TEXT_TOKENS, LEARNED = 30, 10
"""Tokens of question with answer, and of the answer with its end."""
_VOCABULARY, _IMAGE = 50_304, 50_265


@dataclass(frozen=True)
class Steps:
    """Seconds of one step on one answer, forward and back: looking at the image anew, and with its features kept."""

    plain: float
    cached: float


def config(vision: int = VISION_LAYERS, language: int = LANGUAGE_LAYERS) -> Blip2Config:
    """Return the config of Salesforce/blip2-opt-2.7b with so many layers of vision tower and language model."""
    return Blip2Config(
        vision_config={
            "hidden_size": 1408,
            "intermediate_size": 6144,
            "num_hidden_layers": vision,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 224,
            "qkv_bias": True,
        },
        qformer_config={
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": 1408,
            "vocab_size": 30_522,
        },
        text_config={
            "model_type": "opt",
            "hidden_size": 2560,
            "num_hidden_layers": language,
            "ffn_dim": 10_240,
            "num_attention_heads": 32,
            "vocab_size": _VOCABULARY,
            "word_embed_proj_dim": 2560,
            "max_position_embeddings": 2048,
            "dropout": 0.0,
        },
        num_query_tokens=32,
        image_token_index=_IMAGE,
    )


def measure(vision: int, language: int, device: torch.device, dtype: torch.dtype, *, batch: int, rounds: int) -> Steps:
    """Return the medians of steps on ``batch`` answers, divided by ``batch``."""
    base = _base(vision, language, device, dtype)
    add_adapter(base, AdapterRecipe(dropout=0.0))
    base.model.language_model.train()
    generator = torch.Generator().manual_seed(1)
    said = torch.randint(10, 50_000, (batch, TEXT_TOKENS), generator=generator).tolist()
    rows = [Row("", (*[_IMAGE] * 32, *words), 32 + TEXT_TOKENS - LEARNED) for words in said]
    made = collate(base, rows)
    pixels = torch.rand((batch, 3, 224, 224), generator=generator).to(device, dtype)
    with torch.no_grad():
        features = base.model.get_image_features(pixels).pooler_output

    def plain() -> None:
        base.model(
            pixel_values=pixels, input_ids=made.tokens, attention_mask=made.mask, labels=made.labels, use_cache=False
        ).loss.backward()

    def cached() -> None:
        forward(base, made, features).loss.backward()

    return Steps(*(seconds / batch for seconds in _taking_turns(device, rounds, plain, cached)))


def on_a_processor(rounds: int) -> Steps:
    """Return the seconds of a step of the whole model on the CPU in float32, from models of two and four layers.

    Layers of one part are alike, so a step is linear in their numbers: an offset with the Q-Former and the words, and a
    share for each layer.
    """
    cpu = torch.device("cpu")
    few, more_vision, more_language = (
        measure(vision, language, cpu, torch.float32, batch=1, rounds=rounds)
        for vision, language in ((2, 2), (4, 2), (2, 4))
    )
    vision, language = ((more.plain - few.plain) / 2 for more in (more_vision, more_language))
    alone = (more_language.cached - few.cached) / 2
    return Steps(
        few.plain + (VISION_LAYERS - 2) * vision + (LANGUAGE_LAYERS - 2) * language,
        few.cached + (LANGUAGE_LAYERS - 2) * alone,
    )


def _base(vision: int, language: int, device: torch.device, dtype: torch.dtype) -> Base:
    torch.manual_seed(1)
    with device:
        model: Any = Blip2ForConditionalGeneration._from_config(config(vision, language), dtype=dtype)
    model.query_tokens.data.normal_(std=0.02)
    model.requires_grad_(False)
    model.eval()
    processor: Any = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=1))
    manifest = ModelManifest(
        plugin="ultrasound", slot="base", name="full", version="1", format="safetensors", files=(),
        licence="none", source="Random numbers.", intended_use="A benchmark.",
    )  # fmt: skip
    ref = ModelRef(plugin="ultrasound", slot="base", name="full", version="1", digest="0" * 64, reference=False)
    return Base(model, processor, ref, manifest, device, dtype, "blip2")


def _taking_turns(device: torch.device, rounds: int, *sides: Callable[[], None]) -> list[float]:
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, work in enumerate(sides):
            began = _clock(device)
            work()
            if turn:  # the first round is not counted
                times[side].append(_clock(device) - began)
    return [float(np.median(values)) for values in times]


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
