"""What a base and the training of an adapter cost: memory and arithmetic, from the config alone.

The model is built without memory (on torch's meta device) and its parameters are counted by what becomes of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clinic_ai.contract import LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai_ultrasound.laying import quantised_layers
from clinic_ai_ultrasound.loading import FAMILIES, linear_layers

INTERPRETER_MB = 900
"""Memory of Python with torch and transformers, before any model."""
_MEASURED = 768
"""Side of the matrices that tell how fast this machine computes."""
_UTILISATION = 0.5
"""Of that speed, what a network gets: it also reads its weights, normalises, waits for Python."""
_LAYER_S = 2e-3
"""Seconds one layer takes beside its arithmetic, forward and back: a network of small layers waits for Python."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters of a base by what becomes of them when it is loaded, and what its parts compute.

    ``linear`` are weights of linear layers that int8 quantises, ``rows`` the rows of those, each of which has a float32
    scale then; ``qformer`` are those of Q-Former and queries, which stay float32 in a quantised base; ``rest`` all
    others: embeddings, biases, norms, what is kept out of int8. ``vision`` and ``language`` are the weights that work
    on each patch and each token; ``layers`` and ``width`` those of the language model.
    """

    linear: int
    rows: int
    qformer: int
    rest: int
    vision: int
    language: int
    layers: int
    patches: int
    image_tokens: int
    width: int
    linears: dict[str, list[tuple[int, int]]]

    @classmethod
    def of(cls, family: str, config: Any) -> Sizes:
        """Count the parameters of a config of the ``family``, a key of ``loading.FAMILIES``."""
        return cls.of_model(on_meta(family, config), config)

    @classmethod
    def of_model(cls, model: Any, config: Any) -> Sizes:
        """Count the parameters of a model of ``config``, which needs no memory; see ``on_meta``."""
        total = sum(weights.numel() for weights in model.parameters())
        qformer = sum(weights.numel() for weights in model.qformer.parameters()) + model.query_tokens.numel()
        quantised = quantised_layers(model).values()
        linear = sum(module.weight.numel() for module in quantised)
        vision, text = config.vision_config, config.text_config
        return cls(
            linear=linear,
            rows=sum(module.out_features for module in quantised),
            qformer=qformer,
            rest=total - linear - qformer,
            vision=_working(model.vision_model),
            language=_working(model.language_model),
            layers=int(text.num_hidden_layers),
            patches=(vision.image_size // vision.patch_size) ** 2 + 1,
            image_tokens=int(config.num_query_tokens),
            width=int(text.hidden_size),
            linears=linear_layers(model),
        )

    @property
    def total(self) -> int:
        """All parameters."""
        return self.linear + self.qformer + self.rest

    def weight_bytes(self, quantisation: str, dtype_bytes: int) -> int:
        """Return what the weights take in memory, the rest of a quantised base in ``dtype_bytes`` each."""
        if quantisation == "int8":
            return self.linear + 4 * self.rows + 4 * self.qformer + dtype_bytes * self.rest
        return dtype_bytes * self.total

    def lora(self, rank: int, targets: Sequence[str] = ("q_proj", "v_proj")) -> int:
        """Return how many numbers LoRA of the ``targets`` trains, the query and value projections if none are named."""
        return sum(rank * (columns + rows) for name in targets for columns, rows in self.linears[name])

    def kept_bytes(self, dtype_bytes: int) -> int:
        """Return what the features of one image take on disk."""
        return dtype_bytes * self.image_tokens * self.width

    def look_flops(self) -> float:
        """Return the operations of looking at one image; the Q-Former's are left out, they are few."""
        return 2.0 * self.vision * self.patches

    def learn_flops(self, tokens: int) -> float:
        """Return the operations of learning from one answer of ``tokens`` with the image's: forward, and back through
        activations alone, since the weights are frozen."""
        return 4.0 * self.language * (tokens + self.image_tokens)

    def training(self, quantisation: str, dtype_bytes: int, lora: int, rows: int, tokens: int) -> TrainingMemory:
        """Return what training takes; ``lora`` numbers are trained, ``rows`` of ``tokens`` go through at once."""
        # Per token and layer some 16 vectors of the width are kept, four of them four times as wide.
        kept = rows * (tokens + self.image_tokens) * self.layers * 28 * self.width * dtype_bytes
        return TrainingMemory(self.weight_bytes(quantisation, dtype_bytes) + 4 * lora, 4 * lora, 8 * lora, kept)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of training: weights (the adapter's too), gradients, moments of Adam, what is kept for the way back."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.activations


def on_meta(family: str, config: Any) -> Any:
    """Return a model of a config of the ``family``, built without memory."""
    with torch.device("meta"):
        model = FAMILIES[family].model(config)
    model.tie_weights()
    return model


def sizes_of(base: LoadedModel) -> Sizes:
    """Return the sizes of a base from its config.json. Raise ModelError if that is none of this plugin."""
    model, config = unloaded(base)
    return Sizes.of_model(model, config)


def unloaded(base: LoadedModel) -> tuple[Any, Any]:
    """Return the model of a base without its weights, and its config. Raise ModelError if it is none of this plugin."""
    family = str(base.manifest.parameters.get("family", ""))
    try:
        content = json.loads((Path(base.directory) / "config.json").read_text(encoding="utf-8"))
        config = FAMILIES[family].config(**content)
        return on_meta(family, config), config
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(
            f"The config.json of {base.ref.label()} is not one of this plugin.", remedy="Import the base again."
        ) from error


def flops_per_second(threads: int) -> float:
    """Return how many operations a second this machine's processor does for a network, by multiplying matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        one = torch.ones(_MEASURED, _MEASURED)
        one @ one
        began = time.perf_counter()
        rounds = 5
        for _ in range(rounds):
            one @ one
        seconds = time.perf_counter() - began
    finally:
        torch.set_num_threads(before)
    return _UTILISATION * rounds * 2.0 * _MEASURED**3 / seconds


def step_seconds(sizes: Sizes, tokens: int, speed: float) -> float:
    """Return about how long learning from one answer takes at ``speed`` operations a second."""
    return sizes.learn_flops(tokens) / speed + sizes.layers * _LAYER_S


def _working(part: nn.Module) -> int:
    """Return the weights of a part that every position is multiplied with; embeddings are looked up instead."""
    looked_up = sum(module.weight.numel() for module in part.modules() if isinstance(module, nn.Embedding))
    return sum(weights.numel() for weights in part.parameters()) - looked_up
