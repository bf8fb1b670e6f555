"""The language model that writes: any causal one from a local directory, in four bits if wanted, with LoRA.

It reads an image as a few embeddings that stand before its words; see ``projector``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging as transformers_logging

from clinic_ai.errors import ModelError
from clinic_ai.ml.precision import has_bfloat16
from clinic_ai_ct.configurations import SEVEN_PROJECTIONS, LanguageConfig

IGNORED = -100
"""A label that costs nothing, in transformers."""
_SOME = 4096
"""Words that tell how large embeddings are."""
_FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}
_REMEDY = "Give the directory of a causal language model that `save_pretrained` wrote, with its tokenizer."


@dataclass(frozen=True)
class Language:
    """A causal language model in memory with its tokenizer; ``width`` is that of its embeddings."""

    model: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        """Numbers of one embedding."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def words(self) -> Tensor:
        """Embeddings of some of its words (n, width), as they go into its layers; see ``Projector.match``."""
        embed = self.model.get_input_embeddings()
        some = torch.arange(min(embed.num_embeddings, _SOME), device=embed.weight.device)
        with torch.no_grad():
            embeddings: Tensor = embed(some)
        return embeddings


def load_language(directory: Path, quantisation: Literal["none", "nf4"], device: torch.device) -> Language:
    """Load a causal language model; nothing is fetched, no code of it runs, only safetensors are read.

    ``nf4`` holds its linear layers in four bits (Dettmers et al. 2023, arXiv:2305.14314). It computes in bfloat16 where
    the device has that, else in float32. Raise ModelError if the directory holds none, or if it does not fit.
    """
    # Progress bars and what is said anew for every layer would fill the log of the child, which is ended for that.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    try:
        config = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            str(directory),
            config=config,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_four_bits(dtype) if quantisation == "nf4" else None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The language model in {directory.name} does not fit into the memory of the device.",
            remedy="`clinic-ai model fit ct` says which configuration fits this machine.",
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The language model in {directory.name} cannot be read.", remedy=_REMEDY) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer in {directory.name} has no token for the end.", remedy=_REMEDY)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Language(model.requires_grad_(False).eval(), tokenizer)


def with_lora(language: Language, config: LanguageConfig) -> Language:
    """Return the language model with new adapters on the projections that the config names, ready to learn.

    Raise ModelError if it has none of those layers.
    """
    from peft import LoraConfig, get_peft_model

    recipe = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), task_type="CAUSAL_LM"
    )
    try:
        return Language(get_peft_model(language.model, recipe), language.tokenizer)
    except ValueError as error:
        raise ModelError(
            f"The language model has no layers called {', '.join(config.targets)}.",
            remedy="Choose a model of the Llama, Mistral, Qwen or Gemma family.",
        ) from error


def loss(language: Language, image: Tensor, prompts: Sequence[str], reports: Sequence[str]) -> Tensor:
    """Return the mean cross-entropy of the tokens of ``reports`` after image (B, Q, width) and ``prompts``.

    Image, prompt and padding cost nothing; the end of each report is learned too.
    """
    inputs, mask, labels = assembled(language, image, prompts, reports)
    found: Tensor = language.model(inputs_embeds=inputs, attention_mask=mask, labels=labels).loss
    return found


def assembled(
    language: Language, image: Tensor, prompts: Sequence[str], reports: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings (B, T, width), mask (B, T) and labels (B, T): start, image, prompt, report, end, padding."""
    tokenizer, end = language.tokenizer, language.tokenizer.eos_token_id
    start = _start(language)
    rows = []
    for prompt, report in zip(prompts, reports, strict=True):
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        said = [*tokenizer(report, add_special_tokens=False)["input_ids"], end]
        rows.append((asked, said))
    longest = max(len(asked) + len(said) for asked, said in rows)
    words = torch.full((len(rows), longest), end, dtype=torch.long)
    known, labels = torch.zeros_like(words), torch.full_like(words, IGNORED)
    for row, (asked, said) in enumerate(rows):
        length = len(asked) + len(said)
        words[row, :length], known[row, :length] = torch.tensor(asked + said), 1
        labels[row, len(asked) : length] = torch.tensor(said)
    before, embed = len(start) + image.shape[1], language.model.get_input_embeddings()
    inputs = torch.cat([_embedded(language, start, image), embed(words.to(image.device))], dim=1)
    mask = _after(known, before, 1).to(image.device)
    return inputs, mask, _after(labels, before, IGNORED).to(image.device)


def write(language: Language, image: Tensor, prompt: str, *, longest: int, samples: int = 0) -> list[str]:
    """Return what the language model writes after image (1, Q, width) and prompt, at most ``longest`` tokens.

    It takes the likeliest token each time, or draws ``samples`` texts.
    """
    found = draw(language, image, prompt, longest=longest, samples=samples)
    return [str(text).strip() for text in language.tokenizer.batch_decode(found, skip_special_tokens=True)]


@torch.no_grad()
def draw(language: Language, image: Tensor, prompt: str, *, longest: int, samples: int = 0) -> list[Tensor]:
    """Return the tokens of what it writes, one tensor (T,) for each text, up to and with the end; see ``write``."""
    inputs = _asked(language, image, prompt)
    found = language.model.generate(
        inputs_embeds=inputs,
        attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device),
        max_new_tokens=longest,
        pad_token_id=language.tokenizer.pad_token_id,
        **({"do_sample": True, "num_return_sequences": samples} if samples else {"do_sample": False}),
    )
    return [_ended(text, language.tokenizer.eos_token_id) for text in found]


def continued(language: Language, image: Tensor, prompt: str, tokens: Tensor) -> Tensor:
    """Return the logits (T, V) of each of the ``tokens`` (T,) after image (1, Q, width), prompt and those before it."""
    asked = _asked(language, image, prompt)
    words = language.model.get_input_embeddings()(tokens.to(image.device)).unsqueeze(0)
    logits: Tensor = language.model(inputs_embeds=torch.cat([asked, words], dim=1)).logits
    return logits[0, asked.shape[1] - 1 : -1]


def unloaded(config: LanguageConfig) -> Any:
    """Return the published architecture of a configuration without memory, on torch's meta device."""
    configs, models = _FAMILIES[config.family]
    with torch.device("meta"):
        model = models(configs(**config.values))
    model.tie_weights()
    return model


def lora_numbers(model: Any, rank: int, targets: Sequence[str] = SEVEN_PROJECTIONS) -> int:
    """Return how many numbers LoRA of ``rank`` trains: rank times (columns + rows) of each layer it is put over."""
    return sum(
        rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    )


def _start(language: Language) -> list[int]:
    first = language.tokenizer.bos_token_id
    return [] if first is None else [first]


def _embedded(language: Language, start: list[int], image: Tensor) -> Tensor:
    """Return the embeddings of the start token and of the image, (B, 1 + Q, width)."""
    embed = language.model.get_input_embeddings()
    dtype = embed.weight.dtype
    begin = embed(torch.tensor([start], dtype=torch.long, device=image.device)).expand(len(image), -1, -1)
    return torch.cat([begin.to(dtype), image.to(dtype)], dim=1)


def _asked(language: Language, image: Tensor, prompt: str) -> Tensor:
    """Return the embeddings of start, image (1, Q, width) and prompt."""
    asked = language.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    words = torch.tensor([asked], dtype=torch.long, device=image.device)
    return torch.cat([_embedded(language, _start(language), image), language.model.get_input_embeddings()(words)], 1)


def _ended(tokens: Tensor, end: int) -> Tensor:
    """Return tokens without the padding behind the first end."""
    places = (tokens == end).nonzero()
    return tokens[: int(places[0]) + 1] if len(places) else tokens


def _after(rows: Tensor, before: int, value: int) -> Tensor:
    """Return rows (B, T) with so many places of one value before them."""
    return torch.nn.functional.pad(rows, (before, 0), value=value)


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
