"""Which model a training run starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from clinic_ai.contract import LoadedModel, PluginManifest
from clinic_ai.domain import ModelRef
from clinic_ai.errors import ModelError
from clinic_ai.store.runs import RecipeValue

BASE_SLOT = "base"
"""Slot of the model that the adapters of a plugin are trained on: never on what another adapter made of it."""


class Bases(Protocol):
    """What is asked of the registry about models to start from."""

    def active(self, plugin: str) -> tuple[ModelRef, ...]:
        """Return the active models of a plugin, one per slot."""

    def spare(self, plugin: str) -> tuple[ModelRef, ...]:
        """Return the reference models of a plugin that are not in use."""

    def named(self, plugin: str, name: str, version: str) -> ModelRef:
        """Return a model by its name. Raise NotFound."""

    def loaded(self, ref: ModelRef) -> LoadedModel:
        """Return the directory of a model whose files all have their hash. Raise ModelError or NotFound."""


def base_of(manifest: PluginManifest, recipe: Mapping[str, RecipeValue], registry: Bases) -> ModelRef | None:
    """Return the active model of the slot the recipe names, else the one that fits the recipe best.

    That is one of its tier, if there is one, a reference model included; of those one of its condition, one that is
    in use, the one of ``main``. Where adapters are trained, for a plugin that learns from answers, it is the base.
    Raise ModelError if the recipe names a slot that has no active model.
    """
    active = {ref.slot: ref for ref in registry.active(manifest.name)}
    if manifest.labels == "answers":
        return active.get(BASE_SLOT)
    wanted = recipe.get("slot")
    if wanted is not None and wanted not in active:
        raise ModelError(
            f"No model of {manifest.name} is active in the slot {wanted}.",
            remedy=f"Choose one of: {', '.join(sorted(active)) or 'none is active'}.",
        )
    if wanted is not None:
        return active[str(wanted)]

    def fits(ref: ModelRef, key: str) -> bool:
        asked = recipe.get(key)
        return asked is not None and registry.loaded(ref).manifest.parameters.get(key) == asked

    known = list(active.values())
    if "tier" in recipe:
        known = [ref for ref in (*known, *registry.spare(manifest.name)) if fits(ref, "tier")] or known
    used = set(active.values())
    return max(known, key=lambda ref: (fits(ref, "condition"), ref in used, ref.slot == "main"), default=None)
