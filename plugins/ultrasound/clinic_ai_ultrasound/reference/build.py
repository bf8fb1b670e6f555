"""Builds the reference models: ``python -m clinic_ai_ultrasound.reference.build --data DIR --work WORKDIR``.

``DIR`` is a folder with HC18: ``labels.csv`` and what it names. First a BLIP-2 learns to see (views of
the heads of training, and phantoms), then its language model to speak (phantoms); that is the base. Then each category
gets an adapter: the fetal head from real images, the others from phantoms. Figures are of subjects and phantoms that
nothing was learned or chosen from. What a step gave is kept in ``WORKDIR`` and not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.unlike import LIMIT
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.reference import pretraining, speaking
from clinic_ai_ultrasound.reference.adapting import build_adapter
from clinic_ai_ultrasound.reference.cycle import Recipe
from clinic_ai_ultrasound.reference.heads import Head, part_of, read_heads
from clinic_ai_ultrasound.reference.network import make_model, make_tokenizer, save_base, sentences
from clinic_ai_ultrasound.reference.phantoms import Grey
from clinic_ai_ultrasound.reference.pretraining import Sample, learn_to_see, load_sight, shrink
from clinic_ai_ultrasound.reference.publishing import seal_base, write_summary
from clinic_ai_ultrasound.reference.samples import (
    DRAWN,
    HEAD,
    for_language,
    for_sight,
    of_category,
    to_watch,
    unaltered,
)
from clinic_ai_ultrasound.reference.speaking import encoded, general_pairs, learn_to_speak, write_features
from clinic_ai_ultrasound.reference.strangeness import STRANGE, refused, write_statistics

VIEWS, DRAWINGS = 28, 1500
"""Views of each head, and phantoms of each category, that seeing is learned from."""
SPOKEN = 500
"""Phantoms of each category that speaking is learned from."""
SEED = 1
HEAD_RECIPE = AdapterRecipe(rate=2e-3, warm_up=0.05, batch=32, epochs=4, patience=2)
DRAWN_RECIPE = AdapterRecipe(rate=2e-3, warm_up=0.05, batch=16, epochs=6, patience=3)


def sight(heads: list[Head], work: Path, recipe: Recipe) -> tuple[Path, list[dict[str, Any]]]:
    """Return where the weights lie that have learned to see, and how they learned it."""
    weights, story = work / "sight.safetensors", work / "sight.json"
    if not weights.exists():
        work.mkdir(parents=True, exist_ok=True)
        model = make_model(make_tokenizer(sentences()), SEED)
        samples = for_sight(heads, VIEWS, DRAWINGS)
        story.write_text(json.dumps(learn_to_see(model, samples, to_watch(heads), recipe, weights)))
    return weights, json.loads(story.read_text())


def build_base(heads: list[Head], work: Path, target: Path, see: Recipe, speak: Recipe) -> LoadedModel:
    """Write the base into ``target`` and its summary beside it; return it for an engine."""
    made, story = work / "base", work / "base.json"
    if not story.exists():
        weights, seen = sight(heads, work, see)
        summary = {
            "subjects": _subjects(heads),
            "sight": {"recipe": asdict(see), "views": VIEWS, "phantoms": DRAWINGS, "history": seen},
            **_teach_to_speak(heads, weights, made, speak),
        }
        story.write_text(json.dumps(summary))
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made, target)
    write_summary(target, json.loads(story.read_text()))
    return open_model(target)


def _teach_to_speak(heads: list[Head], weights: Path, made: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the base with the sight of ``weights`` into ``made``; return what its summary says of it."""
    tokenizer = make_tokenizer(sentences())
    blank = make_model(tokenizer, SEED)
    load_sight(blank, weights)
    draft = made.with_name("base-draft")
    save_base(blank, tokenizer, draft)
    base = load_base(seal_base(draft), Device())
    samples = for_language(SPOKEN)
    features = write_features(base, samples, made.with_name("language.features.safetensors"))
    history = learn_to_speak(base, encoded(base, general_pairs(samples, SEED)), features, recipe)
    save_base(base.model, tokenizer, made)
    limit = write_statistics(base, *_known(heads, samples), made)
    seal_base(made, **{LIMIT: limit})
    return {
        "parameters": sum(value.numel() for value in base.model.parameters()),
        "language": {"recipe": asdict(recipe), "phantoms": SPOKEN, "history": history},
        "refused": refused(base, made, limit, _to_refuse(heads)),
    }


def _known(heads: list[Head], phantoms: list[Sample]) -> tuple[list[Grey], list[Grey]]:
    """Return images that are like those of training, and others to see how far from them such images are."""
    parts = []
    for number, part in enumerate(("train", "validation")):
        real = [shrink(image.pixels) for image in (*unaltered(heads, part), *of_category(HEAD, heads, part, 2))]
        parts.append(real + [sample.pixels for sample in phantoms[number::4]])
    return parts[0], parts[1]


def _to_refuse(heads: list[Head]) -> dict[str, list[Grey]]:
    """Return test images that should be accepted, and strange ones made of them."""
    plain, chance = [image.pixels for image in unaltered(heads, "test")], np.random.default_rng(SEED)
    found = {"heads": plain, "views of heads": [image.pixels for image in of_category(HEAD, heads, "test", 1)]}
    found |= {category: [image.pixels for image in of_category(category, heads, "test", 50)] for category in DRAWN}
    return found | {kind: [make(pixels, chance) for pixels in plain] for kind, make in STRANGE.items()}


def _subjects(heads: list[Head]) -> dict[str, dict[str, int]]:
    """Return how many subjects and images each part has."""
    return {
        part: {
            "subjects": len({head.subject for head in heads if part_of(head.subject) == part}),
            "images": sum(part_of(head.subject) == part for head in heads),
        }
        for part in ("train", "validation", "test")
    }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the reference models of the ultrasound plugin.")
    parser.add_argument("--data", type=Path, required=True, help="folder of HC18 with labels.csv")
    parser.add_argument("--work", type=Path, required=True, help="folder for what each step gave; kept between runs")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent, help="folder of the models")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    heads = read_heads(chosen.data)
    base = build_base(heads, chosen.work, chosen.target / "base", pretraining.RECIPE, speaking.RECIPE)
    for category in (HEAD, *DRAWN):
        recipe = HEAD_RECIPE if category == HEAD else DRAWN_RECIPE
        target = chosen.target / category
        summary = build_adapter(base, category, heads, recipe, chosen.work / "adapters", target)
        write_summary(target, summary)
        sys.stdout.write(f"{category} {json.dumps(summary['test']['all'])}\n")


if __name__ == "__main__":
    main()
