"""The light half: what this plugin is. The daemon imports only this."""

from __future__ import annotations

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.hookspecs import hookimpl
from clinic_ai_echo import __version__


@hookimpl
def describe_plugin() -> PluginManifest:
    """Return the manifest."""
    return PluginManifest(
        name="echo",
        version=__version__,
        summary="Says what was received. It judges nothing.",
        # Not "*" and neither CR nor DX: a radiograph that no plugin judged must not look answered.
        claims=(Condition(modality=("US", "CT", "MR", "OT")),),
        needs_model=False,
        memory_mb=64,
        timeout_s=10,
        engine="clinic_ai_echo.engine:EchoEngine",
    )
