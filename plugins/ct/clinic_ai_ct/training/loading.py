"""What a run starts with: the network, new or of the base, and the language model with its adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai_ct.configurations import CONFIGURATIONS, LanguageConfig
from clinic_ai_ct.language import Language, load_language
from clinic_ai_ct.lora import LoraConfig, language_digest, lora_config, new_lora, read_lora
from clinic_ai_ct.network import CTNetwork, made
from clinic_ai_ct.saving import read_network
from clinic_ai_ct.text import TextEncoder, load_text_encoder
from clinic_ai_ct.training.recipe import CTRecipe


@dataclass(frozen=True)
class Speech:
    """A language model with adapters, and what these are."""

    language: Language
    config: LoraConfig


def place_of(device: Device) -> torch.device:
    """Return where a task computes. Raise ModelError if there is no GPU although it asks for one."""
    if device.kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError("This process sees no GPU.", remedy="Train on the processor: `--device cpu`.")
    return torch.device("cuda", device.index)


def network_of(base: LoadedModel | None, recipe: CTRecipe) -> CTNetwork:
    """Return the network to learn on. Raise ModelError if it cannot be read, or lacks its text encoder."""
    texts = load_text_encoder(Path(recipe.text_encoder)) if recipe.text_encoder else None
    if base is not None:
        return _learning(read_network(base, texts), texts)
    config = CONFIGURATIONS[recipe.configuration].network
    if not config.text.bundled and texts is None:
        raise ModelError(
            f"A new network of the configuration {recipe.configuration} needs a text encoder.",
            remedy="Set text_encoder=DIRECTORY to a BERT such as Bio_ClinicalBERT, as safetensors.",
        )
    return made(config, recipe.seed, texts)


def speech_of(base: LoadedModel | None, recipe: CTRecipe, width: int, device: torch.device) -> Speech | None:
    """Return the language model of the recipe, None if it names none.

    Its adapters are those of the base where that has any, else new ones. Raise ModelError if it cannot be read or its
    embeddings are not ``width`` wide.
    """
    if not recipe.language:
        return None
    directory = Path(recipe.language)
    digest = language_digest(directory)
    like = language_config(recipe)
    quantisation: Literal["none", "nf4"] = like.quantisation
    language = load_language(directory, quantisation, device)
    if language.width != width:
        raise ModelError(
            f"The embeddings of the language model in {directory.name} have {language.width} numbers, those of the "
            f"network's projector {width}.",
            remedy="Choose a configuration that is made for this language model.",
        )
    kept = None if base is None else lora_config(Path(base.directory))
    if base is not None and kept is not None:
        return Speech(read_lora(language, kept, like, Path(base.directory), digest), kept)
    config = LoraConfig(rank=like.rank, alpha=like.alpha, targets=like.targets, language=digest)
    return Speech(new_lora(language, config, like, recipe.seed), config)


def language_config(recipe: CTRecipe) -> LanguageConfig:
    """Return how the language model is held and adapted: as the configuration has it, else as D."""
    like = CONFIGURATIONS[recipe.configuration].language or CONFIGURATIONS["D"].language
    assert like is not None  # D has one
    return like.model_copy(update={"rank": recipe.rank or like.rank, "alpha": recipe.alpha or like.alpha})


def _learning(network: CTNetwork, texts: TextEncoder | None) -> CTNetwork:
    """Return a network that was read, fit for learning: its soft prompts learn where the text encoder is at hand."""
    if texts is None and not network.config.text.bundled:
        network.classifier.prompts.soft.requires_grad_(False)
    return network
