"""What learning costs: arithmetic and memory, counted on the network without its memory (torch's meta device)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.training.phases import LORA, Phase
from clinic_ai_ct.training.recipe import CTRecipe

INTERPRETER_MB = 900
"""Memory of Python with torch, MONAI and transformers, before any network."""
_MIB = 1 << 20
_LEARNT = 3
"""Learning takes three times the arithmetic of judging: forward, and back to features and to weights."""
_ADAPTED = 2
"""Frozen weights need only the way back to features."""
_NUMBERS = 4
"""Of each number that learns: itself, its gradient, two moments."""
_WORDS = 320
"""Of a prompt with its report, as a language model counts."""
_UNMEASURED = 1.3
"""What the allocator holds beyond what is kept for the way back."""


@dataclass(frozen=True)
class Costs:
    """Of one volume: ``flops`` of each part going forward, and bytes it keeps for the way back; of the weights, how
    many numbers each part has."""

    flops: dict[str, float]
    kept: dict[str, int]
    numbers: dict[str, int]


@lru_cache(maxsize=4)
def costs_of(config: NetworkConfig) -> Costs:
    """Count what each part of a network computes and keeps."""
    with torch.device("cpu" if config.text.bundled else "meta"):
        network = CTNetwork(config)
    network = network.to("meta").train()
    network.classifier.prompts.share(None)
    image = torch.empty(1, config.encoder.channels, *config.encoder.volume, device="meta")
    flops, kept = {}, {}
    sides = zip(config.encoder.volume, config.localiser.tile, config.encoder.patch, strict=True)
    tile = [min(whole, part) for whole, part, _ in sides]
    with _Counted() as counted:
        features = network.encode(image)
    flops["encoder"], kept["encoder"] = counted.flops, counted.kept
    with _Counted() as counted:
        refined = network.refine(features)
        coarse = [side // part for side, part in zip(tile, config.encoder.patch, strict=True)]
        network.segment(
            refined[:, :, : coarse[0], : coarse[1], : coarse[2]], image[:, :, : tile[0], : tile[1], : tile[2]]
        )
    flops["localiser"], kept["localiser"] = counted.flops, counted.kept
    with _Counted() as counted, torch.no_grad():
        network.classify(features)
    flops["classifier"], kept["classifier"] = counted.flops, 0
    with _Counted() as counted:
        network.project(features)
    flops["projector"], kept["projector"] = counted.flops, counted.kept
    parts = ("encoder", "classifier", "localiser", "projector")
    numbers = {part: sum(w.numel() for w in getattr(network, part).parameters()) for part in parts}
    return Costs(flops, kept, numbers)


class _Counted:
    """Counts operations, and the bytes of what autograd keeps, each storage once."""

    def __init__(self) -> None:
        self._counter = FlopCounterMode(display=False)
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._both = ExitStack()
        self._storages: dict[int, int] = {}

    def __enter__(self) -> _Counted:
        self._both.enter_context(self._hooks)
        self._both.enter_context(self._counter)
        return self

    def __exit__(self, *_: object) -> None:
        self._both.close()

    @property
    def flops(self) -> float:
        return float(self._counter.get_total_flops())

    @property
    def kept(self) -> int:
        return sum(self._storages.values())

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            self._storages[storage._cdata] = storage.nbytes()
        return tensor


def case_flops(phase: Phase, recipe: CTRecipe, costs: Costs, language_bytes: int) -> float:
    """Return the operations of learning from one case, without looking at it where its features are kept."""
    speech = _ADAPTED * 2.0 * language_bytes / 2 * _WORDS if LORA in recipe.rates_of(phase) else 0.0
    match phase.name:
        case "encoder":
            return _LEARNT * costs.flops["encoder"]
        case "classification":
            return _LEARNT * costs.flops["classifier"]
        case "localisation":
            return _LEARNT * costs.flops["localiser"]
        case "alignment":
            return _LEARNT * costs.flops["projector"] + speech
        case "grpo":
            # Each token drawn is one more way through all weights; then each report is learned from.
            return costs.flops["projector"] + 2 * recipe.samples * speech
        case _:
            return _LEARNT * sum(costs.flops.values()) + speech


def memory_mb(phase: Phase, recipe: CTRecipe, costs: Costs, language_bytes: int) -> int:
    """Return about how much memory a phase takes."""
    parts = {
        "encoder": ("encoder",),
        "classification": ("classifier",),
        "localisation": ("localiser",),
        "alignment": ("projector",),
        "grpo": (),
    }.get(phase.name, tuple(costs.kept))
    kept = recipe.batch * sum(costs.kept[part] for part in parts)
    # A frozen encoder looks once at each volume; of that no more is held at a time than one layer.
    look = 0 if "encoder" in parts else costs.kept["encoder"]
    weights = 4 * sum(costs.numbers.values())
    learnt = 4 * (_NUMBERS - 1) * sum(costs.numbers[part] for part in parts)
    speech = language_bytes if LORA in recipe.rates_of(phase) else 0
    return INTERPRETER_MB + int((_UNMEASURED * (kept + look) + weights + learnt + speech) / _MIB)


def language_bytes(recipe: CTRecipe) -> int:
    """Return what the weights of the recipe's language model take on disk; 0 without one."""
    return sum(path.stat().st_size for path in Path(recipe.language).glob("*.safetensors")) if recipe.language else 0
