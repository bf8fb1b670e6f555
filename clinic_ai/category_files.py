"""Categories that a clinic adds to a plugin: files ``categories/<plugin>/<anything>.toml`` of the home directory.

Each file describes one category (``CategoryInfo``): its names, codes and questions. The plugin then takes adapters for
it. A file of a category that the plugin has already describes it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clinic_ai.additions import add_all
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import CategoryInfo, categories_named
from clinic_ai.plugins import PluginCatalogue, PluginProblem

FOLDER = "categories"
RESERVED = frozenset({"base", "main"})
"""Slots of models that are no categories."""


def add_categories(catalogue: PluginCatalogue, folder: Path) -> None:
    """Add the categories below ``folder`` to the manifests.

    A file that cannot be used is a problem of the catalogue that says what to mend; the others count. Names that two
    categories of a plugin itself share are one too: images called so stay without a category.
    """
    for manifest in catalogue.manifests.values():
        if shared := _shared(manifest.categories):
            sentence = f"Plugin {manifest.name} gives a name to two categories: {shared}; it finds neither."
            catalogue.problems.append(PluginProblem(manifest.name, sentence))
    add_all(catalogue, folder, "category", CategoryInfo, _add)


def _add(manifest: PluginManifest, category: CategoryInfo) -> PluginManifest:
    if not manifest.categories:
        raise ValueError(f"the plugin {manifest.name} answers no questions by category")
    if category.key in RESERVED:
        raise ValueError(f"key: {category.key} is no name for a category; write another")
    others = tuple(known for known in manifest.categories if known.key != category.key)
    if shared := _shared((category,), others):
        raise ValueError(f"two categories would have one name: {shared}; take it out of one of them")
    # In the place of the one it describes anew, so that lists keep their order.
    found = tuple(category if known.key == category.key else known for known in manifest.categories)
    return manifest.model_copy(update={"categories": found if category in found else (*found, category)})


def _shared(categories: Sequence[CategoryInfo], others: Sequence[CategoryInfo] = ()) -> str:
    """Return in words the first name that one of these shares with another of them or of ``others``."""
    every = (*categories, *others)
    for one in categories:
        for name in (one.key, one.label, *one.aliases):
            for other in categories_named(name, every):
                if other.key != one.key:
                    return f"“{name}” is {one.key} and {other.key}"
    return ""
