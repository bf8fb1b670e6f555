"""Builds the reference model from the NIH chest X-rays: ``python -m clinic_ai_xray.reference.build --data DIR``.

DIR holds ``labels.csv`` (columns file, patient_id, folder_label, flag_folder_vs_nih) and the images it names.
The split is by patient and follows from the patient's identifier alone. Rows whose two sources of labels
disagree are kept out of training and left in validation and test.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import ValidationFigures
from clinic_ai.ml.calibration import abstention_band, fit_temperature, probabilities
from clinic_ai.ml.metrics import at_threshold, auroc, auroc_interval, best_threshold, expected_calibration_error
from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.fitting import Images, Labels, Recipe, fit, predict
from clinic_ai_xray.model_files import write_manifest
from clinic_ai_xray.network import SIDE, describe, export
from clinic_ai_xray.served import map_scale, without_side

CONDITION = "pneumonia"
ABSTAIN = 0.15
"""Share of validation images nearest to the operating point on which the model abstains."""
SOURCE = (
    "Trained on a part of NIH ChestX-ray14 (735 frontal chest X-rays). Images provided by the NIH Clinical Center; "
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE CVPR 2017."
)


@dataclass(frozen=True)
class Part:
    """One side of the split: images (n, 1, 128, 128), labels (n,) and the patient of each."""

    images: Images
    labels: Labels
    patients: tuple[str, ...]


def split_of(patient: str) -> str:
    """Return train, validation or test (65, 15, 20 %) for a patient; the same in every run and for any other set."""
    share = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:4]) / 2**32
    return "validation" if share < 0.15 else "test" if share < 0.35 else "train"


def read_parts(data: Path) -> dict[str, Part]:
    """Return the three parts of the split, by name."""
    rows: dict[str, list[tuple[npt.NDArray[np.float32], int, str]]] = {"train": [], "validation": [], "test": []}
    with (data / "labels.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            part = split_of(row["patient_id"])
            if part == "train" and row["flag_folder_vs_nih"] == "1":
                continue
            label = int(row["folder_label"] == "Pneumonia")
            rows[part].append((read_input(data / row["file"], SIDE), label, row["patient_id"]))
    return {
        name: Part(
            stack([image for image, _, _ in part]),
            np.array([label for _, label, _ in part], dtype=np.int64),
            tuple(patient for _, _, patient in part),
        )
        for name, part in rows.items()
    }


def build(data: Path, target: Path, recipe: Recipe) -> ValidationFigures:
    """Train, calibrate, measure; write ``model.onnx`` and ``model.toml`` into ``target``, the summary beside it."""
    began = time.monotonic()
    parts = read_parts(data)
    train, validation, test = parts["train"], parts["validation"], parts["test"]
    fitted = fit((train.images, train.labels), (validation.images, validation.labels), recipe, _say)
    logits, maps = predict(fitted.network, validation.images)
    _, mirrored = predict(fitted.network, np.ascontiguousarray(validation.images[..., ::-1]))
    temperature = fit_temperature(logits, validation.labels)
    calibrated = probabilities(logits, temperature)
    threshold = best_threshold(validation.labels, calibrated)
    band = abstention_band(calibrated, threshold, abstain=ABSTAIN)

    test_logits, _ = predict(fitted.network, test.images)
    test_probabilities = probabilities(test_logits, temperature)
    low, high = auroc_interval(test.labels, test_logits, test.patients)
    point = at_threshold(test.labels, test_probabilities, threshold)
    figures = ValidationFigures(
        dataset=f"NIH ChestX-ray14 subset, {len(set(test.patients))} patients kept apart",
        positives=int(test.labels.sum()),
        negatives=int((1 - test.labels).sum()),
        auroc=round(auroc(test.labels, test_logits), 4),
        auroc_low=round(low, 4),
        auroc_high=round(high, 4),
        sensitivity=round(point.sensitivity, 4),
        specificity=round(point.specificity, 4),
    )
    target.mkdir(parents=True, exist_ok=True)
    path = target / "model.onnx"
    difference = export(fitted.network, path, describe(condition=CONDITION, temperature=temperature), test.images[:64])
    manifest = ModelManifest(
        plugin="xray",
        name="pneumonia-fast",
        version="1.0.0",
        format="onnx",
        files=(),
        licence="NIH ChestX-ray14 terms: free use; acknowledge the NIH Clinical Center and cite Wang et al., CVPR 2017",
        clinical_use=False,
        commercial_use=False,
        reference=True,
        source=SOURCE,
        intended_use="Shows that the appliance works. Reference model, not for clinical use.",
        validation={CONDITION: figures},
        parameters={
            "condition": CONDITION,
            "label": "Pneumonia",
            "tier": "fast",
            **describe(condition=CONDITION, temperature=temperature),
            "threshold": band.threshold,
            "abstain_low": band.low,
            "abstain_high": band.high,
            "map_scale": map_scale(without_side(maps, mirrored), validation.labels),
        },
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_manifest(target, manifest, [path])
    outside = (test_probabilities < band.low) | (test_probabilities >= band.high)
    summary = {
        "images": {name: len(part.labels) for name, part in parts.items()},
        "patients": {name: len(set(part.patients)) for name, part in parts.items()},
        "recipe": asdict(recipe),
        "best_epoch": fitted.best_epoch,
        "history": fitted.history,
        "temperature": temperature,
        "test": {
            **figures.model_dump(),
            "expected_calibration_error": expected_calibration_error(test.labels, test_probabilities),
            "abstained": float(1 - outside.mean()),
            "accuracy_when_it_speaks": float(
                ((test_probabilities >= threshold) == test.labels.astype(bool))[outside].mean()
            ),
        },
        "export_parity": difference,
        "seconds": round(time.monotonic() - began, 1),
    }
    target.with_name(f"{target.name}.training_summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return figures


def _say(entry: dict[str, float]) -> None:
    sys.stderr.write(f"epoch {entry['epoch']:.0f}: loss {entry['loss']:.4f}, AUROC {entry['validation_auroc']:.4f}\n")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the reference model of the X-ray plugin.")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images/")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent / "pneumonia-fast")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    figures = build(chosen.data, chosen.target, Recipe(epochs=chosen.epochs))
    sys.stdout.write(figures.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
