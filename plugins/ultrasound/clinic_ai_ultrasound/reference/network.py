"""The shape of the reference model: a BLIP-2 of the real classes with a few million parameters, and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Blip2Config, Blip2ForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from clinic_ai_ultrasound.loading import IMAGE_TOKEN
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS, VIEW_WORDINGS, word

SIDE = 112
PATCH = 16
QUERIES = 8
_WIDTH = 192
_MEAN, _SPREAD = 0.2, 0.22
"""Grey level of the images, 0..1; about what HC18 has."""
_VOCABULARY = 800
_START = 0.06
"""Spread of the weights at the start: that of large models would be too little at this width."""
_PAD, _END = 0, 1


def sentences() -> list[str]:
    """Return every question and answer of the reference model, as the tokenizer meets them."""
    nouns = sorted({subject.noun for subject in SUBJECTS.values()} | {"structure"})
    pairs = [
        word(topic, choice, noun, wording)
        for topic, known in TOPICS.items()
        for choice in known.answers
        for noun in nouns
        for wording in range(len(known.wordings))
    ]
    asked = [*(pair.question for pair in pairs), *VIEW_WORDINGS]
    answered = [*(pair.answer for pair in pairs), *(s.view for s in SUBJECTS.values())]
    answered += [subject.looks for subject in SUBJECTS.values()]
    return [f"Question: {text} Answer:" for text in asked] + [f" {text}" for text in answered]


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE like OPT's that has learned from ``texts``; it can spell anything else."""
    pad, end = "<pad>", "</s>"
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        sorted(set(texts)),
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=[pad, end],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=1,
            show_progress=False,
        ),
    )
    made.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, _END)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=end, eos_token=end, pad_token=pad, padding_side="left"
    )
    wrapped.add_tokens([IMAGE_TOKEN], special_tokens=True)
    return wrapped


def make_pictures() -> BlipImageProcessorPil:
    """Return what prepares a picture for the vision tower."""
    return BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[_MEAN] * 3, image_std=[_SPREAD] * 3)


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Blip2ForConditionalGeneration:
    """Return the model with random weights; the query tokens too, which transformers leaves at zero."""
    config = _config(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Blip2ForConditionalGeneration(config)
        torch.nn.init.normal_(model.query_tokens, std=0.5)
        embeddings = model.vision_model.embeddings
        embeddings.position_embedding.data[0, 1:] = _places()
    model.generation_config = GenerationConfig(bos_token_id=_END, eos_token_id=_END, pad_token_id=_PAD)
    return model


def _places() -> torch.Tensor:
    """Return where each patch lies as waves along rows and columns, (patches, width): what a ViT learns in the end."""
    grid = torch.arange(SIDE // PATCH, dtype=torch.float32)
    waves = torch.exp(torch.linspace(0.0, -3.0, _WIDTH // 4))
    angles = grid[:, None] * waves
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = one[:, None].expand(-1, len(grid), -1), one[None].expand(len(grid), -1, -1)
    return 0.5 * torch.cat([rows, columns], dim=2).reshape(len(grid) ** 2, _WIDTH)


def _config(tokenizer: PreTrainedTokenizerFast) -> Blip2Config:
    common: dict[str, Any] = {"hidden_size": _WIDTH, "num_attention_heads": 6}
    return Blip2Config(
        vision_config={
            **common,
            "num_hidden_layers": 4,
            "intermediate_size": 2 * _WIDTH,
            "image_size": SIDE,
            "patch_size": PATCH,
            "initializer_range": _START,
        },
        qformer_config={
            **common,
            "num_hidden_layers": 2,
            "intermediate_size": 2 * _WIDTH,
            "encoder_hidden_size": _WIDTH,
            "cross_attention_frequency": 1,
            "initializer_range": _START,
            "vocab_size": len(tokenizer),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            **common,
            "model_type": "opt",
            "num_hidden_layers": 4,
            "ffn_dim": 3 * _WIDTH,
            "word_embed_proj_dim": _WIDTH,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "bos_token_id": _END,
            "eos_token_id": _END,
            "pad_token_id": _PAD,
            "dropout": 0.0,
            "init_std": _START,
        },
        num_query_tokens=QUERIES,
        image_token_index=len(tokenizer) - 1,  # it was added last
    )


def save_base(model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write everything flat into ``directory``, as a base is imported; weights as float16, half the size.

    What is loaded again computes in float32 with weights rounded to float16: measure that, and train on that.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(directory)
    model.float()
    tokenizer.save_pretrained(directory)
    make_pictures().save_pretrained(directory)
