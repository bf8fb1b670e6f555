"""What the CT plugin is and claims; light, for the daemon."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from clinic_ai.contract import Condition, ConditionInfo, PluginManifest
from clinic_ai.hookspecs import hookimpl

_CHEST = ("*CHEST*", "*THORAX*", "*LUNG*")


def _conditions() -> tuple[ConditionInfo, ...]:
    text = files("clinic_ai_ct").joinpath("conditions.toml").read_text(encoding="utf-8")
    return tuple(ConditionInfo.model_validate(entry) for entry in tomllib.loads(text)["condition"])


@hookimpl
def describe_plugin() -> PluginManifest:
    """Describe the plugin.

    A CT is claimed when its body part or a description says chest; one that says neither is left to the clinic's own
    rules. Which of its series is read, and which is none to judge, the engine decides.
    """
    return PluginManifest(
        name="ct",
        version="0.1.0",
        summary="Judges CT of the chest: calibrated findings, masks of lesions, and a report of what they support.",
        claims=(
            Condition(modality=("CT",), body_part=_CHEST),
            Condition(modality=("CT",), study_description=(*_CHEST, "CT*PULM*")),
            Condition(modality=("CT",), series_description=_CHEST),
        ),
        conditions=_conditions(),
        labels="volumes",
        capabilities=("analyse",),
        model_formats=("safetensors", "onnx"),
        memory_mb=3072,
        devices=("cpu", "cuda"),
        timeout_s=1800.0,
        engine="clinic_ai_ct.engine:CTEngine",
        trainer="clinic_ai_ct.trainer:CTTrainer",
        reference_models=("clinic_ai_ct:reference/chest",),
        spare_models=("clinic_ai_ct:reference/segmenter",),
    )
