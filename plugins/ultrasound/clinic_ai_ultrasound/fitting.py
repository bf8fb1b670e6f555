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
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import get_linear_schedule_with_warmup
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import Checkpoint, Tensors, newest_checkpoint, save_checkpoint
from clinic_ai_ultrasound.collating import IGNORED, Batch, Row, collate
from clinic_ai_ultrasound.faults import Portions, clear_cache, is_cuda_error
from clinic_ai_ultrasound.features import Features
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.recipe import AdapterRecipe

LOSS, VALIDATION_LOSS = "loss", "validation_loss"
METRIC, METRIC_NAME = "validation_exact", "validation answers foretold word for word"
"""Share of validation answers of which every token is the likeliest one after those before it."""
TARGETS = r".*language_model.*\.(q_proj|v_proj)"
_SAVED_EVERY_S = 60.0
_JUDGED_AT_ONCE = 8
"""Validation rows at once, which need no gradients."""


def add_adapter(base: Base, recipe: AdapterRecipe) -> PeftModel:
    """Put a fresh adapter over the language model of ``base``, which it changes in nothing yet; return the whole."""
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=TARGETS, bias="none"
    )
    torch.manual_seed(recipe.seed_of(0))
    return get_peft_model(base.model, config)


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
        self._recipe, self._checkpoints, self._fingerprint = recipe, checkpoints, fingerprint
        self.portions = Portions(recipe.batch)
        self.notes: list[str] = []
        self.adapted = add_adapter(base, recipe)
        self._trained = [weights for weights in self.adapted.parameters() if weights.requires_grad]
        self._optimiser = torch.optim.AdamW(self._trained, lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True)
        self._share_of_rate = self._schedule()
        initial = self._weights()
        self._state = self._initial = FitState(0, 0, 0.0, initial, 0, [], False)
        self._restore()
        self.resumed_from = self._state.epoch

    @property
    def trainable(self) -> int:
        """How many numbers are learned."""
        return sum(weights.numel() for weights in self._trained)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in one epoch."""
        return math.ceil(len(self.train) / self._recipe.effective_batch)

    @property
    def state(self) -> FitState:
        """Where it stands."""
        return self._state

    def run(
        self,
        report_step: Callable[[int, int, float], None],
        report_epoch: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
    ) -> FitState:
        """Fit until the last epoch, until patience ends, or until ``stop`` says so, which is asked before every step.

        ``report_step`` is told epoch, step and loss, ``report_epoch`` the entry of the history. When it has finished
        the weights are those of the best epoch. Raise ModelError if the GPU fails twice, or if memory does not suffice
        for one answer at a time.
        """
        failed = False
        while not self._state.finished:
            try:
                entry = self._epoch(report_step, stop)
            except RuntimeError as error:
                if not is_cuda_error(error):
                    raise
                if failed:
                    raise ModelError(
                        "The GPU failed twice in this run.",
                        remedy="Look at the log of its driver, then go on with `clinic-ai train resume`.",
                    ) from error
                failed = True
            else:
                if entry is None:
                    return self._state
                report_epoch(entry)
                continue
            clear_cache()
            self._restore()
            self.notes.append("The GPU failed; the run went on once more from its newest checkpoint.")
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
            stopped = stop()
            if stopped or time.monotonic() - saved_at > _SAVED_EVERY_S:
                self._save()
                saved_at = time.monotonic()
            if stopped:
                return None
            loss = self._step(epoch, step, batches[step])
            self._state = replace(self._state, step=step + 1, total=self._state.total + loss)
            report(epoch, step + 1, loss)
        loss, exact = self.judge(self._validation)
        entry = {
            "epoch": float(epoch),
            LOSS: self._state.total / len(batches),
            VALIDATION_LOSS: loss,
            METRIC: exact,
        }
        self._advance(entry)
        self._save()
        return entry

    def _batches(self, epoch: int) -> list[list[Row]]:
        """Return the rows of each step of an epoch; those of one length are beside each other, to be padded least."""
        generator = torch.Generator().manual_seed(self._recipe.seed_of(epoch))
        order = torch.randperm(len(self.train), generator=generator).tolist()
        size = self._recipe.effective_batch
        together = (order[at : at + size] for at in range(0, len(order), size))
        return [sorted((self.train[at] for at in some), key=lambda row: len(row.tokens)) for some in together]

    def _step(self, epoch: int, step: int, rows: Sequence[Row]) -> float:
        """Take one step of the optimiser; return the mean loss of the tokens that were learned."""
        learned = torch.tensor(sum(row.learned for row in rows), device=self._base.device)

        def begin() -> None:
            _seed(self._base.device, self._recipe.seed_of(epoch, step))
            self._optimiser.zero_grad()

        losses = self.portions.each(rows, lambda some: self._backward(some, learned), begin)
        taken = (epoch - 1) * self.steps_per_epoch + step
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate * self._share_of_rate(taken)
        self._optimiser.step()
        return float(torch.stack(losses).sum())

    def _backward(self, rows: Sequence[Row], learned: Tensor) -> Tensor:
        """Add the gradients of some rows of a step; return their share of its loss."""
        batch = collate(self._base, rows)
        loss: Tensor = forward(self._base, batch, self._of(rows), num_items_in_batch=learned).loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _schedule(self) -> Callable[[int], float]:
        steps = self._recipe.epochs * self.steps_per_epoch
        warming = math.ceil(self._recipe.warm_up * steps)
        schedule = get_linear_schedule_with_warmup(self._optimiser, warming, steps)
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
        portions = Portions(max(_JUDGED_AT_ONCE, self.portions.rows))
        found = torch.cat(portions.each(by_length, self._judged)).double()
        learned = sum(row.learned for row in rows)
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
        finished = epoch >= recipe.epochs or epoch - best_epoch >= recipe.patience
        self._state = FitState(epoch, 0, 0.0, best, best_epoch, [*state.history, entry], finished)

    def _weights(self) -> Tensors:
        found = get_peft_model_state_dict(self.adapted, save_embedding_layers=False)
        return {name: value.detach().cpu().numpy().copy() for name, value in found.items()}

    def _load(self, weights: Tensors) -> None:
        set_peft_model_state_dict(self.adapted, {name: torch.tensor(value) for name, value in weights.items()})

    def _save(self) -> None:
        """Write where it stands as the checkpoint of the last whole epoch, in place of what was written after that."""
        state = self._state
        tensors = {f"now.{name}": value for name, value in self._weights().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value.cpu().numpy() for name, value in moments.items()}
        plain: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "step": state.step,
            "total": state.total,
            "portion": self.portions.rows,
            "best_epoch": state.best_epoch,
            "history": state.history,
            "finished": state.finished,
        }
        save_checkpoint(self._checkpoints, Checkpoint(state.epoch, tensors, plain))

    def _restore(self) -> None:
        """Take up the newest whole checkpoint of the same run, or begin anew if there is none."""
        found = newest_checkpoint(self._checkpoints)
        if found is None or found.state["fingerprint"] != self._fingerprint:
            self._state = self._initial
            self._load(self._initial.best)
            self._set_optimiser({})
            return
        self._load(_below("now", found.tensors))
        self._set_optimiser(found.tensors)
        state = found.state
        self.portions.rows = min(self.portions.rows, int(state["portion"]))
        self._state = FitState(
            found.epoch,
            state["step"],
            state["total"],
            _below("best", found.tensors),
            state["best_epoch"],
            state["history"],
            state["finished"],
        )

    def _set_optimiser(self, tensors: Tensors) -> None:
        moments = {
            index: {name: torch.tensor(value) for name, value in _below(f"optimiser.{index}", tensors).items()}
            for index in range(len(self._trained))
        }
        saved = self._optimiser.state_dict()
        saved["state"] = {index: values for index, values in moments.items() if values}
        self._optimiser.load_state_dict(saved)


def _seed(device: torch.device, seed: int) -> None:
    """Seed what a step on ``device`` draws from.

    ``torch.manual_seed`` seeds every kind of device; while there is no GPU it notes the call with the whole stack, for
    when there will be one, and never lets go of it.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with ``prefix`` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
