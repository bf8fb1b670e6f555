"""What the manifests of the reference models have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinic_ai.contract import LoadedModel, ModelManifest
from clinic_ai.domain import ValidationFigures
from clinic_ai.ml.model_files import open_model, write_manifest


def seal(
    target: Path,
    files: Sequence[Path],
    name: str,
    *,
    slot: str = "main",
    parameters: Mapping[str, Any] | None = None,
    validation: Mapping[str, ValidationFigures] | None = None,
) -> LoadedModel:
    """Write the manifest of what lies in ``target``; return it as an engine is given it."""
    manifest = ModelManifest(
        plugin="ct",
        slot=slot,
        name=name,
        version="1.0.0",
        format="safetensors",
        files=(),
        licence="Apache-2.0",
        clinical_use=False,
        commercial_use=True,
        reference=True,
        source="Trained on chests drawn by software (clinic_ai_ct.phantoms); no image of a patient was used.",
        intended_use="Shows that the appliance works. Reference model, not for clinical use.",
        validation=dict(validation or {}),
        parameters=dict(parameters or {}),
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_manifest(target, manifest, list(files))
    return open_model(target)
