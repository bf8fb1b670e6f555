"""Teaches the language model of the base to answer about what the query tokens say; seeing is done by then.

It learns from phantoms only, and only questions that can be asked of anything: where it lies, how large it is, how it
runs, whether it is whole. What it is called changes from one question to the next: the noun comes from the question.
What belongs to one category, and every real image, is left to the adapters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
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
from clinic_ai_ultrasound.reference.cycle import Cycle, Recipe
from clinic_ai_ultrasound.reference.pretraining import LANGUAGE, Sample, normalised
from clinic_ai_ultrasound.reference.questions import SUBJECTS, VIEW_WORDINGS, word

_GENERAL = ("side", "level", "fills", "axis", "whole")
_NOUNS = (*sorted({subject.noun for subject in SUBJECTS.values()}), "structure")
_MEMORY_MB = 4096


RECIPE = Recipe(epochs=2, batch=48, rate=1.5e-3, warm_up=0.15, weight_decay=0.01, seed=19)
"""How speaking is learned."""


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
    parts = [base.model.get_image_features(normalised(some)).pooler_output for some in torch.split(pixels, 64)]
    save_file({str(number): row.clone() for number, row in enumerate(torch.cat(parts))}, path)
    return Features([path], _MEMORY_MB)


def encoded(base: Base, pairs: Sequence[tuple[int, QuestionAnswer]]) -> list[Row]:
    """Return pairs, each with the number of its image, as rows of tokens."""
    return [encode(base, str(number), pair) for number, pair in pairs]


def learn_to_speak(base: Base, rows: Sequence[Row], features: Features, recipe: Recipe) -> list[dict[str, Any]]:
    """Train the language model of ``base`` in place; return what each epoch gave."""
    torch.manual_seed(recipe.seed)
    learned = [value for name, value in base.model.named_parameters() if name.startswith(LANGUAGE)]
    for value in learned:
        value.requires_grad_(True)
    per_epoch = len(rows) // recipe.batch
    cycle = Cycle(learned, recipe, per_epoch)
    history = []
    for epoch in range(1, recipe.epochs + 1):
        base.model.language_model.train()
        order, total = torch.randperm(len(rows)).tolist(), 0.0
        for step in range(per_epoch):
            some = [rows[at] for at in order[step * recipe.batch : (step + 1) * recipe.batch]]
            seen = features.of([row.features for row in some], base.device)
            total += cycle.step(forward(base, collate(base, some), seen).loss)
        history.append({"epoch": epoch, "loss": total / per_epoch})
    base.model.requires_grad_(False)
    base.model.eval()
    return history
