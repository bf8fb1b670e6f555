"""Training of the tail on cached activations: deterministic, resumable at any step, the best epoch kept.

Interrupted and resumed it gives bit for bit what an unbroken run gives: the order of an epoch follows from its seed,
and a checkpoint keeps where the generator stood. If it was asked to stop it goes on at the step it was at; if it died,
from the last checkpoint, which is written after each epoch and in long ones every minute.

Where memory does not suffice a step is computed in portions, and learns from the same images. In the intensive tier
that changes one thing: batch norm takes its statistics from a portion, not from the step (ghost batch normalisation).
The running statistics, which the exported model uses, move as far in a step as they would have. Of fewer than
``FEWEST_NORMED`` images no statistics are taken: such portions are normed by the running ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinic_ai.ml.checkpoints import Checkpoint, Checkpoints, Tensors, below
from clinic_ai.ml.metrics import auroc
from clinic_ai.ml.optimisers import moments_of, set_moments
from clinic_ai.ml.precision import Computing
from clinic_ai.ml.rescue import NotFinite, Rescue, require_finite
from clinic_ai_xray.cache import Activations
from clinic_ai_xray.recipe import TailRecipe
from clinic_ai_xray.tail import Array, Standardisation, Tail
from clinic_ai_xray.tiers import tier_named

METRIC, METRIC_NAME = "validation_auroc", "validation AUROC"
"""What the best epoch is chosen by: its key in the history, and its name for people."""
FEWEST_NORMED = 4
"""Images of a portion that batch norm takes statistics of; see above."""
_SAVED_EVERY_S = 60.0


class Labelled(NamedTuple):
    """Activations of images, and their labels (n,) of 0 and 1."""

    activations: Activations
    labels: Array


@dataclass(frozen=True)
class TailState:
    """Where training stands: ``step`` steps into the epoch after ``epoch``, whose losses so far sum up to ``total``.

    ``best`` are the weights of the best epoch so far; ``random`` is where torch's generator stands within an epoch.
    """

    epoch: int
    best: Tensors
    best_epoch: int
    history: list[dict[str, float]]
    finished: bool
    step: int = 0
    total: float = 0.0
    random: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))


class TailTraining:
    """One run over cached activations."""

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
        """``initial`` are the base's own weights. A checkpoint of another ``fingerprint`` is not resumed.

        Raise DatasetError if the recipe's precision does not work on this processor.
        """
        self._train, self._validation = train, validation
        self._labels = torch.from_numpy(train.labels)
        positive = float(self._labels.mean())
        self._weight = torch.tensor((1 - positive) / positive)
        self._recipe = recipe
        self._checkpoints = Checkpoints(checkpoints, fingerprint, recipe.keep)
        self._scale = scale
        self._computing = Computing(recipe.precision, torch.device("cpu"))
        self.rescue = Rescue(recipe.batch, "image")
        self.rows_learned = 0
        """Images that this process has learned from, counted anew in each epoch."""
        torch.manual_seed(recipe.seed)
        self._tail = Tail(tier_named(recipe.tier), scale)
        kept = scale.unfold(initial)
        self._tail.load({name: kept[name] for name in kept if recipe.warm or not name.startswith("head.")})
        self._norms = [(part, part.momentum) for part in self._tail.modules() if isinstance(part, nn.BatchNorm2d)]
        self._optimiser = torch.optim.AdamW(
            self._tail.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, foreach=False
        )
        self._saved: tuple[int, int] | None = None
        """Epoch and step of the newest checkpoint."""
        self._state = self._initial = TailState(0, self._tail.weights(), 0, [], False)
        self._restore()

    def best_weights(self) -> Tensors:
        """Return the weights of the best epoch so far, as the graph of the base takes them."""
        return self._scale.fold(self._state.best)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return math.ceil(len(self._labels) / self._recipe.effective_batch)

    @property
    def state(self) -> TailState:
        """Where it stands."""
        return self._state

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong and was helped, for people."""
        return (*self._checkpoints.notes, *self.rescue.notes)

    def run(
        self,
        report_step: Callable[[int, int, float], None],
        report_epoch: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
    ) -> TailState:
        """Train until the last epoch, until patience ends, or until ``stop`` says so, which is asked before every step.

        ``report_step`` is told epoch, step and loss, ``report_epoch`` the entry of the history. Raise ModelError if the
        loss stays without a finite value or memory does not suffice for one image at a time, HomeError if the disk is
        full.
        """
        while not self._state.finished:
            entry = self.rescue.attempt(lambda: self._epoch(report_step, stop), self._go_back)
            if entry is None:
                break
            report_epoch(entry)
        return self._state

    # ------------------------------------------------------------ one epoch

    def _epoch(self, report: Callable[[int, int, float], None], stop: Callable[[], bool]) -> dict[str, float] | None:
        """Return the entry of the history; None if it was stopped before its end, which is in a checkpoint then."""
        epoch, recipe = self._state.epoch + 1, self._recipe
        torch.manual_seed(recipe.seed * 100_003 + epoch)  # order, views and dropout follow from seed and epoch
        batches = torch.split(torch.randperm(len(self._labels)), recipe.effective_batch)
        if self._state.step:
            torch.set_rng_state(self._state.random)
        self._tail.train()
        saved_at = time.monotonic()
        for step in range(self._state.step, len(batches)):
            stopped, portion = stop(), self.rescue.portions.rows
            if stopped or time.monotonic() - saved_at > _SAVED_EVERY_S:
                self._save()
                saved_at = time.monotonic()
            if stopped:
                return None
            loss = self._step(epoch, step, batches[step])
            self._state = replace(
                self._state, step=step + 1, total=self._state.total + loss, random=torch.get_rng_state()
            )
            if self.rescue.portions.rows < portion:
                self._save()  # so that a run that dies of it does not have to learn it again
            report(epoch, step + 1, loss)
        logits = self._tail.judge(self._validation.activations)
        if not np.isfinite(logits).all():
            raise NotFinite("what it says of the validation part after the last step", epoch, len(batches))
        score = auroc(self._validation.labels, logits)
        entry = {"epoch": float(epoch), "loss": self._state.total / len(batches), METRIC: score}
        self._advance(entry)
        self._save()
        return entry

    def _step(self, epoch: int, step: int, chosen: Tensor) -> float:
        """Take one step of the optimiser over the ``chosen`` images; return the mean of their losses."""
        views = torch.randint(0, self._recipe.views, (len(chosen),))
        random = torch.get_rng_state()
        running = {name: value.clone() for name, value in self._tail.named_buffers()}

        def begin() -> None:
            torch.set_rng_state(random)
            for name, value in self._tail.named_buffers():
                value.copy_(running[name])
            self._optimiser.zero_grad()

        def work(some: range) -> Tensor:
            part = slice(some.start, some.stop)
            return self._backward(chosen[part], views[part], len(chosen))

        losses = self.rescue.portions.each(range(len(chosen)), work, begin)  # type: ignore[arg-type]
        loss = float(torch.stack(losses).sum())
        if self._computing.unscale(self._optimiser):
            require_finite(loss, self._tail.parameters(), epoch, step + 1)
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate * self.rescue.rate
        self._computing.step(self._optimiser)
        self.rows_learned += len(chosen)
        return loss

    def _backward(self, chosen: Tensor, views: Tensor, rows: int) -> Tensor:
        """Add the gradients of some of the ``rows`` of a step; return their share of its loss."""
        self._set_norms(len(chosen), rows)
        with self._computing.forward():
            logits = self._tail(self._train.activations.take(chosen, views))
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), self._labels[chosen], pos_weight=self._weight, reduction="sum"
        )
        loss = losses / rows
        self._computing.backward(loss)
        return loss.detach()

    def _set_norms(self, portion: int, rows: int) -> None:
        """Let batch norm take a ``portion`` of the ``rows`` of a step as the docstring of this module says."""
        for norm, momentum in self._norms:
            norm.train(portion == rows or portion >= FEWEST_NORMED)
            norm.momentum = momentum if portion == rows or momentum is None else 1 - (1 - momentum) ** (portion / rows)

    # ------------------------------------------------------------ checkpoints

    def _advance(self, entry: dict[str, float]) -> None:
        state, epoch, recipe = self._state, int(entry["epoch"]), self._recipe
        best_score = max((past[METRIC] for past in state.history), default=-1.0)
        better = entry[METRIC] > best_score
        best, best_epoch = (self._tail.weights(), epoch) if better else (state.best, state.best_epoch)
        tired = 0 < recipe.patience <= epoch - best_epoch
        self._state = TailState(epoch, best, best_epoch, [*state.history, entry], epoch >= recipe.epochs or tired)

    def _save(self) -> None:
        state = self._state
        if self._saved == (state.epoch, state.step):
            return
        tensors = {f"now.{name}": value for name, value in self._tail.weights().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        tensors |= moments_of(self._optimiser)
        tensors["random"] = state.random.numpy()
        plain: dict[str, Any] = {
            "total": state.total,
            "best_epoch": state.best_epoch,
            "history": state.history,
            "finished": state.finished,
            "scaling": self._computing.state(),
            **self.rescue.state(),
        }
        checkpoint = Checkpoint(state.epoch, tensors, plain, state.step)
        self._checkpoints.save(checkpoint, best_epoch=state.best_epoch)
        self._saved = (state.epoch, state.step)

    def _go_back(self) -> None:
        """Take up the newest checkpoint, and write what was learned of a mishap since."""
        self._restore()
        self._saved = None
        self._save()

    def _restore(self) -> None:
        """Take up the newest whole checkpoint of the same run, or begin anew if there is none."""
        found = self._checkpoints.newest()
        if found is None:
            self._state = self._initial
            self._tail.load(self._initial.best)
            set_moments(self._optimiser, {})
            return
        self._tail.load(below("now", found.tensors))
        set_moments(self._optimiser, found.tensors)
        state = found.state
        self.rescue.load(state)
        self._computing.load(state["scaling"])
        self._state = TailState(
            found.epoch,
            below("best", found.tensors),
            state["best_epoch"],
            state["history"],
            state["finished"],
            found.step,
            state["total"],
            torch.tensor(found.tensors["random"]),
        )
        self._saved = (found.epoch, found.step)
