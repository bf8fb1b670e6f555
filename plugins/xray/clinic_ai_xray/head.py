"""Training of the head on cached features: deterministic, resumable after any epoch, best epoch kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clinic_ai.errors import DatasetError
from clinic_ai.ml.checkpoints import Checkpoint, Tensors, newest_checkpoint, save_checkpoint
from clinic_ai.ml.metrics import auroc
from clinic_ai_xray.network import Head

Array = npt.NDArray[np.float32]

WEIGHTS = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
"""Parameters of the head; ``head.`` before them are their names in the exported graph."""


@dataclass(frozen=True)
class HeadRecipe:
    """How the head is trained. ``warm`` starts from the weights of the base's own head."""

    epochs: int = 30
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 10
    warm: bool = False
    seed: int = 1

    @classmethod
    def parse(cls, values: dict[str, float | int | str | bool]) -> HeadRecipe:
        """Return the recipe with ``values`` instead of its defaults. Raise DatasetError if one makes no sense."""
        known = asdict(cls())
        strange = sorted(set(values) - set(known) - {"condition", "slot"})
        if strange:
            raise DatasetError(f"The recipe has no key {', '.join(strange)}; it has {', '.join(known)}, condition.")
        recipe = cls(**{key: _like(known[key], key, value) for key, value in values.items() if key in known})
        if min(recipe.epochs, recipe.batch, recipe.patience) < 1 or recipe.rate <= 0:
            raise DatasetError("Epochs, batch, patience and rate of the recipe must be above zero.")
        return recipe


def _like(default: float | bool, key: str, value: float | str | bool) -> float | bool:
    """Return a value of the recipe in the type of its default. Raise DatasetError if it is of another kind."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    else:
        wanted = "a whole number" if isinstance(default, int) else "a number"
        if not isinstance(value, str | bool) and math.isfinite(value) and type(default)(value) == value:
            return type(default)(value)
    raise DatasetError(f"The recipe's {key} is {value!r}; write {wanted}, such as {key}={str(default).lower()}.")


@dataclass(frozen=True)
class Part:
    """Features (n, 2, features) of images and their mirrors, and labels (n,) of 0 and 1."""

    features: Array
    labels: Array


@dataclass(frozen=True)
class HeadState:
    """Where training stands after ``epoch``; ``best`` are the weights of the best epoch so far."""

    epoch: int
    best: Tensors
    best_epoch: int
    history: list[dict[str, float]]
    finished: bool


@dataclass(frozen=True)
class Standardisation:
    """Mean and spread of each training feature.

    The features of a frozen base are all positive and vary little; on them as they are the hidden units die. The
    head is trained on standardised ones, and the standardisation is then folded into its first layer.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    @classmethod
    def of(cls, features: Array) -> Standardisation:
        """Return that of features (n, 2, features)."""
        flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
        return cls(flat.mean(axis=0), np.sqrt(flat.var(axis=0) + 1e-4))

    def apply(self, features: Array) -> Array:
        """Return ``features`` standardised."""
        return ((features - self.mean) / self.spread).astype(np.float32)

    def fold(self, weights: Tensors) -> Tensors:
        """Return the weights that give on plain features what ``weights`` give on standardised ones."""
        hidden = weights["hidden.weight"].astype(np.float64) / self.spread
        bias = weights["hidden.bias"].astype(np.float64) - hidden @ self.mean
        return {**weights, "hidden.weight": hidden.astype(np.float32), "hidden.bias": bias.astype(np.float32)}

    def unfold(self, weights: Tensors) -> Tensors:
        """Return the opposite of ``fold``."""
        hidden = weights["hidden.weight"].astype(np.float64)
        bias = weights["hidden.bias"] + hidden @ self.mean
        scaled = (hidden * self.spread).astype(np.float32)
        return {**weights, "hidden.weight": scaled, "hidden.bias": bias.astype(np.float32)}


def logits_of(weights: Tensors, features: Array) -> Array:
    """Return the logits (n,) of features (n, features) under the weights of a head."""
    head = Head()
    head.load_state_dict({name: torch.from_numpy(weights[name]) for name in WEIGHTS})
    head.eval()
    with torch.inference_mode():
        logits: Array = head(torch.from_numpy(np.ascontiguousarray(features))).numpy()
    return logits


class HeadTraining:
    """One run over cached features. An interrupted run that goes on gives bit for bit what an unbroken one gives."""

    def __init__(
        self, train: Part, validation: Part, recipe: HeadRecipe, checkpoints: Path, fingerprint: str, initial: Tensors
    ) -> None:
        """``initial`` are the weights of the base's head. A checkpoint of another ``fingerprint`` is not resumed."""
        self._scale = Standardisation.of(train.features)
        self._features = torch.from_numpy(self._scale.apply(train.features))
        self._labels = torch.from_numpy(train.labels)
        self._validation = Part(self._scale.apply(validation.features), validation.labels)
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._fingerprint = fingerprint
        torch.manual_seed(recipe.seed)
        self._head = Head()
        if recipe.warm:
            warm = self._scale.unfold(initial)
            self._head.load_state_dict({name: torch.from_numpy(warm[name]) for name in WEIGHTS})
        self._optimiser = torch.optim.AdamW(
            self._head.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, foreach=False
        )
        self._state = HeadState(0, self._weights(), 0, [], False)
        self.resumed_from = self._resume()

    def best_weights(self) -> Tensors:
        """Return the weights of the best epoch so far, for features as the base gives them."""
        return self._scale.fold(self._state.best)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return math.ceil(len(self._labels) / self._recipe.batch)

    def run(self, report: Callable[[dict[str, float]], None], stop: Callable[[], bool]) -> HeadState:
        """Train until the last epoch, until patience ends, or until ``stop`` says so after an epoch."""
        while not self._state.finished:
            entry = self._epoch(self._state.epoch + 1)
            self._state = self._advance(entry)
            self._save()
            report(entry)
            if stop():
                break
        return self._state

    def _epoch(self, epoch: int) -> dict[str, float]:
        recipe = self._recipe
        torch.manual_seed(recipe.seed * 100_003 + epoch)  # order, mirrors and dropout follow from seed and epoch
        self._head.train()
        order = torch.randperm(len(self._labels))
        positive = float(self._labels.mean())
        weight = torch.tensor((1 - positive) / positive)
        total = 0.0
        for step in range(self.steps_per_epoch):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            mirrored = torch.randint(0, 2, (len(chosen),))
            logits = self._head(self._features[chosen, mirrored])
            loss = functional.binary_cross_entropy_with_logits(logits, self._labels[chosen], pos_weight=weight)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.item()
        score = auroc(self._validation.labels, logits_of(self._weights(), self._validation.features[:, 0]))
        return {"epoch": float(epoch), "loss": total / self.steps_per_epoch, "validation_auroc": score}

    def _advance(self, entry: dict[str, float]) -> HeadState:
        state, epoch = self._state, int(entry["epoch"])
        best_score = max((past["validation_auroc"] for past in state.history), default=-1.0)
        better = entry["validation_auroc"] > best_score
        best, best_epoch = (self._weights(), epoch) if better else (state.best, state.best_epoch)
        finished = epoch >= self._recipe.epochs or epoch - best_epoch >= self._recipe.patience
        return HeadState(epoch, best, best_epoch, [*state.history, entry], finished)

    def _weights(self) -> Tensors:
        return {name: value.detach().numpy().copy() for name, value in self._head.state_dict().items()}

    def _save(self) -> None:
        state = self._state
        tensors = {f"head.{name}": value for name, value in self._weights().items()}
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
        self._head.load_state_dict({name: torch.from_numpy(found.tensors[f"head.{name}"]) for name in WEIGHTS})
        saved = self._optimiser.state_dict()
        saved["state"] = {
            index: {
                name.rpartition(".")[2]: torch.from_numpy(value)
                for name, value in found.tensors.items()
                if name.startswith(f"optimiser.{index}.")
            }
            for index in range(len(WEIGHTS))
        }
        self._optimiser.load_state_dict(saved)
        best = {name: found.tensors[f"best.{name}"] for name in WEIGHTS}
        state = found.state
        self._state = HeadState(found.epoch, best, state["best_epoch"], state["history"], state["finished"])
        return found.epoch
