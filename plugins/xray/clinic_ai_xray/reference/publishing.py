"""From a trained network to a model that ships: distance, export, manifest, summary."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinic_ai.contract import ModelManifest
from clinic_ai.domain import ValidationFigures
from clinic_ai.ml.model_files import write_manifest
from clinic_ai_xray import distance
from clinic_ai_xray.fitting import Images, Labels, predict
from clinic_ai_xray.network import Network, describe, export
from clinic_ai_xray.reference.measuring import ERROR, Setting
from clinic_ai_xray.served import map_scale, without_side

CONDITION = "pneumonia"
_SOURCE = (
    "Trained on a part of NIH ChestX-ray14 (735 frontal chest X-rays). Images provided by the NIH Clinical Center; "
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE CVPR 2017."
)
_CHECKED = 64


@dataclass(frozen=True)
class Release:
    """What a model that ships says of itself. ``measured`` has AUROC, sensitivity, specificity and their intervals."""

    version: str
    dataset: str
    measured: dict[str, Any]
    setting: Setting
    slot: str = "main"
    halve: bool = False


def publish(
    network: Network, release: Release, train: Images, apart: tuple[Images, Labels], target: Path
) -> dict[str, Any]:
    """Write ``model.onnx`` and ``model.toml`` into ``target``; return what the summary says of it.

    ``train`` are images of training, ``apart`` others with their labels, which fit the limits of distance and map.
    Raise ModelError if torch and the exported graph disagree.
    """
    tier = network.tier
    images, labels = apart
    seen, mirrored = predict(network, images), predict(network, np.ascontiguousarray(images[..., ::-1]))
    buffers = distance.fit_both(
        (distance.looks(train), distance.looks(images)), (predict(network, train).pooled, seen.pooled)
    )
    network.distance.load_state_dict({name: torch.from_numpy(value) for name, value in buffers.items()})
    target.mkdir(parents=True, exist_ok=True)
    path = target / "model.onnx"
    described = describe(tier, condition=CONDITION, temperature=release.setting.temperature)
    difference = export(network, path, described, images[:_CHECKED], halve=release.halve)
    band = release.setting.band
    parameters = {
        "condition": CONDITION,
        "label": "Pneumonia",
        "tier": tier.name,
        **described,
        "threshold": band.threshold,
        "abstain_low": band.low,
        "abstain_high": band.high,
        "promised_error": ERROR,
        "map_scale": map_scale(without_side(seen.maps, mirrored.maps), labels),
    }
    write_manifest(target, _manifest(release, tier.name, parameters), [path])
    return {"export_parity": difference, "bytes": path.stat().st_size}


def write_summary(target: Path, summary: dict[str, Any]) -> None:
    """Write ``summary`` beside the model directory ``target``."""
    target.with_name(f"{target.name}.training_summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _manifest(release: Release, tier: str, parameters: dict[str, Any]) -> ModelManifest:
    measured = release.measured
    names = ("auroc", "sensitivity", "specificity")
    points = {name: round(measured[name], 4) for name in names}
    bounds = {
        f"{name}_{end}": round(value, 4)
        for name in names
        for end, value in zip(("low", "high"), measured[f"{name}_interval"], strict=True)
    }
    validation = ValidationFigures(
        dataset=release.dataset,
        positives=measured["positives"],
        negatives=measured["images"] - measured["positives"],
        **points,
        **bounds,
    )
    return ModelManifest(
        plugin="xray",
        slot=release.slot,
        name=f"pneumonia-{tier}",
        version=release.version,
        format="onnx",
        files=(),
        licence="NIH ChestX-ray14 terms: free use; acknowledge the NIH Clinical Center and cite Wang et al., CVPR 2017",
        clinical_use=False,
        commercial_use=False,
        reference=True,
        source=_SOURCE,
        intended_use="Shows that the appliance works. Reference model, not for clinical use.",
        validation={CONDITION: validation},
        parameters=parameters,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
