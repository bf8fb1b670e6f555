"""Fits one phase: deterministic, resumable at any step, its best checkpoints kept.

The order of an epoch and what is drawn in a step follow from the seed and their place alone, so a checkpoint needs no
state of random generators. A run that was interrupted gives what an unbroken one gives, bit for bit on a processor. If
it was asked to stop it goes on at the step it was at; if it died, from the last checkpoint, which is written after each
epoch and in long ones every minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinic_ai.ml.checkpoints import Checkpoint, Checkpoints, Tensors, below
from clinic_ai.ml.optimisers import moments_of, set_moments
from clinic_ai.ml.precision import Computing
from clinic_ai.ml.rescue import NotFinite, Rescue, require_finite
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.objective import VALIDATION_LOSS, Objective, Whole
from clinic_ai_ct.training.processes import Processes
from clinic_ai_ct.training.recipe import CTRecipe

LOSS = "loss"
_SAVED_EVERY_S = 60.0
_NEWEST = 1
"""So many checkpoints are kept beside the best: one to go on from."""
_LONGEST_GRADIENT = 1.0
Entry = dict[str, float]


@dataclass(frozen=True)
class FitState:
    """Where a phase stands: ``step`` steps into the epoch after ``epoch``, whose losses so far sum up to ``total``."""

    epoch: int
    step: int
    total: float
    best: Tensors
    best_epoch: int
    history: list[Entry]
    finished: bool


class PhaseFit:
    """One phase of one run."""

    def __init__(
        self,
        objective: Objective,
        train: Sequence[Case],
        validation: Sequence[Case],
        recipe: CTRecipe,
        checkpoints: Path,
        fingerprint: str,
        processes: Processes | None = None,
    ) -> None:
        """A checkpoint of another ``fingerprint`` is not taken up."""
        self._objective, self._recipe, self._phase = objective, recipe, objective.phase
        self._train, self._validation = list(train), list(validation)
        self._processes = processes or Processes()
        self._device = objective.scene.device
        self._checkpoints = Checkpoints(checkpoints, fingerprint, _NEWEST)
        self._computing = Computing(recipe.precision, self._device)
        self.rescue = Rescue(recipe.batch, "volume")
        self.learned = self.judged = 0
        """Cases that this process has learned from, and judged; each counted anew in each epoch."""
        self._optimiser = torch.optim.AdamW(
            [{"params": weights, "lr": rate} for weights, rate in objective.rates],
            weight_decay=recipe.weight_decay,
            foreach=False,
        )
        self._saved: tuple[int, int] | None = None
        """Epoch and step of the newest checkpoint."""
        self._state = self._initial = FitState(0, 0, 0.0, self._weights(), 0, [], False)
        self._restore()

    @property
    def state(self) -> FitState:
        """Where it stands."""
        return self._state

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self._recipe.epochs_of(self._phase)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in one epoch."""
        return math.ceil(len(self._train) / self._recipe.effective_batch)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong and was helped, for people."""
        return (*self._checkpoints.notes, *self.rescue.notes)

    def run(
        self,
        report_step: Callable[[int, int, float], None],
        report_epoch: Callable[[Entry], None],
        stop: Callable[[], bool],
    ) -> FitState:
        """Fit until the last epoch, until patience ends, or until ``stop`` says so, which is asked before every step.

        ``report_step`` is told epoch, step and loss, ``report_epoch`` the entry of the history. When it has finished
        the weights are those of the best epoch. Raise ModelError if the GPU fails twice, if the loss stays without a
        finite value, or if memory does not suffice for one volume at a time; HomeError if the disk is full.
        """
        while not self._state.finished:
            entry = self.rescue.attempt(lambda: self._epoch(report_step, stop), self._go_back)
            if entry is None:
                return self._state
            report_epoch(entry)
        self._load(self._state.best)
        self._objective.evaluating()
        return self._state

    # ------------------------------------------------------------ one epoch

    def _epoch(self, report: Callable[[int, int, float], None], stop: Callable[[], bool]) -> Entry | None:
        """Return the entry of the history; None if it was stopped before its end, which is in a checkpoint then."""
        epoch = self._state.epoch + 1
        batches = self._batches(epoch)
        self._objective.training()
        saved_at = time.monotonic()
        for step in range(self._state.step, len(batches)):
            stopped, portion = self._processes.any(stop()), self.rescue.portions.rows
            # Asked of all processes: what one of them saves, the others wait for.
            if self._processes.any(stopped or time.monotonic() - saved_at > _SAVED_EVERY_S):
                self._save()
                saved_at = time.monotonic()
            if stopped:
                return None
            loss = self._step(epoch, step, batches[step])
            self._state = replace(self._state, step=step + 1, total=self._state.total + loss)
            if self._processes.any(self.rescue.portions.rows < portion):
                self._save()  # so that a run that dies of it does not have to learn it again
            report(epoch, step + 1, loss)
        found = self._judge()
        if not all(math.isfinite(value) for value in found.values()):
            raise NotFinite("what is said of the validation part after the last step", epoch, len(batches))
        entry = {"epoch": float(epoch), LOSS: self._state.total / len(batches), **found}
        self._advance(entry)
        self._save()
        return entry

    def _batches(self, epoch: int) -> list[list[Case]]:
        generator = torch.Generator().manual_seed(self._recipe.seed_of(self._phase, epoch))
        order = torch.randperm(len(self._train), generator=generator).tolist()
        size = self._recipe.effective_batch
        return [[self._train[at] for at in order[start : start + size]] for start in range(0, len(order), size)]

    def _step(self, epoch: int, step: int, cases: Sequence[Case]) -> float:
        """Take one step of the optimiser; return the loss."""
        seed = self._recipe.seed_of(self._phase, epoch, step)
        whole, own = self._objective.whole(cases), self._processes.own(cases)

        def begin() -> None:
            _seed(self._device, seed)
            self._optimiser.zero_grad()

        losses = self.rescue.portions.each(own, lambda some: self._backward(some, whole, seed), begin)
        loss = self._processes.sum(float(torch.stack(losses).sum()) if losses else 0.0)
        trained = self._objective.trained.values()
        self._processes.sum_gradients(trained)
        if self._computing.unscale(self._optimiser):
            require_finite(loss, trained, epoch, step + 1)
        elif not math.isfinite(loss):
            raise NotFinite("the loss", epoch, step + 1)
        torch.nn.utils.clip_grad_norm_(trained, _LONGEST_GRADIENT, foreach=False)
        share = self._share_of_rate((epoch - 1) * self.steps_per_epoch + step) * self.rescue.rate
        for group, (_, rate) in zip(self._optimiser.param_groups, self._objective.rates, strict=True):
            group["lr"] = rate * share
        self._computing.step(self._optimiser)
        self.learned += len(own)
        return loss

    def _backward(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Add the gradients of some cases of a step; return their share of its loss."""
        with self._computing.forward():
            loss = self._objective.loss(cases, whole, seed)
        if loss.requires_grad:  # a portion may have nothing that is known
            self._computing.backward(loss)
        return loss.detach()

    def _share_of_rate(self, taken: int) -> float:
        """Return what share of its rate a part has in a step: rising to the full, then falling evenly."""
        steps = self.epochs * self.steps_per_epoch
        warming = math.ceil(self._recipe.warm_up * steps)
        return (taken + 1) / warming if taken < warming else (steps - taken) / max(1, steps - warming)

    def _judge(self) -> dict[str, float]:
        self._objective.evaluating()
        with self._computing.forward():
            found = self._objective.judge(self._validation)
        self.judged += len(self._validation)
        return found

    # ------------------------------------------------------------ checkpoints

    def _advance(self, entry: Entry) -> None:
        state, epoch, recipe = self._state, int(entry["epoch"]), self._recipe
        better = all(self._rank(entry) > self._rank(past) for past in state.history)
        best, best_epoch = (self._weights(), epoch) if better else (state.best, state.best_epoch)
        tired = 0 < recipe.patience <= epoch - best_epoch
        self._state = FitState(epoch, 0, 0.0, best, best_epoch, [*state.history, entry], epoch >= self.epochs or tired)

    def _rank(self, entry: Entry) -> tuple[float, float]:
        """Return what the greater epoch is better by: the metric, and where that is the same the loss."""
        return entry[self._phase.metric], -entry[VALIDATION_LOSS]

    def _best_epochs(self) -> tuple[int, ...]:
        ranked = sorted(self._state.history, key=self._rank, reverse=True)
        return tuple(int(entry["epoch"]) for entry in ranked[: self._recipe.keep])

    def _weights(self) -> Tensors:
        return {name: weights.detach().cpu().numpy().copy() for name, weights in self._objective.trained.items()}

    @torch.no_grad()
    def _load(self, weights: Tensors) -> None:
        for name, trained in self._objective.trained.items():
            trained.copy_(torch.from_numpy(weights[name]))
        # What the text encoder says is kept apart from the soft prompts, and only follows them when told to.
        self._objective.scene.network.renew()

    def _save(self) -> None:
        """Write where it stands, unless that is where the newest checkpoint is."""
        state = self._state
        if self._saved == (state.epoch, state.step):
            return
        tensors = {f"now.{name}": value for name, value in self._weights().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        tensors |= moments_of(self._optimiser)
        plain: dict[str, Any] = {
            "total": state.total,
            "best_epoch": state.best_epoch,
            "history": state.history,
            "finished": state.finished,
            "scaling": self._computing.state(),
            **self.rescue.state(),
        }
        if self._processes.first:
            checkpoint = Checkpoint(state.epoch, tensors, plain, state.step)
            self._checkpoints.save(checkpoint, best_epoch=state.best_epoch, also=self._best_epochs())
        self._processes.wait()
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
            self._load(self._initial.best)
            set_moments(self._optimiser, {})
            return
        self._load(below("now", found.tensors))
        set_moments(self._optimiser, found.tensors)
        state = found.state
        self.rescue.load(state)
        self._computing.load(state["scaling"])
        self._state = FitState(
            found.epoch,
            found.step,
            state["total"],
            below("best", found.tensors),
            state["best_epoch"],
            state["history"],
            state["finished"],
        )
        self._saved = (found.epoch, found.step)


def _seed(device: torch.device, seed: int) -> None:
    """Seed what a step on ``device`` draws from.

    ``torch.manual_seed`` seeds every kind of device; while there is no GPU it notes the call with the whole stack, for
    when there will be one, and never lets go of it.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
