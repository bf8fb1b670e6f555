"""Builds the reference models from the NIH chest X-rays: ``python -m clinic_ai_xray.reference.build --data DIR``.

The fast one: a network for each of five folds tells what the recipe is worth (see ``folds``); the one that ships has
learned from all patients but those that choose the epoch. Its temperature, operating point and band come from the
logits of the folds, each of a film that its network had not seen.

The intensive one (``--tier intensive``, afterwards): one network, which has not seen the first fold. It is measured on
that fold, beside the fast network that has not seen it either; what turns its logits into statements comes from the
patients that choose the epoch.

What a training gave is kept in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinic_ai.ml.metrics import auroc, difference_interval
from clinic_ai_xray.fitting import Fitted, Images, Recipe, fit, predict
from clinic_ai_xray.network import Network, round_base
from clinic_ai_xray.reference.films import Films, Rows, read_films
from clinic_ai_xray.reference.folds import Reporter, figures, judge_by_folds
from clinic_ai_xray.reference.measuring import Array, Judged, Setting, figures_of
from clinic_ai_xray.reference.publishing import Release, publish, write_summary
from clinic_ai_xray.tiers import FAST, INTENSIVE, TIERS

COARSE = Recipe(tier=INTENSIVE.name, side=112, epochs=32, batch=16, rate=2e-3)
"""A quarter of the pixels, a quarter of the time."""
FINE = Recipe(tier=INTENSIVE.name, side=INTENSIVE.side, epochs=4, batch=16, rate=4e-4, warm_up=0.1, average=0.98)
"""From where ``COARSE`` ended, at the full size."""


def build_fast(data: Path, work: Path, target: Path, recipe: Recipe, *, processes: int) -> dict[str, Any]:
    """Measure by folds, train on all, calibrate; write the model into ``target``, the summary beside it."""
    films = read_films(data)
    logits, fitted = judge_by_folds(data, work, recipe, processes=processes)
    measured = figures(films, logits)
    apart = films.validation()
    release = Release(
        version="1.1.0",
        dataset=f"NIH ChestX-ray14 subset, five folds of {measured['patients']} patients",
        measured=measured,
        setting=Setting.of(logits, films.labels),
    )
    told = publish(fitted.network, release, films.images[~apart], films.of(apart), target)
    write_summary(target, {"recipe": asdict(recipe), "folds": measured, **_story(fitted), **told})
    return measured


def build_intensive(data: Path, work: Path, target: Path, coarse: Recipe, fine: Recipe) -> dict[str, Any]:
    """Train on all folds but the first, measure on it; write the model into ``target``, the summary beside it.

    Raise FileNotFoundError unless the folds of the fast tier are in ``work``.
    """
    films = read_films(data, INTENSIVE.side)
    test = films.fold(0)
    with np.load(work / "fold-0.npz") as saved:
        peers = saved["logits"].astype(np.float64)
        if not np.array_equal(saved["rows"], np.flatnonzero(test)):
            raise ValueError(f"{work / 'fold-0.npz'} is of another set of films.")
    apart = ~test & films.validation()
    train = ~test & ~apart
    first = _stage(work / "intensive-coarse.safetensors", films, train, apart, coarse, None)
    fitted = _stage(work / "intensive.safetensors", films, train, apart, fine, first)
    # What ships is measured: its frozen part is kept as float16.
    round_base(fitted.network)
    known = films.of(apart)
    setting = Setting.of(_logits(fitted.network, known[0]), known[1])
    labels, patients = films.labels[test], [films.patients[row] for row in np.flatnonzero(test)]
    judged = Judged.none(len(labels))
    judged.fill(np.ones(len(labels), dtype=bool), _logits(fitted.network, films.images[test]), setting)
    measured = figures_of(judged, labels, patients)
    measured["fast_auroc"] = auroc(labels, peers)
    measured["less_fast_interval"] = difference_interval(labels, judged.chance, peers, patients)
    release = Release(
        version="1.0.0",
        dataset=f"NIH ChestX-ray14 subset, {measured['patients']} patients it was not trained on",
        measured=measured,
        setting=setting,
        slot=INTENSIVE.name,
        halve=True,
    )
    told = publish(fitted.network, release, films.images[train], known, target)
    recipes = {"recipe": asdict(fine), "recipe_before": asdict(coarse), "history_before": first.history}
    write_summary(target, {**recipes, "measured": measured, **_story(fitted), **told})
    return measured


def _stage(path: Path, films: Films, train: Rows, apart: Rows, recipe: Recipe, before: Fitted | None) -> Fitted:
    """Train one stage, or read what an earlier call left at ``path``."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        start = None if before is None else before.network
        known = films.of(train & ~films.doubtful), films.of(apart)
        fit(*known, recipe, Reporter(f"{recipe.side} pixels"), start).save(path)
    return Fitted.load(path, recipe.tier)


def _logits(network: Network, images: Images) -> Array:
    return predict(network, images).logits.astype(np.float64)


def _story(fitted: Fitted) -> dict[str, Any]:
    return {"best_epoch": fitted.best_epoch, "history": fitted.history}


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build a reference model of the X-ray plugin.")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images/")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for what each training gave; kept between runs"
    )
    parser.add_argument("--tier", choices=sorted(TIERS), default=FAST.name)
    parser.add_argument("--target", type=Path, help="folder of the model; else that of the plugin")
    parser.add_argument("--processes", type=int, default=2, help="cores to use")
    chosen = parser.parse_args(arguments)
    target = chosen.target or Path(__file__).parent / f"pneumonia-{chosen.tier}"
    torch.set_num_threads(chosen.processes)
    if chosen.tier == FAST.name:
        measured = build_fast(chosen.data, chosen.work, target, Recipe(), processes=chosen.processes)
    else:
        measured = build_intensive(chosen.data, chosen.work, target, COARSE, FINE)
    sys.stdout.write(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
