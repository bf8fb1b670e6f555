"""What a run leaves: a model directory with network, adapters and manifest."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from clinic_ai.contract import LoadedModel, ModelManifest, Scores, TrainingTask
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.model_files import write_manifest
from clinic_ai.ml.unlike import LIMIT, STATISTICS, write_statistics
from clinic_ai_ct.lora import write_lora
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.saving import PLUGIN, write_network
from clinic_ai_ct.training.loading import Speech
from clinic_ai_ct.training.recipe import CTRecipe
from clinic_ai_ct.training.serving import Serving

DIRECTORY, SUMMARY = "model", "training_summary.json"


def write_candidate(
    task: TrainingTask,
    recipe: CTRecipe,
    network: CTNetwork,
    speech: Speech | None,
    scores: Scores,
    summary: dict[str, Any],
    serving: Serving,
) -> None:
    """Write network, adapters, summary and, last, the manifest into ``model`` of the run directory."""
    directory = Path(task.run_directory) / DIRECTORY
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():  # what an interrupted attempt left
        old.unlink()
    write_network(network, directory)
    if speech is not None:
        write_lora(speech.language, speech.config, directory)
    write_durably(directory / SUMMARY, json.dumps(summary, indent=1).encode())
    parameters = _parameters(serving, directory)
    write_manifest(directory, _manifest(task, recipe, scores, parameters), sorted(directory.iterdir()))


def _parameters(serving: Serving, directory: Path) -> dict[str, Any]:
    """Write the file that one of the parameters is about; return them all."""
    if serving.statistics is not None:
        shutil.copyfile(serving.statistics, directory / STATISTICS)
    if serving.known is None or serving.apart is None:
        return serving.parameters
    limit = write_statistics(serving.known, serving.apart, directory, ridge=1e-2, margin=1.25)
    return {**serving.parameters, LIMIT: limit}


def _manifest(task: TrainingTask, recipe: CTRecipe, scores: Scores, parameters: dict[str, Any]) -> ModelManifest:
    base: LoadedModel | None = task.base
    phases = ", ".join(phase.name for phase in recipe.phases)
    over = "from random weights" if base is None else f"over {base.ref.label()}"
    figures = {f"{scores.split}_{name.replace('.', '_')}": value for name, value in sorted(scores.values.items())}
    return ModelManifest(
        plugin=PLUGIN,
        slot="main" if base is None else base.ref.slot,
        name="chest-ct" if base is None else base.ref.name,
        version=task.run_id,
        format="safetensors",
        files=(),
        licence="Apache-2.0" if base is None else base.manifest.licence,
        commercial_use=base is not None and base.manifest.commercial_use,
        source=f"Trained here in run {task.run_id} on dataset {task.dataset.dataset_id}, {over}; phases: {phases}.",
        intended_use="Findings, lesion masks and a report of chest CT; has no clinical record.",
        parameters={
            **parameters,
            **figures,
            f"{scores.split}_volumes": scores.examples,
            "phases": phases,
        },
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
