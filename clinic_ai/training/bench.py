"""How models fare on this machine, and their int8 versions: measured in a child, kept only if they are worth it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clinic_ai.benching import INT8, BenchRequest, BenchResult, BenchTask
from clinic_ai.contract import Dataset, Device, Limits, PluginManifest
from clinic_ai.domain import ModelRef, Word
from clinic_ai.errors import ChildMisbehaved, Conflict
from clinic_ai.home import Home
from clinic_ai.processes import ChildSpec, Crew
from clinic_ai.store.gates import entering
from clinic_ai.training.gate import Gate
from clinic_ai.training.registry import Registry

_PREFIX = ".bench-"


class Benched(Word):
    """How a model was measured; ``candidate`` is its int8 version in the registry, None if it was not taken."""

    model: ModelRef
    result: BenchResult
    dataset_id: str = ""
    dataset_notes: tuple[str, ...] = ()
    """What was noted when the images were frozen; notes name files."""
    candidate: ModelRef | None = None


class Bench:
    """Measures one model at a time."""

    def __init__(self, home: Home, registry: Registry, crew: Crew, gate: Gate | None = None) -> None:
        self._home = home
        self._registry = registry
        self._crew = crew
        self._gate = gate

    def refuse_second(self, model: ModelRef) -> None:
        """Raise Conflict if the model has an int8 version already."""
        version = model.version + INT8
        there = {(known.plugin, known.name, known.version) for known in self._registry.list_models()}
        if (model.plugin, model.name, version) in there:
            raise Conflict(
                f"{model.plugin}/{model.name}/{model.version} has an int8 version already.",
                remedy=f"Measure it without images: `clinic-ai model bench {model.plugin} {model.name} {version}`.",
            )

    def measure(
        self,
        manifest: PluginManifest,
        model: ModelRef,
        dataset: Dataset | None,
        actor: str,
        *,
        spec: ChildSpec,
        limits: Limits,
        timeout_s: float,
    ) -> Benched:
        """Measure a model in a child started as ``spec``, and import its int8 version as a candidate if it is taken.

        Raise ChildError with what the trainer says if it cannot, ModelError if the files of the model are damaged.
        """
        assert manifest.trainer is not None
        with self._folder() as folder:
            task = BenchTask(
                model=self._registry.loaded(model),
                # The notes name files, and files are named after patients: they are for people here.
                dataset=None if dataset is None else dataset.model_copy(update={"notes": ()}),
                directory=str(folder),
                limits=limits,
                device=Device(threads=limits.threads, memory_mb=limits.memory_mb),
            )
            # What libraries write aside goes there too, and goes with it.
            child = self._crew.start(replace(spec, environment=(*spec.environment, ("TMPDIR", str(folder)))))
            try:
                request = BenchRequest(trainer=manifest.trainer, task=task)
                result = child.call("bench", request, BenchResult, timeout_s=timeout_s)
            finally:
                child.kill()
            candidate = None
            if result.taken:
                if Path(result.model_directory) != folder / "model" or (folder / "model").is_symlink():
                    raise ChildMisbehaved("The trainer named a model directory that is not where it was told to write.")
                candidate = self._enter(manifest, folder / "model", dataset, actor, spec=spec, limits=limits)
        return Benched(
            model=model,
            result=result.model_copy(update={"model_directory": ""}),
            dataset_id="" if dataset is None else dataset.dataset_id,
            dataset_notes=() if dataset is None else dataset.notes,
            candidate=candidate,
        )

    def _enter(
        self,
        manifest: PluginManifest,
        place: Path,
        dataset: Dataset | None,
        actor: str,
        *,
        spec: ChildSpec,
        limits: Limits,
    ) -> ModelRef:
        """Enter a candidate, with the report of its examination if there are images to examine it on."""
        then = None
        if self._gate is not None and dataset is not None:
            device = Device(threads=limits.threads, memory_mb=limits.memory_mb)
            model = self._registry.outside(place)
            report = self._gate.examine(manifest, model, dataset, spec=spec, limits=limits, device=device)
            then = entering(report)
        return self._registry.import_candidate(place, actor, then)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Give an empty folder, which is removed afterwards, and what an interrupted measurement left before."""
        runs = self._home.runs.absolute()
        for leftover in runs.glob(f"{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = runs / f"{_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
