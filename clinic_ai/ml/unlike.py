"""How far an image or volume lies from those a network was trained on, by what its encoder makes of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinic_ai.contract import LoadedModel
from clinic_ai.errors import ModelError

STATISTICS = "feature_stats.safetensors"
"""File of a model: ``mean`` (E) and ``factor`` (E, k) of what its encoder made of the images of training."""
LIMIT = "feature_limit"
"""Parameter of a model: the largest ‖(features - mean) · factor‖ that is still like those images."""
_ACCEPTED = 0.99


@dataclass(frozen=True)
class Unlike:
    """The distance of Mahalanobis (1936) from the images of training; see ``LIMIT``."""

    mean: Tensor
    factor: Tensor
    limit: float

    @classmethod
    def of(cls, model: LoadedModel, width: int) -> Unlike | None:
        """Return that of a model whose features are ``width`` wide, None if it has none.

        Raise ModelError if its statistics are not what they should be.
        """
        limit = model.manifest.parameters.get(LIMIT)
        if limit is None:
            return None
        try:
            tensors = load_file(Path(model.directory) / STATISTICS)
            mean, factor = tensors["mean"].float(), tensors["factor"].float()
            sound = mean.shape == (width,) and factor.ndim == 2 and factor.shape[0] == width
            sound = sound and bool(torch.isfinite(mean).all() and torch.isfinite(factor).all())
        except (OSError, SafetensorError, KeyError, ValueError):
            sound = False
        if not sound or not isinstance(limit, int | float) or not math.isfinite(limit) or limit <= 0:
            raise ModelError(
                f"The model {model.ref.label()} cannot be used: its {STATISTICS} or its {LIMIT} is not usable.",
                remedy="Import the model again with `clinic-ai model import DIR`.",
            )
        return cls(mean, factor, float(limit))

    def distance(self, whole: Tensor) -> float:
        """Return how far one image lies, by its features (E)."""
        return float(((whole.detach().float().cpu() - self.mean) @ self.factor).norm())


def write_statistics(known: Tensor, apart: Tensor, directory: Path, *, ridge: float, margin: float) -> float:
    """Write mean and whitening of features ``known`` (n, E) into a model directory; return the limit.

    It is ``margin`` times the distance that 99 in 100 of ``apart`` (m, E) keep, which nothing learned from. ``ridge``
    of the mean variance is added to every one: directions in which nothing varied decide nothing alone.
    """
    known, apart = known.double(), apart.double()
    mean = known.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(known.T))
    factor = vectors / (values.clamp(min=0) + ridge * values.mean()).sqrt()
    save_file({"mean": mean.float(), "factor": factor.float().contiguous()}, directory / STATISTICS)
    return margin * float(((apart - mean) @ factor).norm(dim=1).quantile(_ACCEPTED))
