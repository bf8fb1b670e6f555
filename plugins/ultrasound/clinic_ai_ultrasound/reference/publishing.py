"""From trained weights to models that ship: the files a base and an adapter have, and what their manifests say."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from clinic_ai.contract import LoadedModel, ModelManifest
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai_ultrasound.candidate import write_adapter
from clinic_ai_ultrasound.confidence import INTERCEPT, QUESTIONS, SLOPE, Calibration, listed
from clinic_ai_ultrasound.loading import BASE_SLOT
from clinic_ai_ultrasound.prompts import PROMPT_VERSION
from clinic_ai_ultrasound.reference.questions import questions_of

VERSION = "1.0.0"
_SUMMARY = "training_summary.json"
_DRAWINGS = "phantoms drawn by software"
_HC18 = (
    "images of HC18 (CC BY 4.0): van den Heuvel TLA, de Bruijn D, de Korte CL, van Ginneken B. Automated measurement "
    "of fetal head circumference using 2D ultrasound images. PLoS ONE 13(8): e0200412, 2018; "
    "https://doi.org/10.5281/zenodo.1327317; changed: shifted, turned, scaled, mirrored"
)
_LICENCES = {True: "CC BY 4.0 (attribution: see source)", False: "Apache-2.0"}


@dataclass(frozen=True)
class Words:
    """What a manifest says of a model beside its parameters; ``real`` is whether HC18 images were learned from."""

    name: str
    slot: str
    real: bool
    learned: str
    base_digest: str | None = None


def seal(directory: Path, words: Words, parameters: dict[str, float | int | str | bool]) -> LoadedModel:
    """Write the model.toml of all that lies in ``directory``; return the model as an engine takes it."""
    made_of = (
        f"{_HC18}, and {_DRAWINGS}" if words.real and words.slot == BASE_SLOT else _HC18 if words.real else _DRAWINGS
    )
    manifest = ModelManifest(
        plugin="ultrasound",
        slot=words.slot,
        name=words.name,
        version=VERSION,
        format="safetensors",
        files=(),
        base_digest=words.base_digest,
        licence=_LICENCES[words.real],
        clinical_use=False,
        commercial_use=True,
        reference=True,
        source=f"{words.learned} Made of {made_of}.",
        intended_use="Shows that the appliance works. Reference model, not for clinical use.",
        parameters=parameters,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_manifest(directory, manifest, sorted(p for p in directory.iterdir() if p.name != "model.toml"))
    return open_model(directory)


def seal_base(directory: Path, **parameters: float) -> LoadedModel:
    """Write the model.toml of a base."""
    words = Words(
        name="reference-base",
        slot=BASE_SLOT,
        real=True,
        learned="Vision tower and Q-Former learned to say where a structure lies, the language model to answer of it.",
    )
    return seal(directory, words, {"family": "blip2", "dtype": "float32", **parameters})


def publish_adapter(
    adapted: PeftModel,
    base: LoadedModel,
    category: str,
    directory: Path,
    calibration: Calibration | None,
    *,
    real: bool,
) -> LoadedModel:
    """Write an adapter with the processor of its base and its model.toml; return it for an engine."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    write_adapter(directory, base, adapted)
    words = Words(
        name=f"{category.replace('_', '-')}-lora",
        slot=category,
        real=real,
        learned=f"LoRA adapter over reference-base {VERSION}.",
        base_digest=base.ref.digest,
    )
    confidence = {} if calibration is None else {SLOPE: calibration.slope, INTERCEPT: calibration.intercept}
    learned = {QUESTIONS: listed(questions_of(category))}
    return seal(directory, words, {"category": category, "prompt_version": PROMPT_VERSION, **confidence, **learned})


def write_summary(target: Path, summary: dict[str, Any]) -> None:
    """Write ``summary`` beside the model directory ``target``."""
    target.with_name(f"{target.name}.{_SUMMARY}").write_text(json.dumps(summary, indent=1) + "\n")
