"""Training of a whole network, from scratch or from where another training ended, for the reference models.

What is validated and kept is the moving average of the weights (Polyak and Juditsky, 1992): it changes slowly, so that
choosing the epoch by a small validation part flatters less than with the weights of single steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clinic_ai.ml.metrics import auroc
from clinic_ai_xray.network import NETWORKS, Network
from clinic_ai_xray.tiers import FAST, tier_named

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the augmentation is in fractions of the image and degrees."""

    tier: str = FAST.name
    side: int = FAST.side
    """Rows and columns of the images it is trained on, which may be smaller than those it is for."""
    epochs: int = 50
    batch: int = 32
    rate: float = 4e-3
    warm_up: float = 0.25
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.05
    rotation: float = 8.0
    shift: float = 0.06
    zoom: float = 0.1
    contrast: float = 0.15
    average: float = 0.99
    """Share of the moving average that a step leaves as it is."""
    seed: int = 20170


class Predicted(NamedTuple):
    """Logits (n,), class activation maps (n, rows, columns) and pooled features (n, features)."""

    logits: Images
    maps: Images
    pooled: Images


@dataclass(frozen=True)
class Fitted:
    """The network as it was after its best epoch, and the validation AUROC of every epoch."""

    network: Network
    best_epoch: int
    history: list[dict[str, float]]

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        half = path.with_suffix(".half")
        notes = {"best_epoch": str(self.best_epoch), "history": json.dumps(self.history)}
        save_file(self.network.state_dict(), half, metadata=notes)
        half.replace(path)

    @classmethod
    def load(cls, path: Path, tier: str) -> Fitted:
        """Read what ``save`` wrote."""
        network = NETWORKS[tier_named(tier)]()
        with safe_open(path, "pt") as saved:
            network.load_state_dict({name: saved.get_tensor(name) for name in saved.keys()})  # noqa: SIM118 - no mapping
            notes = saved.metadata()
        return cls(network.eval(), int(notes["best_epoch"]), json.loads(notes["history"]))


def fit(
    train: tuple[Images, Labels],
    validation: tuple[Images, Labels],
    recipe: Recipe,
    report: Callable[[dict[str, float]], None],
    start: Network | None = None,
) -> Fitted:
    """Train from scratch or from ``start``, keep the best epoch by validation AUROC.

    Images are (n, 1, side, side) in 0..1, of the tier's side; they are made as small as the recipe says.
    """
    torch.manual_seed(recipe.seed)
    network = NETWORKS[tier_named(recipe.tier)]()
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(recipe.seed)
    images, seen = (smaller(part[0], recipe.side) for part in (train, validation))
    labels = torch.from_numpy(train[1]).float()
    steps = len(images) // recipe.batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.rate, total_steps=steps * recipe.epochs, pct_start=recipe.warm_up
    )
    positive = float(labels.mean())
    weight = torch.tensor((1 - positive) / positive)
    best: tuple[float, int, dict[str, Tensor]] = (-math.inf, 0, {})
    history: list[dict[str, float]] = []
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)  # type: ignore[no-untyped-call]
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = augment(images[chosen], recipe, generator).contiguous(memory_format=torch.channels_last)
            maps = network.features(batch)
            loss = functional.binary_cross_entropy_with_logits(
                network.head(maps.mean(dim=(2, 3))), labels[chosen], pos_weight=weight
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            total += loss.item()
        score = auroc(validation[1], predict(averaged.module, seen.numpy()).logits)
        entry = {"epoch": epoch, "loss": total / steps, "validation_auroc": score}
        history.append(entry)
        report(entry)
        if score > best[0]:
            best = score, epoch, {name: value.clone() for name, value in averaged.module.state_dict().items()}
    network.load_state_dict(best[2])
    return Fitted(network.to(memory_format=torch.contiguous_format).eval(), best[1], history)


def smaller(images: Images, side: int) -> Tensor:
    """Return images (n, 1, any, any) as means over areas, (n, 1, side, side)."""
    return functional.adaptive_avg_pool2d(torch.from_numpy(images), side)


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return ``images`` each mirrored, turned, shifted, zoomed and given another contrast by chance."""
    count = len(images)

    def spread(size: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * size

    angle = spread(math.radians(recipe.rotation))
    scale = 1 + spread(recipe.zoom)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    rows = torch.stack([mirror * torch.cos(angle) * scale, -torch.sin(angle) * scale, spread(2 * recipe.shift)], dim=1)
    columns = torch.stack(
        [mirror * torch.sin(angle) * scale, torch.cos(angle) * scale, spread(2 * recipe.shift)], dim=1
    )
    grid = functional.affine_grid(torch.stack([rows, columns], dim=1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    gain, offset = 1 + spread(recipe.contrast), spread(recipe.contrast / 2)
    return ((moved - 0.5) * gain[:, None, None, None] + 0.5 + offset[:, None, None, None]).clamp(0, 1)


def predict(network: nn.Module, images: Images, *, batch: int = 32) -> Predicted:
    """Return what the network says of images (n, 1, side, side)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(images[at : at + batch]))[:3] for at in range(0, len(images), batch)]
    logits, maps, pooled = (torch.cat([part[output] for part in parts]).numpy() for output in range(3))
    return Predicted(logits, maps, pooled)
