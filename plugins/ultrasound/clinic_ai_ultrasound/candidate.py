"""What a fitted adapter becomes: a model directory with adapter, processor, summary and manifest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from peft import PeftModel

from clinic_ai.contract import LoadedModel, ModelManifest, Scores, TrainingTask
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.model_files import write_manifest
from clinic_ai_ultrasound.adapters import CONFIG
from clinic_ai_ultrasound.answering import SHORTEST
from clinic_ai_ultrasound.confidence import INTERCEPT, QUESTIONS, SLOPE, Calibration, listed
from clinic_ai_ultrasound.loading import QFORMER_TOKENIZER
from clinic_ai_ultrasound.prompts import PROMPT_VERSION
from clinic_ai_ultrasound.scoring import EXACT

DIRECTORY = "model"
SUMMARY = "training_summary.json"
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    QFORMER_TOKENIZER,
)
"""Files of a base that say how images and text are prepared; as far as it has them they go with the adapter."""
_MOST_LISTED = 200_000
"""Characters of all learned questions in a manifest; of more, nothing is said of how sure an answer is."""


class Candidate:
    """An adapter that was fitted; ``manifest`` says what it is, but not yet what it is worth nor what its files are."""

    def __init__(self, task: TrainingTask, base: LoadedModel, adapted: PeftModel, shortest: int) -> None:
        """``shortest`` is the number of tokens of the shortest answer it learned, without the end."""
        self._base, self._adapted = base, adapted
        self._learned = [example for example in task.dataset.examples if example.split == "train"]
        category, its = task.dataset.category, base.manifest
        self.manifest = ModelManifest(
            plugin=its.plugin,
            slot=category,
            name=f"{category.replace('_', '-')}-lora",
            version=task.run_id,
            format="safetensors",
            files=(),
            base_digest=base.ref.digest,
            quantisation=its.quantisation,
            licence=its.licence,
            commercial_use=its.commercial_use,
            source=f"Trained here in run {task.run_id} on dataset {task.dataset.dataset_id}, over {base.ref.label()}.",
            intended_use=f"Answers questions about images of the category {category}; has no clinical record.",
            parameters={"category": category, "prompt_version": PROMPT_VERSION, SHORTEST: shortest},
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def write(self, directory: Path, calibration: Calibration | None, scores: Scores, summary: dict[str, Any]) -> None:
        """Write adapter, processor, summary and, last, the manifest into ``directory``."""
        directory.mkdir(exist_ok=True)
        for old in directory.iterdir():  # what an interrupted attempt left
            old.unlink()
        write_adapter(directory, self._base, self._adapted)
        write_durably(directory / SUMMARY, json.dumps(summary, indent=1).encode())
        measured = {
            f"test_{EXACT}": scores.values[EXACT],
            f"test_base_{EXACT}": scores.values[f"base_{EXACT}"],
            "test_answers": scores.examples,
        }
        confidence: dict[str, float | str] = {}
        questions = listed(pair.question for example in self._learned for pair in example.pairs)
        if calibration is not None and len(questions) <= _MOST_LISTED:
            confidence = {SLOPE: calibration.slope, INTERCEPT: calibration.intercept, QUESTIONS: questions}
        parameters = {**self.manifest.parameters, **confidence, **measured}
        manifest = self.manifest.model_copy(update={"parameters": parameters})
        write_manifest(directory, manifest, sorted(directory.iterdir()))


def write_adapter(directory: Path, base: LoadedModel, adapted: PeftModel) -> None:
    """Write weights and config of an adapter into ``directory``, and the processor of its base; no path is in them."""
    adapted.save_pretrained(str(directory), save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card
    settings = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    # PEFT writes the absolute path of the base; which base it is, model.toml says by its digest.
    settings["base_model_name_or_path"] = base.ref.name
    write_durably(directory / CONFIG, json.dumps(settings, indent=1).encode())
    for name in PROCESSOR_FILES:
        source = Path(base.directory) / name
        if source.is_file():
            write_durably(directory / name, source.read_bytes())
