"""Training of the X-ray head on cached features beside the plain loop that computes the frozen base in every step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.ml.checkpoints import Tensors
from clinic_ai.ml.onnx import weights
from clinic_ai_xray.cache import Activations
from clinic_ai_xray.network import Head
from clinic_ai_xray.phantom import draw_chest
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.served import ServedModel, pinned_bytes
from clinic_ai_xray.tail import Standardisation, trained_names
from clinic_ai_xray.tiers import FAST
from clinic_ai_xray.training import Labelled, TailTraining

BATCH = 64
STEPS = 50
EPOCHS = 3
_TIMED = 5
"""Steps of an epoch of the plain loop, and of the run it is compared with."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Compared:
    """CPU seconds of the runs, and the largest difference between the losses of an epoch.

    ``plain`` is extrapolated from ``timed_steps`` steps, ``features`` from the images of those.
    """

    cached: float
    plain: float
    features: float
    images: int
    """Images that ``features`` is of, each with its mirror."""
    timed_steps: int
    loss_difference: float


def compare(model: LoadedModel, folder: Path) -> Compared:
    """Train both ways; checkpoints go below ``folder``."""
    torch.set_num_threads(1)
    base = ServedModel(model, Device())
    recipe = TailRecipe(epochs=EPOCHS, batch=BATCH, patience=EPOCHS)
    images, labels = _images(BATCH * _TIMED, base.side)
    began = time.process_time()
    pairs = [base.activations(np.stack([image, image[:, ::-1]])[:, None])["features"] for image in images]
    features = np.stack(pairs)
    per_image = (time.process_time() - began) / len(images)

    initial = weights(pinned_bytes(model), trained_names(FAST))
    small = _head(features, labels, recipe, folder / "small", initial)
    history = small.run(lambda *_: None, lambda _: None, lambda: False).history
    began = time.process_time()
    losses = _plain(base, images, labels, recipe, Standardisation.of(features))
    per_step = (time.process_time() - began) / (EPOCHS * _TIMED)

    times = STEPS // _TIMED
    whole = _head(np.tile(features, (times, 1, 1)), np.tile(labels, times), recipe, folder / "whole", initial)
    assert whole.steps_per_epoch == STEPS
    began = time.process_time()
    whole.run(lambda *_: None, lambda _: None, lambda: False)
    return Compared(
        cached=time.process_time() - began,
        plain=per_step * EPOCHS * STEPS,
        features=per_image * STEPS * BATCH,
        images=STEPS * BATCH,
        timed_steps=EPOCHS * _TIMED,
        loss_difference=max(abs(entry["loss"] - loss) for entry, loss in zip(history, losses, strict=True)),
    )


def _images(count: int, side: int) -> tuple[Array, Array]:
    """Return images (count, side, side) and labels: a few phantoms, each in many contrasts and with its own noise."""
    generator = np.random.default_rng(1)
    drawn = [draw_chest(side, side, seed=seed, opacity=seed % 2 == 0) for seed in range(16)]
    images = [
        drawn[number % 16] * generator.uniform(0.8, 1.2) + generator.normal(0, 0.02, (side, side))
        for number in range(count)
    ]
    labels = np.arange(count) % 2 == 0
    return np.clip(np.stack(images), 0, 1).astype(np.float32), labels.astype(np.float32)


def _head(features: Array, labels: Array, recipe: TailRecipe, checkpoints: Path, initial: Tensors) -> TailTraining:
    train, validation = (_labelled(features[:count], labels[:count]) for count in (len(labels), BATCH))
    scale = Standardisation.of(features)
    return TailTraining(train, validation, recipe, checkpoints, "benchmark", initial, scale)


def _labelled(features: Array, labels: Array) -> Labelled:
    return Labelled(Activations([features], [(0, row) for row in range(len(labels))], features.shape[1]), labels)


def _plain(base: ServedModel, images: Array, labels: Array, recipe: TailRecipe, scale: Standardisation) -> list[float]:
    """Return the mean loss of each epoch of the loop anybody would write, in the order that ``TailTraining`` takes."""
    torch.manual_seed(recipe.seed)
    head = Head(FAST)
    optimiser = torch.optim.AdamW(head.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, foreach=False)
    targets = torch.from_numpy(labels)
    positive = float(targets.mean())
    weight = torch.tensor((1 - positive) / positive)
    mean, spread = (torch.from_numpy(values.astype(np.float32)) for values in (scale.mean, scale.spread))
    losses = []
    for epoch in range(1, recipe.epochs + 1):
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        head.train()
        order = torch.randperm(len(labels))
        total = 0.0
        for step in range(_TIMED):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            mirrored = torch.randint(0, 2, (len(chosen),)).numpy().astype(bool)
            batch = images[chosen.numpy()]
            batch[mirrored] = batch[mirrored, :, ::-1]
            pooled = (torch.from_numpy(base.activations(batch[:, None])["features"]) - mean) / spread
            loss = functional.binary_cross_entropy_with_logits(head(pooled), targets[chosen], pos_weight=weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / _TIMED)
    return losses
