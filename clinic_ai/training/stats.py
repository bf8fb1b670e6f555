"""What a model is made of and what its training would take, told by its trainer in a child; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from clinic_ai.confinement import Confinement
from clinic_ai.contract import Limits, LoadedModel, PluginManifest
from clinic_ai.describing import DescribeRequest, DescribeTask, ModelStats
from clinic_ai.domain import ModelRef, Word
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.processes import ChildSpec, Crew, computing_on
from clinic_ai.settings import TrainingSettings
from clinic_ai.store.runs import RecipeValue
from clinic_ai.training.starting import BASE_SLOT, Bases, base_of

TIMEOUT_S = 300.0
_MIB = 1 << 20


class Described(Word):
    """A model with what its trainer says of it."""

    model: ModelRef
    stats: ModelStats


class Stats:
    """Asks trainers about models of the registry."""

    def __init__(
        self, registry: Bases, manifests: Mapping[str, PluginManifest], crew: Crew, settings: TrainingSettings
    ) -> None:
        self._registry, self._manifests, self._crew, self._settings = registry, manifests, crew, settings

    def describe(
        self, plugin: str, model: tuple[str, str] | None, recipe: Mapping[str, RecipeValue], gpu_memory_mb: int
    ) -> Described:
        """Describe the model of this name and version, or what a run by ``recipe`` would start from.

        Raise NotFound if there is no such plugin or model, Conflict if the plugin cannot learn, ModelError if files are
        damaged, ChildError with what the trainer says if it cannot tell.
        """
        manifest = self._manifests.get(plugin)
        if manifest is None:
            raise NotFound(f"There is no plugin {plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
        if manifest.trainer is None:
            raise Conflict(f"The plugin {plugin} cannot learn: it has no trainer.", remedy="Choose another plugin.")
        ref = base_of(manifest, recipe, self._registry) if model is None else self._registry.named(plugin, *model)
        if ref is None:
            raise NotFound(
                f"No model of {plugin} is active.", remedy="Name one of `clinic-ai model list`, or promote one."
            )
        loaded = self._registry.loaded(ref)
        settings = self._settings
        task = DescribeTask(
            model=loaded,
            base=self._base(loaded),
            recipe=dict(recipe),
            limits=Limits(memory_mb=settings.max_memory_mb, threads=settings.threads, max_seconds=settings.max_seconds),
            gpu_memory_mb=gpu_memory_mb,
        )
        spec = ChildSpec(
            kind="trainer",
            name=f"{plugin} trainer",
            confinement=Confinement(data=settings.max_memory_mb * _MIB),
            environment=computing_on(1),
        )
        child = self._crew.start(spec)
        try:
            request = DescribeRequest(trainer=manifest.trainer, task=task)
            return Described(model=ref, stats=child.call("describe", request, ModelStats, timeout_s=TIMEOUT_S))
        finally:
            child.kill()

    def _base(self, model: LoadedModel) -> LoadedModel | None:
        """Return the base of an adapter, if it is the one in use."""
        digest = model.manifest.base_digest
        active = self._registry.active(model.ref.plugin) if digest is not None else ()
        refs = [ref for ref in active if ref.slot == BASE_SLOT and ref.digest == digest]
        return self._registry.loaded(refs[0]) if refs else None
