"""What the ultrasound plugin is and claims; light, for the daemon."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.domain import CategoryInfo
from clinic_ai.hookspecs import hookimpl
from clinic_ai_ultrasound import __version__

_REFERENCE = ("base", "fetal_head", "abdomen", "femur", "thorax", "standard_nt", "non_standard_nt")


def _categories() -> tuple[CategoryInfo, ...]:
    text = files("clinic_ai_ultrasound").joinpath("categories.toml").read_text(encoding="utf-8")
    return tuple(CategoryInfo.model_validate(entry) for entry in tomllib.loads(text)["category"])


@hookimpl
def describe_plugin() -> PluginManifest:
    """Describe the plugin. Every ultrasound study is claimed; what cannot be answered about is refused in words."""
    return PluginManifest(
        name="ultrasound",
        version=__version__,
        summary="Answers questions about ultrasound images by category; learns from a sheet of questions and answers.",
        claims=(Condition(modality=("US",)),),
        categories=_categories(),
        labels="answers",
        capabilities=("analyse", "ask"),
        model_formats=("safetensors",),
        # The base first: an adapter can be active only where its base is.
        reference_models=tuple(f"clinic_ai_ultrasound:reference/{name}" for name in _REFERENCE),
        memory_mb=2048,
        devices=("cpu", "cuda"),
        timeout_s=300.0,
        engine="clinic_ai_ultrasound.engine:UltrasoundEngine",
        trainer="clinic_ai_ultrasound.trainer:UltrasoundTrainer",
    )
