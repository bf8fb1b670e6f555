"""A random BLIP-2 of the real classes, small enough to be made in a test, and LoRA adapters for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from clinic_ai.contract import LoadedModel, ModelManifest
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai_ultrasound.loading import IMAGE_TOKEN, QFORMER_TOKENIZER
from clinic_ai_ultrasound.prompts import PROMPT_VERSION

SIDE = 32
"""Pixels of the network's image a side."""
QUERIES = 4
"""Tokens of the prompt that the image takes."""
WIDTH = 32

_CLASSES = {"blip2": Blip2ForConditionalGeneration, "instructblip": InstructBlipForConditionalGeneration}
_WORDS = (
    "Question: Which view does the image show? Answer: The image shows the femur.",
    "Question: In which half of the image does the abdomen lie? Answer: In the left half. In the right half.",
    "Question: Is the whole head in view? Answer: Yes. No, it is cut off above, below, at the side.",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 , . ? : ; ' - ( ) %",
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE like OPT's whose every token is printable; about 200 words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    made.train_from_iterator(
        _WORDS, trainers.BpeTrainer(vocab_size=220, special_tokens=special, show_progress=False, min_frequency=1)
    )
    made.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="</s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    wrapped.add_tokens([IMAGE_TOKEN], special_tokens=True)
    return wrapped


def config(words: PreTrainedTokenizerFast, family: str = "blip2", **changes) -> Blip2Config | InstructBlipConfig:
    """Return the config of a BLIP-2 with two layers of each part; ``changes`` are of the whole."""
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH}
    common = {
        "vision_config": {
            **layers,
            "intermediate_size": 2 * WIDTH,
            "image_size": SIDE,
            "patch_size": 8,
            # The default is 1e-10: with random weights every image would look the same.
            "initializer_range": 0.3,
        },
        "qformer_config": {
            **layers,
            "intermediate_size": 2 * WIDTH,
            "encoder_hidden_size": WIDTH,
            "vocab_size": len(words),
            "initializer_range": 0.3,
        },
        "text_config": {
            **layers,
            "model_type": "opt",
            "ffn_dim": 2 * WIDTH,
            "word_embed_proj_dim": WIDTH,
            "vocab_size": len(words),
            "max_position_embeddings": 256,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "dropout": 0.0,
            "init_std": 0.3,
        },
        "num_query_tokens": QUERIES,
        "image_token_index": words.convert_tokens_to_ids(IMAGE_TOKEN),
        "initializer_range": 0.3,
    }
    return (Blip2Config if family == "blip2" else InstructBlipConfig)(**(common | changes))


def make_base(directory: Path, *, family="blip2", quantisation="none", dtype="float32", seed=0, **parameters):
    """Write a base with random weights as ``save_pretrained`` does, and its model.toml; return it for an engine."""
    words = tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _CLASSES[family](config(words, family))
        torch.nn.init.normal_(model.query_tokens)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(directory)
    if family == "instructblip":
        shutil.copy(directory / "tokenizer.json", directory / QFORMER_TOKENIZER)
    return seal(
        directory,
        slot="base",
        name=f"tiny-{family}",
        version=str(seed),
        quantisation=quantisation,
        parameters={"family": family, "dtype": dtype, **parameters},
    )


def make_adapter(
    directory: Path, base: LoadedModel, category: str, *, seed=1, rank=8, targets=("q_proj", "v_proj"), **parameters
) -> LoadedModel:
    """Write a LoRA adapter with random weights, strong enough to change every answer, and its model.toml."""
    model = _CLASSES[base.manifest.parameters["family"]].from_pretrained(base.directory)
    recipe = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf".*language_model.*\.({'|'.join(targets)})")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, recipe)
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.5)
    adapted.save_pretrained(directory)
    (directory / "README.md").unlink()
    settings = json.loads((directory / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = base.ref.name  # PEFT writes the absolute path
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return seal(
        directory,
        slot=category,
        name=f"{category.replace('_', '-')}-lora",
        version=str(seed),
        quantisation=base.manifest.quantisation,
        base_digest=base.ref.digest,
        parameters={"category": category, "prompt_version": PROMPT_VERSION, **parameters},
    )


def seal(directory: Path, **words) -> LoadedModel:
    """Write the model.toml of what lies in ``directory``; ``words`` are of the manifest."""
    manifest = ModelManifest(
        plugin="ultrasound",
        format="safetensors",
        files=(),
        licence="Apache-2.0",
        source="Random numbers.",
        intended_use="Tests.",
        **words,
    )
    files = sorted(path for path in directory.iterdir() if path.name != "model.toml")
    write_manifest(directory, manifest, files)
    return open_model(directory)
