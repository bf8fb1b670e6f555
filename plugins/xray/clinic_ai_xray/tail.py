"""What is not frozen of a network, on cached activations: its top and its head, in the fast tier the head alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clinic_ai.ml.checkpoints import Tensors
from clinic_ai_xray.cache import Activations
from clinic_ai_xray.network import NETWORKS, Head
from clinic_ai_xray.tiers import Tier

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Standardisation:
    """Mean and spread of each pooled training feature.

    The features of a frozen base are all positive and vary little; on them as they are the hidden units die. The
    head is trained on standardised ones, and the standardisation is then folded into its first layer.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    @classmethod
    def of(cls, pooled: Array) -> Standardisation:
        """Return that of features (n, views, features)."""
        flat = pooled.reshape(-1, pooled.shape[-1]).astype(np.float64)
        return cls(flat.mean(axis=0), np.sqrt(flat.var(axis=0) + 1e-4))

    @classmethod
    def none(cls, tier: Tier) -> Standardisation:
        """Return the one that changes nothing."""
        return cls(np.zeros(tier.features), np.ones(tier.features))

    def fold(self, weights: Tensors) -> Tensors:
        """Return the weights that give on plain features what ``weights`` give on standardised ones."""
        hidden = weights["head.hidden.weight"].astype(np.float64) / self.spread
        bias = weights["head.hidden.bias"].astype(np.float64) - hidden @ self.mean
        return {**weights, "head.hidden.weight": hidden.astype(np.float32), "head.hidden.bias": bias.astype(np.float32)}

    def unfold(self, weights: Tensors) -> Tensors:
        """Return the opposite of ``fold``."""
        hidden = weights["head.hidden.weight"].astype(np.float64)
        bias = weights["head.hidden.bias"] + hidden @ self.mean
        scaled = (hidden * self.spread).astype(np.float32)
        return {**weights, "head.hidden.weight": scaled, "head.hidden.bias": bias.astype(np.float32)}


class Tail(nn.Module):
    """From cached activations to logits; its parameters are called as in the exported graph."""

    def __init__(self, tier: Tier, scale: Standardisation) -> None:
        super().__init__()
        self.head = Head(tier)
        self.top = NETWORKS[tier].make_top()
        self._shape = tier.cached_shape
        for name, values in (("mean", scale.mean), ("spread", scale.spread)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    @classmethod
    def of(cls, tier: Tier, weights: Tensors) -> Tail:
        """Return the tail with the weights of an exported graph, to judge with."""
        tail = cls(tier, Standardisation.none(tier))
        tail.load(weights)
        return tail.eval()

    def load(self, weights: Tensors) -> None:
        """Take ``weights`` by their names; those it does not name stay."""
        self.load_state_dict({**self.state_dict(), **{name: torch.tensor(weights[name]) for name in weights}})

    def weights(self) -> Tensors:
        """Return a copy of all weights and running statistics."""
        # How many batches a norm has seen is of no use: its momentum is fixed.
        state = {name: value for name, value in self.state_dict().items() if value.is_floating_point()}
        return {name: value.detach().numpy().copy() for name, value in state.items()}

    def pooled(self, cached: Tensor) -> Tensor:
        """Return the pooled features (n, features) of cached activations (n, …)."""
        maps: Tensor = self.top(cached.reshape(len(cached), *self._shape))
        return maps.mean(dim=(2, 3))

    def forward(self, cached: Tensor) -> Tensor:
        """Return the logits (n,) of cached activations (n, …)."""
        standard = (self.pooled(cached) - self.get_buffer("mean")) / self.get_buffer("spread")
        logits: Tensor = self.head(standard)
        return logits

    def judge(self, cached: Activations, *, view: int = 0) -> Array:
        """Return the logits (n,) of one view of all images."""
        return self._through(self, cached, view)

    def judge_pooled(self, pooled: Array) -> Array:
        """Return the logits (n,) of pooled features (n, features) as the graph has them."""
        with torch.inference_mode():
            logits: Array = self.head(torch.from_numpy(np.ascontiguousarray(pooled))).numpy()
        return logits

    def pool(self, cached: Activations) -> Array:
        """Return the pooled features (n, 1 or 2, features) of all images and, where it is there, of their mirrors."""
        views = range(min(cached.views, 2))
        return np.stack([self._through(self.pooled, cached, view) for view in views], axis=1)

    def _through(self, step: Callable[[Tensor], Tensor], cached: Activations, view: int) -> Array:
        self.eval()
        with torch.inference_mode():
            found: Array = torch.cat([step(batch) for batch in cached.view(view)]).numpy()
        return found


def trained_names(tier: Tier) -> tuple[str, ...]:
    """Return the names, in the exported graph, of the weights that training changes."""
    return tuple(Tail(tier, Standardisation.none(tier)).weights())
