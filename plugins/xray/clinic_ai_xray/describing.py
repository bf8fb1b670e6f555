"""A classifier by its layers, what of it trains, and the memory that takes: built anew without memory."""

from __future__ import annotations

import math

import torch

from clinic_ai.describing import DescribeTask, MemoryNeed, ModelStats
from clinic_ai.errors import ModelError
from clinic_ai.ml.sizes import activations, kinds_of_layers
from clinic_ai_xray.network import NETWORKS
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.tail import Standardisation, Tail
from clinic_ai_xray.tiers import FAST, TIERS

_INTERPRETER_MB = 700
"""Memory of Python with torch and ONNX Runtime, before any model."""
_MIB = 1 << 20


def describe(task: DescribeTask) -> ModelStats:
    """Say what ``XrayTrainer.describe`` says."""
    manifest = task.model.manifest
    tier = TIERS.get(str(manifest.parameters.get("tier", "")) or FAST.name)
    if tier is None:
        raise ModelError(
            f"Model {task.model.ref.label()} is of no tier that is trained here.",
            remedy=f"Describe a model of the tiers {', '.join(TIERS)}.",
        )
    recipe = TailRecipe.parse({"tier": tier.name, **task.recipe})
    if recipe.tier != tier.name:
        raise ModelError(
            f"Model {task.model.ref.label()} is of the tier {tier.name}, the recipe asks for {recipe.tier}.",
            remedy=f"Set the recipe's tier={tier.name}, or leave it out.",
        )
    with torch.device("meta"):
        network = NETWORKS[tier]()
    tail = Tail(tier, Standardisation.none(tier)).to("meta")
    named = [(name, weights) for name, weights in network.named_parameters()]
    trained = {name: weights.numel() for name, weights in named if name.startswith(("top.", "head."))}
    numbers = sum(trained.values())
    kept = activations(tail, torch.empty((recipe.batch, math.prod(tier.cached_shape)), device="meta"))
    parameters = sum(weights.numel() for _, weights in named)
    memory = MemoryNeed(
        weights=4 * (parameters + numbers), gradients=4 * numbers, optimiser=8 * numbers, activations=4 * kept
    )
    notes = [f"The base is frozen and runs once over each view; {100 * numbers / parameters:.3g} % of the model train."]
    if task.gpu_memory_mb:
        notes.append("It is trained on the processor, GPU or not: so small a tail would only wait for one.")
    if manifest.quantisation != "none":
        notes.append(f"It is {manifest.quantisation} and cannot be trained on; train the model that it was made of.")
    return ModelStats(
        parameters=parameters,
        trained=numbers,
        groups=kinds_of_layers(named, lambda _, weights: 4 * weights.numel(), trained),
        batch=recipe.batch,
        memory=memory,
        fits=_INTERPRETER_MB * _MIB + memory.total <= task.limits.memory_mb * _MIB,
        notes=tuple(notes),
    )
