"""Fits a LoRA adapter of the language model to questions and answers; vision tower and Q-Former stay as they are.

Deterministic: the order of an epoch and what is dropped out in a step follow from the seed and their place alone, so a
checkpoint needs no state of random generators. A run that was interrupted gives what an unbroken one gives, bit for bit
on a processor. If it was asked to stop it goes on at the step it was at; if it died, from the last checkpoint, which is
written after each epoch and in long ones every minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import get_linear_schedule_with_warmup
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

from clinic_ai.ml.checkpoints import Checkpoint, Checkpoints, Tensors, below
from clinic_ai.ml.optimisers import moments_of, set_moments
from clinic_ai.ml.precision import Computing
from clinic_ai.ml.rescue import NotFinite, Portions, Rescue, require_finite
from clinic_ai_ultrasound.collating import IGNORED, Batch, Row, collate
from clinic_ai_ultrasound.features import Features
from clinic_ai_ultrasound.laying import bring_back, is_laid_aside
from clinic_ai_ultrasound.loading import Base, linear_layers
from clinic_ai_ultrasound.recipe import AdapterRecipe

LOSS, VALIDATION_LOSS = "loss", "validation_loss"
METRIC, METRIC_NAME = "validation_exact", "validation answers foretold word for word"
"""Share of validation answers of which every token is the likeliest one after those before it."""
_SAVED_EVERY_S = 60.0
_JUDGED_AT_ONCE = 8
"""Validation rows at once, which need no gradients."""


def add_adapter(base: Base, recipe: AdapterRecipe) -> PeftModel:
    """Put a fresh adapter over the language model of ``base``, which it changes in nothing yet; return the whole.

    Raise DatasetError if the recipe's targets are none of its layers.
    """
    recipe.check_targets(linear_layers(base.model).keys())
    targets = rf".*language_model.*\.({'|'.join(recipe.target_names)})"
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=targets, bias="none"
    )
    torch.manual_seed(recipe.seed_of(0))
    aside = is_laid_aside(base.model)
    adapted = get_peft_model(base.model, config)
    if aside:
        bring_back(adapted, base.device)
    return adapted


def forward(base: Base, batch: Batch, features: Tensor, **loss: Any) -> Any:
    """Return the model's output for a batch whose images say ``features`` (rows, image tokens, width).

    Its logits are of the last ``batch.kept`` positions, beyond which nothing is learned; ``loss`` goes to the model.
    """
    image = BaseModelOutputWithVisionQformerOutputs(
        pooler_output=features, vision_outputs=BaseModelOutputWithPooling(), qformer_outputs=None
    )
    unread = {} if base.family == "blip2" else {"qformer_input_ids": None}  # the features have read the question
    return base.model(
        pixel_values=None,
        input_ids=batch.tokens,
        attention_mask=batch.mask,
        labels=batch.labels[:, -batch.kept :],
        mm_encoder_outputs={"image": image},
        logits_to_keep=batch.kept,
        use_cache=False,
        **unread,
        **loss,
    )


@dataclass(frozen=True)
class FitState:
    """Where fitting stands: ``step`` steps into the epoch after ``epoch``, whose losses so far sum up to ``total``."""

    epoch: int
    step: int
    total: float
    best: Tensors
    best_epoch: int
    history: list[dict[str, float]]
    finished: bool


class AdapterFit:
    """One fit of an adapter over a base."""

    def __init__(
        self,
        base: Base,
        train: Sequence[Row],
        validation: Sequence[Row],
        features: Features,
        recipe: AdapterRecipe,
        checkpoints: Path,
        fingerprint: str,
    ) -> None:
        """A checkpoint of another ``fingerprint`` is not taken up."""
        self._base, self._validation, self._features = base, validation, features
        self.train = train
        self._recipe, self._curriculum = recipe, recipe.stages()
        self._checkpoints = Checkpoints(checkpoints, fingerprint, recipe.keep)
        self._computing = Computing(recipe.precision, base.device, base.dtype)
        self.rescue = Rescue(recipe.batch)
        self.rows_learned = 0
        """Answers that this process has learned from, counted anew in each epoch."""
        self.rows_judged = 0
        """Answers of the validation part that it has judged, counted so too."""
        answers = self._curriculum.counts([row.words for row in train], recipe.epochs)
        self._steps_after = [0, *accumulate(math.ceil(count / recipe.effective_batch) for count in answers)]
        self.adapted = add_adapter(base, recipe)
        self._trained = [weights for weights in self.adapted.parameters() if weights.requires_grad]
        self._optimiser = torch.optim.AdamW(self._trained, lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True)
        self._share_of_rate = self._schedule()
        self._saved: tuple[int, int] | None = None
        """Epoch and step of the newest checkpoint."""
        self._state = self._initial = FitState(0, 0, 0.0, self._weights(), 0, [], False)
        self._restore()
        self.resumed_from = self._state.epoch

    @property
    def trainable(self) -> int:
        """How many numbers are learned."""
        return sum(weights.numel() for weights in self._trained)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in all epochs."""
        return self._steps_after[-1]

    def steps_after(self, epoch: int) -> int:
        """Return the steps of the optimiser in the first so many epochs."""
        return self._steps_after[epoch]

    @property
    def state(self) -> FitState:
        """Where it stands."""
        return self._state

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong and was helped, and what the curriculum was, for people."""
        epochs = [int(entry["epoch"]) for entry in self._state.history]
        stages = dict.fromkeys(words for epoch in epochs if (words := self.stage_in_words(epoch)))
        return (*self._checkpoints.notes, *self.rescue.notes, *(f"Curriculum, {words}." for words in stages))

    def stage_in_words(self, epoch: int) -> str:
        """Return which stage of the curriculum an epoch is in, for people; empty without a curriculum."""
        stages, number = self._curriculum.stages, self._curriculum.number(epoch)
        if len(stages) == 1:
            return ""
        began = 1 + (stages[number - 2].last_epoch or 0) if number > 1 else 1
        taken = f"{len(self._rows(epoch))} of {len(self.train)}"
        return f"stage {number} of {len(stages)} from epoch {began}: {stages[number - 1].in_words()} ({taken})"

    def run(
        self,
        report_step: Callable[[int, int, float], None],
        report_epoch: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
    ) -> FitState:
        """Fit until the last epoch, until patience ends, or until ``stop`` says so, which is asked before every step.

        ``report_step`` is told epoch, step and loss, ``report_epoch`` the entry of the history. When it has finished
        the weights are those of the best epoch. Raise ModelError if the GPU fails twice, if the loss stays without a
        finite value, or if memory does not suffice for one answer at a time; HomeError if the disk is full.
        """
        while not self._state.finished:
            entry = self.rescue.attempt(lambda: self._epoch(report_step, stop), self._go_back)
            if entry is None:
                return self._state
            report_epoch(entry)
        self._load(self._state.best)
        self._evaluating()
        return self._state

    # ------------------------------------------------------------ one epoch

    def _epoch(self, report: Callable[[int, int, float], None], stop: Callable[[], bool]) -> dict[str, float] | None:
        """Return the entry of the history; None if it was stopped before its end, which is in a checkpoint then."""
        epoch = self._state.epoch + 1
        batches = self._batches(epoch)
        self._training()
        saved_at = time.monotonic()
        for step in range(self._state.step, len(batches)):
            stopped, portion = stop(), self.rescue.portions.rows
            if stopped or time.monotonic() - saved_at > _SAVED_EVERY_S:
                self._save()
                saved_at = time.monotonic()
            if stopped:
                return None
            loss = self._step(epoch, step, batches[step])
            self._state = replace(self._state, step=step + 1, total=self._state.total + loss)
            if self.rescue.portions.rows < portion:
                self._save()  # so that a run that dies of it does not have to learn it again
            report(epoch, step + 1, loss)
        loss, exact = self.judge(self._validation)
        if not math.isfinite(loss):
            raise NotFinite("the loss of the validation part after the last step", epoch, len(batches))
        entry = {
            "epoch": float(epoch),
            LOSS: self._state.total / len(batches),
            VALIDATION_LOSS: loss,
            METRIC: exact,
        }
        if len(self._curriculum.stages) > 1:
            entry |= {"stage": float(self._curriculum.number(epoch)), "answers": float(len(self._rows(epoch)))}
        self._advance(entry)
        self._save()
        return entry

    def _rows(self, epoch: int) -> list[Row]:
        """Return the rows that an epoch learns from."""
        stage = self._curriculum.of(epoch)
        return [row for row in self.train if stage.takes(row.words)]

    def _batches(self, epoch: int) -> list[list[Row]]:
        """Return the rows of each step of an epoch; those of one length are beside each other, to be padded least."""
        rows = self._rows(epoch)
        generator = torch.Generator().manual_seed(self._recipe.seed_of(epoch))
        order = torch.randperm(len(rows), generator=generator).tolist()
        size = self._recipe.effective_batch
        together = (order[at : at + size] for at in range(0, len(order), size))
        return [sorted((rows[at] for at in some), key=lambda row: len(row.tokens)) for some in together]

    def _step(self, epoch: int, step: int, rows: Sequence[Row]) -> float:
        """Take one step of the optimiser; return the mean loss of the tokens that were learned."""
        learned = torch.tensor(sum(row.learned for row in rows), device=self._base.device)

        def begin() -> None:
            _seed(self._base.device, self._recipe.seed_of(epoch, step))
            self._optimiser.zero_grad()

        losses = self.rescue.portions.each(rows, lambda some: self._backward(some, learned), begin)
        loss = float(torch.stack(losses).sum())
        if self._computing.unscale(self._optimiser):
            require_finite(loss, self._trained, epoch, step + 1)
        elif not math.isfinite(loss):
            raise NotFinite("the loss", epoch, step + 1)
        taken = self.steps_after(epoch - 1) + step
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate * self._share_of_rate(taken) * self.rescue.rate
        self._computing.step(self._optimiser)
        self.rows_learned += len(rows)
        return loss

    def _backward(self, rows: Sequence[Row], learned: Tensor) -> Tensor:
        """Add the gradients of some rows of a step; return their share of its loss."""
        batch = collate(self._base, rows)
        with self._computing.forward():
            loss: Tensor = forward(self._base, batch, self._of(rows), num_items_in_batch=learned).loss
        self._computing.backward(loss)
        return loss.detach()

    def _schedule(self) -> Callable[[int], float]:
        warming = math.ceil(self._recipe.warm_up * self.steps)
        schedule = get_linear_schedule_with_warmup(self._optimiser, warming, self.steps)
        share: Callable[[int], float] = schedule.lr_lambdas[0]
        return share

    # ------------------------------------------------------------ judging

    @torch.no_grad()
    def judge(self, rows: Sequence[Row]) -> tuple[float, float]:
        """Return the mean loss of the answers' tokens, and the share of answers foretold token by token.

        That share is what a greedy search would answer word for word.
        """
        self._evaluating()
        by_length = sorted(rows, key=lambda row: len(row.tokens))
        portions = Portions(max(_JUDGED_AT_ONCE, self.rescue.portions.rows))
        found = torch.cat(portions.each(by_length, self._judged)).double()
        learned = sum(row.learned for row in rows)
        self.rows_judged += len(rows)
        return float(found[:, 0].sum() / learned), float(found[:, 1].mean())

    def _judged(self, rows: Sequence[Row]) -> Tensor:
        """Return (rows, 2): the sum of the losses of the answer's tokens, and whether all were the likeliest."""
        batch = collate(self._base, rows)
        logits = forward(self._base, batch, self._of(rows)).logits[:, :-1].float()
        labels = batch.labels[:, 1 - batch.kept :]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        right = (logits.argmax(dim=-1) == labels) | (labels == IGNORED)
        return torch.stack([losses.sum(dim=1), right.all(dim=1)], dim=1).cpu()

    def _of(self, rows: Sequence[Row]) -> Tensor:
        return self._features.of([row.features for row in rows], self._base.device)

    def _training(self) -> None:
        """Switch on the dropout of adapter and language model; what is frozen and cached never had any."""
        self._base.model.eval()
        self._base.model.language_model.train()

    def _evaluating(self) -> None:
        self._base.model.eval()

    # ------------------------------------------------------------ checkpoints

    def _advance(self, entry: dict[str, float]) -> None:
        state, epoch, recipe = self._state, int(entry["epoch"]), self._recipe
        least = min((past[VALIDATION_LOSS] for past in state.history), default=math.inf)
        better = entry[VALIDATION_LOSS] < least
        best, best_epoch = (self._weights(), epoch) if better else (state.best, state.best_epoch)
        # Epochs of short answers alone need not be the better ones for all; they try nobody's patience.
        waited = epoch - max(best_epoch, self._curriculum.all_from - 1)
        finished = epoch >= recipe.epochs or 0 < recipe.patience <= waited
        self._state = FitState(epoch, 0, 0.0, best, best_epoch, [*state.history, entry], finished)

    def _weights(self) -> Tensors:
        found = get_peft_model_state_dict(self.adapted, save_embedding_layers=False)
        return {name: value.detach().cpu().numpy().copy() for name, value in found.items()}

    def _load(self, weights: Tensors) -> None:
        set_peft_model_state_dict(self.adapted, {name: torch.tensor(value) for name, value in weights.items()})

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
