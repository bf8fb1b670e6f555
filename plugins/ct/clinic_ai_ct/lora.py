"""Adapters of a language model on disk: safetensors and JSON, which say which language model they are for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clinic_ai.domain import Word
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.configurations import SEVEN_PROJECTIONS, LanguageConfig
from clinic_ai_ct.language import Language, with_lora

WEIGHTS, CONFIG = "language_lora.safetensors", "language_lora.json"


class LoraConfig(Word):
    """``language`` is the SHA-256 of the language model's weights; see ``language_digest``."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = SEVEN_PROJECTIONS
    language: str


def language_digest(directory: Path) -> str:
    """Return the SHA-256 over the weights and the tokenizer of a language model. Raise ModelError if it has none."""
    files = sorted([*directory.glob("*.safetensors"), *directory.glob("tokenizer*.json")])
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"The directory {directory.name} holds no language model: no weights as safetensors are in it.",
            remedy="Set language=DIRECTORY to what `save_pretrained` wrote.",
        )
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def new_lora(language: Language, config: LoraConfig, like: LanguageConfig, seed: int) -> Language:
    """Return the language model with adapters that change nothing yet; ``seed`` decides where they start."""
    wanted = like.model_copy(update={"rank": config.rank, "alpha": config.alpha, "targets": config.targets})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_lora(language, wanted)


def write_lora(language: Language, config: LoraConfig, directory: Path) -> tuple[Path, ...]:
    """Write the adapters of a language model; return the files, for ``ml.model_files.write_manifest``."""
    weights, said = directory / WEIGHTS, directory / CONFIG
    state = {n: w.detach().float().contiguous().cpu() for n, w in language.model.named_parameters() if "lora_" in n}
    save_file(state, weights)
    write_durably(said, config.model_dump_json(indent=1).encode())
    return weights, said


def lora_config(directory: Path) -> LoraConfig | None:
    """Return what the adapters in a model directory are, None if there are none. Raise ModelError if it is damaged."""
    try:
        return LoraConfig.model_validate(json.loads((directory / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(f"The {CONFIG} of {directory.name} cannot be read.") from error


def read_lora(language: Language, config: LoraConfig, like: LanguageConfig, directory: Path, digest: str) -> Language:
    """Return the language model with the adapters of a model directory; ``digest`` is that of the language model.

    Raise ModelError if they are for another language model, or damaged.
    """
    if digest != config.language:
        raise ModelError(
            f"The adapters in {directory.name} are for another language model.",
            remedy="Give the directory of the language model they were trained on.",
        )
    adapted = new_lora(language, config, like, 0)
    weights: dict[str, Any] = {n: w for n, w in adapted.model.named_parameters() if "lora_" in n}
    try:
        state = load_file(directory / WEIGHTS)
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(state[name])
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(f"The adapters in {directory.name} are missing, damaged, or of another shape.") from error
    return adapted
