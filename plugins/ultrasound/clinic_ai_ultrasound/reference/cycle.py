"""AdamW along one cycle: the learning rate rises, then falls to zero; for seeing and for speaking alike."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CLIP = 1.0
_TOLD = 50
"""Steps between two lines on standard error."""


@dataclass(frozen=True)
class Recipe:
    """How weights are learned; ``rate`` is the highest learning rate, reached after the share ``warm_up`` of steps."""

    epochs: int
    batch: int
    rate: float
    warm_up: float
    weight_decay: float
    seed: int


class Cycle:
    """The optimiser of some weights over a fixed number of steps."""

    def __init__(self, weights: Sequence[nn.Parameter], recipe: Recipe, per_epoch: int) -> None:
        self._weights, self._steps = list(weights), recipe.epochs * per_epoch
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, recipe.rate, self._steps, pct_start=recipe.warm_up
        )

    def step(self, loss: Tensor) -> float:
        """Take one step down the gradient of ``loss``; return its value."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, _CLIP)
        self._optimizer.step()
        self._schedule.step()
        value = loss.item()
        if self._schedule.last_epoch % _TOLD == 0:
            sys.stderr.write(f"step {self._schedule.last_epoch} of {self._steps}: {value:.3f}\n")
        return value
