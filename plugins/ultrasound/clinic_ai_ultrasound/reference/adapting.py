"""Trains the adapter of a category over the base, by the recipe's own loop, and measures it beside the base alone."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from clinic_ai.contract import Device, LoadedModel
from clinic_ai_ultrasound.collating import Row, encode
from clinic_ai_ultrasound.features import Features
from clinic_ai_ultrasound.fitting import AdapterFit
from clinic_ai_ultrasound.loading import Base, load_base
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.reference.baselines import pixel_size_figures
from clinic_ai_ultrasound.reference.heads import Head
from clinic_ai_ultrasound.reference.measuring import ask_all, calibrate, cases, table
from clinic_ai_ultrasound.reference.pretraining import normalised, shrink
from clinic_ai_ultrasound.reference.publishing import publish_adapter
from clinic_ai_ultrasound.reference.questions import SUBJECTS, Asked, ask, balanced
from clinic_ai_ultrasound.reference.samples import HEAD, Shown, of_category, unaltered

_MEMORY_MB = 4096


@dataclass(frozen=True)
class Counts:
    """How many views of each head, or phantoms, each part has."""

    train: int
    validation: int
    test: int


HEADS, DRAWINGS = Counts(train=4, validation=1, test=3), Counts(train=240, validation=30, test=50)


def fit_adapter(base: Base, category: str, heads: list[Head], recipe: AdapterRecipe, work: Path) -> AdapterFit:
    """Train the adapter of ``category``; what an earlier call left in ``work`` is gone on with."""
    counts = HEADS if category == HEAD else DRAWINGS
    parts = {part: of_category(category, heads, part, getattr(counts, part)) for part in ("train", "validation")}
    rows = {part: _rows(base, category, part, images, recipe.seed) for part, images in parts.items()}
    features = _features(base, parts, work / f"{category}.features.safetensors")
    fit = AdapterFit(
        base, rows["train"], rows["validation"], features, recipe, work / category, f"{base.ref.digest} {recipe}"
    )

    def report(entry: dict[str, float]) -> None:
        sys.stderr.write(f"{category} {entry}\n")

    fit.run(lambda *_: None, report, lambda: False)
    return fit


def _rows(base: Base, category: str, part: str, images: Sequence[Shown], seed: int) -> list[Row]:
    chance = random.Random(seed)  # noqa: S311 - a choice that can be repeated, no secret
    asked: list[Asked] = []
    for number, image in enumerate(images):
        asked += ask(category, number, image.truths, chance.randrange(3))
    return [encode(base, f"{part}-{one.image}", one.pair) for one in balanced(asked, seed)]


@torch.inference_mode()
def _features(base: Base, parts: dict[str, list[Shown]], path: Path) -> Features:
    rows: dict[str, torch.Tensor] = {}
    for part, images in parts.items():
        for begin in range(0, len(images), 64):
            some = images[begin : begin + 64]
            pixels = torch.from_numpy(np.stack([shrink(image.pixels) for image in some]))
            found = base.model.get_image_features(normalised(pixels)).pooler_output
            rows |= {f"{part}-{begin + number}": row.clone() for number, row in enumerate(found)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(rows, path)
    return Features([path], _MEMORY_MB)


def build_adapter(
    model: LoadedModel, category: str, heads: list[Head], recipe: AdapterRecipe, work: Path, target: Path
) -> dict[str, Any]:
    """Train, calibrate and measure the adapter of ``category``, write it into ``target``; return its summary."""
    counts = HEADS if category == HEAD else DRAWINGS
    topics = SUBJECTS[category].topics
    base = load_base(model, Device())
    fit = fit_adapter(base, category, heads, recipe, work)
    apart, test = (of_category(category, heads, part, getattr(counts, part)) for part in ("validation", "test"))
    calibration = calibrate(cases(apart, topics, seed=0), ask_all(base, category, apart))
    said = ask_all(base, category, test)
    with fit.adapted.disable_adapter():
        alone = ask_all(base, category, test)
    summary: dict[str, Any] = {
        "recipe": asdict(recipe),
        "trained_parameters": fit.trainable,
        "best_epoch": fit.state.best_epoch,
        "history": fit.state.history,
        "calibration": None if calibration is None else asdict(calibration),
        "test": table(test, cases(test, topics, seed=0), said, alone),
    }
    if category == HEAD:
        images = unaltered(heads, "test")
        summary["unaltered"] = table(images, cases(images, topics, seed=None), ask_all(base, category, images))
        summary["pixel_size"] = pixel_size_figures(heads)
    publish_adapter(fit.adapted, model, category, target, calibration, real=category == HEAD)
    return summary
