"""A network of the real classes that learns in seconds, and two volumes for it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clinic_ai.contract import ModelManifest
from clinic_ai.ml.model_files import open_model, write_manifest
from clinic_ai_ct.configurations import (
    ClassifierConfig,
    EncoderConfig,
    LocaliserConfig,
    NetworkConfig,
    ProjectorConfig,
    TextConfig,
)
from clinic_ai_ct.label_sets import label_texts

TEXT = TextConfig(width=32, layers=1, heads=2, mlp_width=32, vocabulary=320, bundled=True)


def config(**changes) -> NetworkConfig:
    """Return a network over 8 x 32 x 32 voxels, patches of 2 x 8 x 8; ``changes`` are of the encoder."""
    encoder = {
        "volume": (8, 32, 32),
        "patch": (2, 8, 8),
        "width": 32,
        "layers": 3,
        "heads": 2,
        "mlp_width": 64,
        "regions": 4,
    }
    return NetworkConfig(
        encoder=EncoderConfig(**(encoder | changes)),
        text=TEXT,
        classifier=ClassifierConfig(
            labels=("lung_nodule", "pleural_effusion", "cardiomegaly"), width=16, heads=2, soft_tokens=2
        ),
        localiser=LocaliserConfig(
            findings=("lung_nodule", "pleural_effusion"), width=32, layers=1, heads=2, base=4, tile=(8, 16, 16)
        ),
        projector=ProjectorConfig(queries=4, layers=1, width=16, heads=2, language_width=24),
        spacing=(2.0, 3.0, 3.0),
    )


def volumes() -> tuple[torch.Tensor, ...]:
    """Return two volumes (2, 3, 8, 32, 32), what they show (2, 2, 8, 32, 32), and their regions (2, 8, 32, 32).

    The first has a bright ball of two voxels' radius, the second a grey layer at the back.
    """
    drawn = np.random.default_rng(0)
    image = drawn.normal(0.2, 0.02, (2, 3, 8, 32, 32))
    z, y, x = np.ogrid[:8, :32, :32]
    masks = np.zeros((2, 2, 8, 32, 32), bool)
    masks[0, 0] = (z - 3) ** 2 + (y - 10) ** 2 + (x - 21) ** 2 <= 4
    masks[1, 1, :, 26:, :14] = True
    image[0] += 0.6 * masks[0, 0]
    image[1] += 0.3 * masks[1, 1]
    regions = np.zeros((2, 8, 32, 32), np.int64)
    regions[:, :, 4:28, 2:15], regions[:, :, 4:28, 17:30], regions[:, 2:6, 12:20, 12:20] = 1, 2, 3
    return tuple(torch.from_numpy(a) for a in (image.astype(np.float32), masks.astype(np.float32), regions))


def seal(directory: Path, *, slot: str = "main", plugin: str = "ct", model_format: str = "safetensors"):
    """Write the model.toml of what lies in ``directory``; return it as an engine receives it."""
    manifest = ModelManifest(
        plugin=plugin,
        slot=slot,
        name="tiny",
        version="1",
        format=model_format,
        files=(),
        licence="Apache-2.0",
        source="Random numbers.",
        intended_use="Tests.",
    )
    write_manifest(directory, manifest, sorted(path for path in directory.iterdir() if path.name != "model.toml"))
    return open_model(directory)


def words(texts) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words of some texts."""
    listed = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
    vocabulary = {word: place for place, word in enumerate([*special, *listed])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )


def make_bert(directory: Path, seed: int = 0) -> Path:
    """Write a BERT with random weights and its tokenizer, as a clinic would give one."""
    spoken = words(label_texts().values())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(
            BertConfig(
                vocab_size=len(spoken),
                hidden_size=TEXT.width,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                initializer_range=0.2,
            )
        )
    model.save_pretrained(directory)
    spoken.save_pretrained(directory)
    return directory


def make_llama(directory: Path, width: int = 24) -> Path:
    """Write a Llama with random weights and its tokenizer."""
    spoken = words(["findings: a nodule in the right upper lobe . no effusion . describe the chest"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(spoken),
                hidden_size=width,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                initializer_range=0.3,
                bos_token_id=spoken.bos_token_id,
                eos_token_id=spoken.eos_token_id,
                pad_token_id=spoken.pad_token_id,
            )
        )
    model.save_pretrained(directory)
    spoken.save_pretrained(directory)
    return directory
