"""What answers about each category of the plugins, or why nothing does; the CLI asks the same when no daemon runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from clinic_ai.contract import PluginManifest
from clinic_ai.control.category_views import CategoryRow
from clinic_ai.control.views import ModelRow
from clinic_ai.domain import CategoryInfo, ModelState
from clinic_ai.errors import DatasetError
from clinic_ai.training.category_folders import folder_of, untrained

BASE = "base"
"""Slot of the model that the adapters of the categories stand on."""
_WAITING = frozenset({ModelState.CANDIDATE, ModelState.IMPORTED})


def category_rows(
    manifests: Mapping[str, PluginManifest], models: Iterable[ModelRow], labels: Path, *, base_answers: bool
) -> list[CategoryRow]:
    """Return the categories of all plugins, and what answers about each; ``labels`` is the home's folder of labels."""
    every = list(models)
    rows = []
    for manifest in (manifests[name] for name in sorted(manifests)):
        own = [model for model in every if model.plugin == manifest.name]
        for category in manifest.categories:
            model, note = _answers(category, own, labels / manifest.name, base_answers=base_answers)
            rows.append(
                CategoryRow(
                    plugin=manifest.name,
                    category=category.key,
                    label=category.label,
                    aliases=category.aliases,
                    codes=tuple(f"{code.scheme} {code.value}" for code in category.codes),
                    questions=category.questions,
                    answered_by=model,
                    note=note,
                )
            )
    return rows


def _answers(category: CategoryInfo, models: list[ModelRow], labels: Path, *, base_answers: bool) -> tuple[str, str]:
    """Return what answers about a category, and why nothing does."""
    active = {model.slot: model for model in models if model.state == ModelState.ACTIVE}
    if (adapter := active.get(category.key)) is not None:
        return f"{adapter.name} {adapter.version}", ""
    if base_answers and (base := active.get(BASE)) is not None:
        return f"{base.name} {base.version}, the base alone", ""
    if waiting := [m for m in models if m.slot == category.key and m.state in _WAITING]:
        words = f"{waiting[-1].plugin} {waiting[-1].name} {waiting[-1].version}"
        return "", f"category {category.label} has no active model: `clinic-ai model promote {words}` makes one active"
    try:
        folder = folder_of(category, labels)
        if lacks := untrained(category, folder):
            return "", lacks
    except DatasetError as error:
        return "", f"category {category.label} has no trained model: {error.message} {error.remedy}".rstrip(" .")
    order = f"`clinic-ai train run {labels.name} {folder}`"
    return "", f"category {category.label} has no trained model: a sheet lies in its folder, {order} trains one"
