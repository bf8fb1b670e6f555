"""Where the weights of a base lie when a GPU has no room for all: the rest with the processor, or on the disk.

accelerate decides which parts go where, from the model on the meta device, and brings them when they are needed. A way
back through a network keeps the weights of every layer; so that what was laid aside does not pile up on the GPU, layers
are computed anew on the way back (activation checkpointing), each with its weights fetched once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import infer_auto_device_map
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from clinic_ai.contract import ModelManifest

_MIB = 1 << 20
Where = Literal["gpu", "cpu", "disk"]
_PLACES: dict[Any, Where] = {0: "gpu", "cpu": "cpu", "disk": "disk"}


@dataclass(frozen=True)
class Held:
    """What the weights of a base are held in: linear layers in int8 if it is quantised, Q-Former float32 then."""

    dtypes: dict[str, torch.dtype]
    sizes: dict[str, int]
    rest: torch.dtype

    @classmethod
    def of(cls, model: Any, manifest: ModelManifest) -> Held:
        """Return what a model that is not loaded would be held in."""
        rest = torch.float32 if manifest.parameters.get("dtype", "float32") == "float32" else torch.bfloat16
        named = dict(model.named_parameters())
        dtypes, rows = dict.fromkeys(named, rest), dict.fromkeys(named, 0)
        if manifest.quantisation == "int8":
            linear = quantised_layers(model)
            dtypes |= {name: torch.float32 for name in named if name.startswith(("qformer.", "query_tokens"))}
            dtypes |= {f"{name}.weight": torch.int8 for name in linear}
            rows |= {f"{name}.weight": layer.out_features for name, layer in linear.items()}
        sizes = {name: dtypes[name].itemsize * weights.numel() + 4 * rows[name] for name, weights in named.items()}
        return cls(dtypes, sizes, rest)

    @property
    def names(self) -> Iterable[str]:
        """The names of all weights."""
        return self.sizes

    def bytes_of(self, name: str) -> int:
        """Return the bytes of one weight; a row of int8 has a float32 scale."""
        return self.sizes[name]


def quantised_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that int8 quantises, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("qformer") and not name.endswith("lm_head")
    }


def places(model: Any, held: Held, room: int, memory: int) -> dict[str, Where]:
    """Return where the parts of a model on the meta device lie, by name: ``room`` bytes of a GPU, ``memory`` beside it.

    No layer is split; one of those that are brought must find room, too.
    """
    found = infer_auto_device_map(
        model,
        max_memory={0: max(0, room), "cpu": max(0, memory)},
        no_split_module_classes=sorted(model._no_split_modules or ()),
        special_dtypes=dict(held.dtypes),
    )
    return {name: _PLACES[place] for name, place in found.items()}


@dataclass(frozen=True)
class Room:
    """What a base may take: MiB of the GPU and of the processor's memory; the rest is kept in ``folder``."""

    gpu_mb: int
    memory_mb: int
    folder: Path

    def map_of(self, model: Any, manifest: ModelManifest, place: torch.device) -> dict[str, Any]:
        """Return where transformers is to put the parts of ``model``, which is on the meta device."""
        where = places(model, Held.of(model, manifest), self.gpu_mb * _MIB, self.memory_mb * _MIB)
        return {name: str(place) if one == "gpu" else one for name, one in where.items()}


def is_laid_aside(model: nn.Module) -> bool:
    """Return whether some weights of a loaded model lie elsewhere and are brought when they are needed."""
    return any(weights.is_meta for weights in model.parameters())


def bring_back(adapted: PeftModel, device: torch.device) -> None:
    """Let an adapter over a base that was partly laid aside be trained: its own weights lie on ``device``."""
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            for part in (layer.lora_A, layer.lora_B):
                if any(weights.is_meta for weights in part.parameters()):
                    part.to_empty(device=device)
            layer.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]
    model: Any = adapted.get_base_model()
    model.language_model.activation_checkpointing_enable({"use_reentrant": False})
