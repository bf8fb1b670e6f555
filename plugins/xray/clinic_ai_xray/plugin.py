"""What the X-ray plugin is and claims; light, for the daemon."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from clinic_ai.contract import Condition, ConditionInfo, PluginManifest
from clinic_ai.hookspecs import hookimpl

_RADIOGRAPHY = ("CR", "DX", "RG")


def _conditions() -> tuple[ConditionInfo, ...]:
    text = files("clinic_ai_xray").joinpath("conditions.toml").read_text(encoding="utf-8")
    return tuple(ConditionInfo.model_validate(entry) for entry in tomllib.loads(text)["condition"])


@hookimpl
def describe_plugin() -> PluginManifest:
    """Describe the plugin.

    A radiograph is claimed when its body part or a description says chest. One that says neither is left to the
    clinic's own rules: a model for the chest must not guess that a picture shows one.
    """
    return PluginManifest(
        name="xray",
        version="0.1.0",
        summary="Judges X-rays, chest films to begin with: calibrated findings, a heat map; learns from corrections.",
        claims=(
            Condition(modality=_RADIOGRAPHY, body_part=("CHEST*", "THORAX*", "LUNG*")),
            Condition(modality=_RADIOGRAPHY, study_description=("*CHEST*", "*THORAX*", "CXR*")),
            Condition(modality=_RADIOGRAPHY, series_description=("*CHEST*", "*THORAX*", "CXR*")),
        ),
        conditions=_conditions(),
        capabilities=("analyse",),
        model_formats=("onnx",),
        memory_mb=512,
        timeout_s=60.0,
        engine="clinic_ai_xray.engine:XrayEngine",
        trainer="clinic_ai_xray.trainer:XrayTrainer",
        reference_models=("clinic_ai_xray:reference/pneumonia-fast",),
        spare_models=("clinic_ai_xray:reference/pneumonia-intensive",),
    )
