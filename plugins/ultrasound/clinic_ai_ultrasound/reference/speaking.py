"""Teaches the language model of the base to answer about what the query tokens say; seeing is done by then.

It learns from phantoms only, and only questions that can be asked of anything: where it lies, how large it is, how it
runs, whether it is whole. What it is called changes from one question to the next: the noun comes from the question.
What belongs to one category, and every real image, is left to the adapters.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from clinic_ai.domain import QuestionAnswer
from clinic_ai_ultrasound.collating import Row, collate, encode
from clinic_ai_ultrasound.features import Features
from clinic_ai_ultrasound.fitting import forward
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.reference.pretraining import LANGUAGE, Sample, normalised
from clinic_ai_ultrasound.reference.questions import SUBJECTS, VIEW_WORDINGS, word

_GENERAL = ("side", "level", "fills", "axis", "whole")
_NOUNS = (*sorted({subject.noun for subject in SUBJECTS.values()}), "structure")
_MEMORY_MB = 4096


@dataclass(frozen=True)
class LanguageRecipe:
    """How speaking is learned; ``rate`` is the highest learning rate of one cycle."""

    epochs: int = 2
    batch: int = 48
    rate: float = 2e-3
    warm_up: float = 0.15
    weight_decay: float = 0.01
    seed: int = 19


def general_pairs(samples: Sequence[Sample], seed: int) -> list[tuple[int, QuestionAnswer]]:
    """Return pairs that could be asked of anything, each with the number of its sample."""
    chance = random.Random(seed)  # noqa: S311 - a choice that can be repeated, no secret
    pairs: list[tuple[int, QuestionAnswer]] = []
    for number, sample in enumerate(samples):
        subject = SUBJECTS[sample.category]
        view = QuestionAnswer(question=chance.choice(VIEW_WORDINGS), answer=subject.looks)
        pairs.append((number, view))
        for topic in _GENERAL:
            if topic in sample.truths and topic in subject.topics:
                noun = chance.choice(_NOUNS)
                pairs.append((number, word(topic, sample.truths[topic], noun, chance.randrange(3))))
    return pairs


@torch.inference_mode()
def write_features(base: Base, samples: Sequence[Sample], path: Path) -> Features:
    """Compute what the frozen part of ``base`` makes of ``samples``, and keep it at ``path``; its keys are numbers."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
    parts = [base.model.get_image_features(normalised(some)).pooler_output for some in pixels.split(64)]
    save_file({str(number): row.clone() for number, row in enumerate(torch.cat(parts))}, path)
    return Features([path], _MEMORY_MB)


def encoded(base: Base, pairs: Sequence[tuple[int, QuestionAnswer]]) -> list[Row]:
    """Return pairs, each with the number of its image, as rows of tokens."""
    return [encode(base, str(number), pair) for number, pair in pairs]


def learn_to_speak(base: Base, rows: Sequence[Row], features: Features, recipe: LanguageRecipe) -> list[dict[str, Any]]:
    """Train the language model of ``base`` in place; return what each epoch gave."""
    torch.manual_seed(recipe.seed)
    learned = [value for name, value in base.model.named_parameters() if name.startswith(LANGUAGE)]
    for value in learned:
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(learned, lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    per_epoch = len(rows) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, recipe.epochs * per_epoch, pct_start=recipe.warm_up
    )
    history = []
    for epoch in range(1, recipe.epochs + 1):
        base.model.language_model.train()
        begun, total = time.monotonic(), 0.0
        order = torch.randperm(len(rows)).tolist()
        for step in range(per_epoch):
            some = [rows[at] for at in order[step * recipe.batch : (step + 1) * recipe.batch]]
            loss = forward(base, collate(base, some), features.of([row.features for row in some], base.device)).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
            if step % 100 == 99:
                sys.stderr.write(f"epoch {epoch}, step {step + 1} of {per_epoch}: {loss.item():.4f}\n")
        history.append({"epoch": epoch, "loss": total / per_epoch})
        sys.stderr.write(f"{history[-1]} {time.monotonic() - begun:.0f} s\n")
    base.model.requires_grad_(False)
    base.model.eval()
    return history
