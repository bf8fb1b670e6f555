"""Sizes of networks that are built without memory, on torch's meta device: by kinds of layers, and of activations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clinic_ai.describing import LayerGroup

_NUMBERED = re.compile(r"(.*?)\.(\d+)\.(.*)")
_DEPTH = 2
"""So many parts of a name tell kinds of layers apart where none of them is a number."""


def kinds_of_layers(
    named: Iterable[tuple[str, Tensor]],
    bytes_of: Callable[[str, Tensor], int],
    trained: Mapping[str, int],
) -> tuple[LayerGroup, ...]:
    """Return parameters by kinds: layers of one list, or whatever begins with the same two parts of the name.

    ``bytes_of`` is told the name and a parameter; ``trained`` has how many numbers are trained at a name.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, weights in named:
        match = _NUMBERED.fullmatch(name)
        kind = f"{match[1]}.*" if match else ".".join(name.split(".")[:_DEPTH])
        group = found.setdefault(kind, {"layers": set(), "parameters": 0, "trained": 0, "size_bytes": 0})
        group["layers"].add(match[2] if match else "")
        group["parameters"] += weights.numel()
        group["trained"] += trained.get(name, 0)
        group["size_bytes"] += bytes_of(name, weights)
    return tuple(LayerGroup(name=kind, **{**group, "layers": len(group["layers"])}) for kind, group in found.items())


def activations(network: nn.Module, *inputs: Tensor) -> int:
    """Return how many numbers a network on the meta device gives out in all its layers together, for ``inputs``."""
    counted = 0

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal counted
        counted += output.numel() if isinstance(output, Tensor) else 0

    leaves = [module for module in network.modules() if not any(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counted
