"""What an optimiser remembers of a training, as tensors of a checkpoint."""

from __future__ import annotations

import torch

from clinic_ai.ml.checkpoints import Tensors, below

_PREFIX = "optimiser"


def moments_of(optimiser: torch.optim.Optimizer) -> Tensors:
    """Return the moments and the count of steps of each trained weight, by names of their own."""
    return {
        f"{_PREFIX}.{index}.{name}": value.cpu().numpy()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def set_moments(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Take up what ``moments_of`` gave, found among ``tensors``; without any, the optimiser begins anew."""
    saved = optimiser.state_dict()
    found = {
        index: {name: torch.tensor(value) for name, value in below(f"{_PREFIX}.{index}", tensors).items()}
        for group in saved["param_groups"]
        for index in group["params"]
    }
    saved["state"] = {index: moments for index, moments in found.items() if moments}
    optimiser.load_state_dict(saved)
