"""The two sizes of classifier and what differs between them; light, for what runs without torch too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clinic_ai.errors import DatasetError

_LOOK_BYTES = 4 * 128
"""What a view looks like, for the distance."""


@dataclass(frozen=True)
class Tier:
    """One size of classifier. Costs are of one thread and one image or view, for plans."""

    name: str
    side: int
    """Rows and columns of the network's input."""
    features: int
    """Pooled features before the head."""
    hidden: int
    """Hidden units of the head."""
    outputs: tuple[str, ...]
    """Outputs of the exported graph, in order."""
    cached: str
    """The output where the frozen part ends; training starts from it."""
    cached_shape: tuple[int, int, int]
    """Channels, rows and columns of ``cached``; pooled features are maps of one pixel."""
    kept_as: str
    """Number type of ``cached`` on disk."""
    shard: int
    """Images in one file of the cache."""
    base_flops: float
    """Floating-point operations of one forward pass of the frozen part."""
    tail_flops: float
    """Those of one forward and backward pass of what is trained."""
    tail_numbers: int
    """Numbers that are trained."""
    seconds_per_view: float
    """One forward pass of the frozen part."""
    seconds_per_row: float
    """One example in one step of training, its way from the cache included."""
    memory_mb: int
    """Resident memory of a training run, in MiB."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that one view takes on disk."""
        pooled = 0 if self.cached == "features" else self.features * 4
        return math.prod(self.cached_shape) * np.dtype(self.kept_as).itemsize + pooled + _LOOK_BYTES


FAST = Tier(
    name="fast",
    side=128,
    features=1280,
    hidden=64,
    outputs=("logit", "cam", "features", "distance"),
    cached="features",
    cached_shape=(1280, 1, 1),
    kept_as="float32",
    shard=128,
    base_flops=1.4e8,
    tail_flops=6 * 82_049,
    tail_numbers=82_049,
    seconds_per_view=0.012,
    seconds_per_row=6e-5,
    memory_mb=900,
)
INTENSIVE = Tier(
    name="intensive",
    side=224,
    features=1024,
    hidden=64,
    outputs=("logit", "cam", "features", "distance", "stem"),
    cached="stem",
    cached_shape=(896, 7, 7),
    kept_as="float16",
    shard=32,
    base_flops=5.7e9,
    tail_flops=6 * 49 * 640_000,
    tail_numbers=707_073,
    seconds_per_view=0.12,
    seconds_per_row=0.01,
    memory_mb=1500,
)
TIERS = {tier.name: tier for tier in (FAST, INTENSIVE)}


def tier_named(name: object) -> Tier:
    """Return the tier called ``name``. Raise DatasetError if there is none."""
    tier = TIERS.get(name) if isinstance(name, str) else None
    if tier is None:
        raise DatasetError(f"There is no tier {name!r}; it is {' or '.join(TIERS)}.")
    return tier
