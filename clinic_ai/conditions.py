"""Conditions that a clinic adds to a plugin: files ``conditions/<plugin>/<anything>.toml`` of the home directory.

Each file describes one condition (``ConditionInfo``): its key in the table of codes, and the body parts and views it is
judged on. The plugin then takes models for it. A file of a condition that the plugin has already describes it anew.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from clinic_ai.additions import add_all
from clinic_ai.contract import ConditionInfo, PluginManifest
from clinic_ai.plugins import PluginCatalogue

FOLDER = "conditions"


def add_conditions(catalogue: PluginCatalogue, folder: Path, known: Collection[str]) -> None:
    """Add the conditions below ``folder`` to the manifests; ``known`` are the keys of the table of codes.

    A file that cannot be used is a problem of the catalogue that says what to mend; the others count.
    """

    def add(manifest: PluginManifest, condition: ConditionInfo) -> PluginManifest:
        if condition.code not in known:
            near = get_close_matches(condition.code, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"the table of codes has no {condition.code!r}{hint}")
        others = tuple(one for one in manifest.conditions if one.code != condition.code)
        return manifest.model_copy(update={"conditions": (*others, condition)})

    add_all(catalogue, folder, "condition", ConditionInfo, add)
