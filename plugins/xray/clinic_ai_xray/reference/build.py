"""Builds the reference model from the NIH chest X-rays: ``python -m clinic_ai_xray.reference.build --data DIR``.

Trains a network for each of five folds and prints what the recipe is worth (see ``folds``), then trains the one that
ships on all patients but those that choose the epoch. Its temperature, operating point and band come from the logits
of the folds, each of a film that its network had not seen. What a fold gave is kept in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import ValidationFigures
from clinic_ai_xray import distance
from clinic_ai_xray.fitting import Recipe, fit, predict
from clinic_ai_xray.model_files import write_manifest
from clinic_ai_xray.network import describe, export
from clinic_ai_xray.reference.films import read_films
from clinic_ai_xray.reference.folds import Setting, figures, judge_by_folds
from clinic_ai_xray.served import map_scale, without_side
from clinic_ai_xray.tiers import FAST

CONDITION = "pneumonia"
SOURCE = (
    "Trained on a part of NIH ChestX-ray14 (735 frontal chest X-rays). Images provided by the NIH Clinical Center; "
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE CVPR 2017."
)


def build(data: Path, work: Path, target: Path, recipe: Recipe, *, processes: int) -> dict[str, Any]:
    """Measure, train, calibrate; write ``model.onnx`` and ``model.toml`` into ``target``, the summary beside it."""
    began = time.monotonic()
    films = read_films(data)
    logits = judge_by_folds(data, work, recipe, processes=processes)
    measured = figures(films, logits)
    setting = Setting.of(logits, films.labels)
    apart = films.validation()
    fitted = fit(films.of(~apart & ~films.doubtful), films.of(apart), recipe, _say)
    network, (images, labels) = fitted.network, films.of(apart)
    seen, mirrored = predict(network, images), predict(network, np.ascontiguousarray(images[..., ::-1]))
    buffers = distance.fit(predict(network, films.images[~apart]).pooled)
    network.distance.load_state_dict({name: torch.from_numpy(value) for name, value in buffers.items()})

    target.mkdir(parents=True, exist_ok=True)
    path = target / "model.onnx"
    described = describe(FAST, condition=CONDITION, temperature=setting.temperature)
    difference = export(network, path, described, images[:64])
    parameters = {
        "condition": CONDITION,
        "label": "Pneumonia",
        "tier": FAST.name,
        **described,
        "threshold": setting.band.threshold,
        "abstain_low": setting.band.low,
        "abstain_high": setting.band.high,
        "map_scale": map_scale(without_side(seen.maps, mirrored.maps), labels),
        "distance_limit": distance.limit(buffers, seen.pooled),
    }
    write_manifest(target, _manifest(measured, parameters), [path])
    summary = {
        "recipe": asdict(recipe),
        "folds": measured,
        "best_epoch": fitted.best_epoch,
        "history": fitted.history,
        "export_parity": difference,
        "seconds": round(time.monotonic() - began, 1),
    }
    target.with_name(f"{target.name}.training_summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return measured


def _manifest(measured: dict[str, Any], parameters: dict[str, Any]) -> ModelManifest:
    names = ("auroc", "sensitivity", "specificity")
    points = {name: round(measured[name], 4) for name in names}
    bounds = {
        f"{name}_{end}": round(value, 4)
        for name in names
        for end, value in zip(("low", "high"), measured[f"{name}_interval"], strict=True)
    }
    validation = ValidationFigures(
        dataset=f"NIH ChestX-ray14 subset, five folds of {measured['patients']} patients",
        positives=measured["positives"],
        negatives=measured["images"] - measured["positives"],
        **points,
        **bounds,
    )
    return ModelManifest(
        plugin="xray",
        name="pneumonia-fast",
        version="1.1.0",
        format="onnx",
        files=(),
        licence="NIH ChestX-ray14 terms: free use; acknowledge the NIH Clinical Center and cite Wang et al., CVPR 2017",
        clinical_use=False,
        commercial_use=False,
        reference=True,
        source=SOURCE,
        intended_use="Shows that the appliance works. Reference model, not for clinical use.",
        validation={CONDITION: validation},
        parameters=parameters,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _say(entry: dict[str, float]) -> None:
    sys.stderr.write(f"epoch {entry['epoch']:.0f}: loss {entry['loss']:.4f}, AUROC {entry['validation_auroc']:.4f}\n")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the reference model of the X-ray plugin.")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images/")
    parser.add_argument("--work", type=Path, required=True, help="folder for what each fold gave; kept between runs")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent / "pneumonia-fast")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--processes", type=int, default=2, help="folds that are trained at a time")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.processes)
    recipe = Recipe(epochs=chosen.epochs)
    measured = build(chosen.data, chosen.work, chosen.target, recipe, processes=chosen.processes)
    sys.stdout.write(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
