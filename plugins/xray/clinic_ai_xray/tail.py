"""Training of what is not frozen, on cached activations: deterministic, resumable after any epoch, best epoch kept.

The tail is the top of the network and its head; in the fast tier the head alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinic_ai.errors import DatasetError
from clinic_ai.ml.checkpoints import Checkpoint, Tensors, newest_checkpoint, save_checkpoint
from clinic_ai.ml.metrics import auroc
from clinic_ai.ml.recipes import chosen
from clinic_ai_xray.cache import Activations
from clinic_ai_xray.network import NETWORKS, Head
from clinic_ai_xray.tiers import FAST, INTENSIVE, Tier, tier_named

Array = npt.NDArray[np.float32]

METRIC, METRIC_NAME = "validation_auroc", "validation AUROC"
"""What the best epoch is chosen by: its key in the history, and its name for people."""
ERRORS = (0.01, 0.4)
"""Error rates that a recipe may ask for."""
SEEDS = 2**32
"""The seed of a recipe is below this: seeds of epochs, made of it, fit into 64 bits."""


@dataclass(frozen=True)
class TailRecipe:
    """How the tail is trained. ``warm`` starts from the weights of the base's own head.

    ``views`` of each training image are kept: itself, its mirror, and others changed by chance. ``error`` is the share
    of images of either class that may be called the other one; beyond it the model abstains.
    """

    tier: str = FAST.name
    epochs: int = 30
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 10
    views: int = 2
    warm: bool = False
    seed: int = 1
    error: float = 0.1

    @classmethod
    def parse(cls, values: dict[str, float | int | str | bool]) -> TailRecipe:
        """Return the recipe with ``values`` for its tier's defaults. Raise DatasetError if one makes no sense."""
        known = asdict(DEFAULTS[tier_named(values.get("tier", FAST.name))])
        recipe = cls(**{**known, **chosen(values, known, also=("condition", "slot"))})
        if min(recipe.epochs, recipe.batch, recipe.patience, recipe.views) < 1 or recipe.rate <= 0:
            raise DatasetError("Epochs, batch, patience, views and rate of the recipe must be above zero.")
        if recipe.weight_decay < 0 or not 0 <= recipe.seed < SEEDS:
            raise DatasetError(f"The recipe's weight_decay is at least 0, its seed from 0 to {SEEDS - 1}.")
        low, high = ERRORS
        if not low <= recipe.error <= high:
            raise DatasetError(f"The recipe's error is {recipe.error:g}; it is a share from {low:g} to {high:g}.")
        return recipe


DEFAULTS = {
    FAST: TailRecipe(),
    INTENSIVE: TailRecipe(tier=INTENSIVE.name, epochs=20, batch=32, rate=5e-4, patience=6, views=4),
}


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


class Labelled(NamedTuple):
    """Activations of images, and their labels (n,) of 0 and 1."""

    activations: Activations
    labels: Array


@dataclass(frozen=True)
class TailState:
    """Where training stands after ``epoch``; ``best`` are the weights of the best epoch so far."""

    epoch: int
    best: Tensors
    best_epoch: int
    history: list[dict[str, float]]
    finished: bool


class TailTraining:
    """One run over cached activations. Interrupted and resumed, it gives bit for bit what an unbroken one gives."""

    def __init__(
        self,
        train: Labelled,
        validation: Labelled,
        recipe: TailRecipe,
        checkpoints: Path,
        fingerprint: str,
        initial: Tensors,
        scale: Standardisation,
    ) -> None:
        """``initial`` are the base's own weights. A checkpoint of another ``fingerprint`` is not resumed."""
        self._train, self._validation = train, validation
        self._labels = torch.from_numpy(train.labels)
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._fingerprint = fingerprint
        self._scale = scale
        torch.manual_seed(recipe.seed)
        self._tail = Tail(tier_named(recipe.tier), scale)
        kept = scale.unfold(initial)
        self._tail.load({name: kept[name] for name in kept if recipe.warm or not name.startswith("head.")})
        self._optimiser = torch.optim.AdamW(
            self._tail.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, foreach=False
        )
        self._state = TailState(0, self._tail.weights(), 0, [], False)
        self.resumed_from = self._resume()

    def best_weights(self) -> Tensors:
        """Return the weights of the best epoch so far, as the graph of the base takes them."""
        return self._scale.fold(self._state.best)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return math.ceil(len(self._labels) / self._recipe.batch)

    def run(self, report: Callable[[dict[str, float]], None], stop: Callable[[], bool]) -> TailState:
        """Train until the last epoch, until patience ends, or until ``stop`` says so.

        An epoch that is stopped in its middle counts as not begun; this object cannot go on then, a new one can.
        """
        while not self._state.finished:
            entry = self._epoch(self._state.epoch + 1, stop)
            if entry is None:
                break
            self._state = self._advance(entry)
            self._save()
            report(entry)
            if stop():
                break
        return self._state

    def _epoch(self, epoch: int, stop: Callable[[], bool]) -> dict[str, float] | None:
        recipe = self._recipe
        torch.manual_seed(recipe.seed * 100_003 + epoch)  # order, views and dropout follow from seed and epoch
        self._tail.train()
        order = torch.randperm(len(self._labels))
        positive = float(self._labels.mean())
        weight = torch.tensor((1 - positive) / positive)
        total = 0.0
        for step in range(self.steps_per_epoch):
            if stop():
                return None
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            views = torch.randint(0, recipe.views, (len(chosen),))
            logits = self._tail(self._train.activations.take(chosen, views))
            loss = functional.binary_cross_entropy_with_logits(logits, self._labels[chosen], pos_weight=weight)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.item()
        score = auroc(self._validation.labels, self._tail.judge(self._validation.activations))
        return {"epoch": float(epoch), "loss": total / self.steps_per_epoch, METRIC: score}

    def _advance(self, entry: dict[str, float]) -> TailState:
        state, epoch = self._state, int(entry["epoch"])
        best_score = max((past[METRIC] for past in state.history), default=-1.0)
        better = entry[METRIC] > best_score
        best, best_epoch = (self._tail.weights(), epoch) if better else (state.best, state.best_epoch)
        finished = epoch >= self._recipe.epochs or epoch - best_epoch >= self._recipe.patience
        return TailState(epoch, best, best_epoch, [*state.history, entry], finished)

    def _save(self) -> None:
        state = self._state
        tensors = {f"now.{name}": value for name, value in self._tail.weights().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value.numpy() for name, value in moments.items()}
        plain: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "best_epoch": state.best_epoch,
            "history": state.history,
            "finished": state.finished,
        }
        save_checkpoint(self._checkpoints, Checkpoint(state.epoch, tensors, plain))

    def _resume(self) -> int:
        """Take up the newest whole checkpoint of the same run; return its epoch, 0 if there is none."""
        found = newest_checkpoint(self._checkpoints)
        if found is None or found.state["fingerprint"] != self._fingerprint:
            return 0
        self._tail.load(_below("now", found.tensors))
        saved = self._optimiser.state_dict()
        saved["state"] = {
            index: {
                name: torch.from_numpy(value) for name, value in _below(f"optimiser.{index}", found.tensors).items()
            }
            for index, _ in enumerate(self._tail.parameters())
        }
        self._optimiser.load_state_dict(saved)
        state = found.state
        best = _below("best", found.tensors)
        self._state = TailState(found.epoch, best, state["best_epoch"], state["history"], state["finished"])
        return found.epoch


def _below(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with ``prefix`` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
