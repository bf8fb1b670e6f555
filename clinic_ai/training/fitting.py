"""Which configuration of a plugin's networks fits a machine, told by its trainer in a child; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from clinic_ai.confinement import Confinement
from clinic_ai.contract import PluginManifest
from clinic_ai.describing import FitRequest, FitResult, FitTask, GpuRoom
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.hardware import Reading
from clinic_ai.processes import ChildSpec, Crew, computing_on
from clinic_ai.settings import TrainingSettings

TIMEOUT_S = 600.0
_MIB = 1 << 20


def machine_of(
    plugin: str, reading: Reading, *, memory_mb: int | None, gpu_memory_mb: int | None, cpus: int | None
) -> FitTask:
    """Return the question about the machine that was read, changed where something else is said.

    All its memory counts, not what is free at the moment. 0 MiB of a GPU mean that there is none.
    """
    gpus = tuple(GpuRoom(name=gpu.name, memory_mb=gpu.memory_mb) for gpu in reading.gpus)
    if gpu_memory_mb is not None:
        gpus = (GpuRoom(name="GPU", memory_mb=gpu_memory_mb),) if gpu_memory_mb else ()
    memory = reading.memory_mb if memory_mb is None else memory_mb
    return FitTask(plugin=plugin, memory_mb=memory, cpus=reading.cpus if cpus is None else cpus, gpus=gpus)


def fitted(crew: Crew, manifests: Mapping[str, PluginManifest], task: FitTask, settings: TrainingSettings) -> FitResult:
    """Ask the trainer of ``task.plugin``.

    Raise NotFound if there is no such plugin, Conflict if it cannot learn, ChildError with what the trainer says if it
    cannot tell.
    """
    manifest = manifests.get(task.plugin)
    if manifest is None:
        raise NotFound(f"There is no plugin {task.plugin}.", remedy="`clinic-ai plugin list` shows the installed ones.")
    if manifest.trainer is None:
        raise Conflict(f"The plugin {task.plugin} cannot learn: it has no trainer.", remedy="Choose another plugin.")
    spec = ChildSpec(
        kind="trainer",
        name=f"{task.plugin} trainer",
        confinement=Confinement(data=settings.max_memory_mb * _MIB),
        environment=computing_on(settings.threads),
    )
    child = crew.start(spec)
    try:
        return child.call("fit", FitRequest(trainer=manifest.trainer, task=task), FitResult, timeout_s=TIMEOUT_S)
    finally:
        child.kill()
