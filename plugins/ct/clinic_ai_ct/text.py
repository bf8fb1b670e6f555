"""What a frozen BERT-type text encoder says of labels and findings, with learned soft prompts before their words.

The text encoder is read from a local directory and never learns. What it said is kept with the network, so that it is
needed only where soft prompts learn; the reference has one so small that it is kept with the network whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from clinic_ai.errors import ModelError
from clinic_ai_ct.configurations import TextConfig

_SPREAD = 0.2
"""Spread of the weights of a bundled encoder: with BERT's 0.02 all prompts would read nearly alike."""
_REMEDY = "Give the directory of a BERT that `save_pretrained` wrote, with its tokenizer and safetensors."


@dataclass(frozen=True)
class TextEncoder:
    """A frozen BERT in memory with its tokenizer; ``digest`` is the SHA-256 of its weights."""

    model: Any
    tokenizer: Any
    digest: str


def load_text_encoder(directory: Path) -> TextEncoder:
    """Load a BERT from a local directory; nothing is fetched, no code of it runs, only safetensors are read.

    Raise ModelError if it is none.
    """
    try:
        weights = directory / "model.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        model = BertModel.from_pretrained(
            str(directory), local_files_only=True, use_safetensors=True, add_pooling_layer=False, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The text encoder in {directory.name} cannot be read.", remedy=_REMEDY) from error
    return TextEncoder(model.requires_grad_(False).eval(), tokenizer, digest)


def bundled_text_encoder(config: TextConfig, texts: Sequence[str]) -> TextEncoder:
    """Return a small BERT with random weights that knows the words of ``texts``; torch's generator decides them.

    Its weights lie with the network's, so it has no digest of its own. Raise ValueError if its vocabulary is too small.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    normalise, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(normalise.normalize_str(text))}
    vocabulary = {word: place for place, word in enumerate([*special, *sorted(words)])}
    if len(vocabulary) > config.vocabulary:
        raise ValueError(f"The prompts have {len(vocabulary)} words; the text encoder knows {config.vocabulary}.")
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    made.normalizer, made.pre_tokenizer = normalise, split
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **named)
    return TextEncoder(_empty_bert(config).requires_grad_(False).eval(), tokenizer, "")


def _empty_bert(config: TextConfig) -> Any:
    return BertModel(
        BertConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
            max_position_embeddings=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=_SPREAD,
        ),
        add_pooling_layer=False,
    )


class Prompts(nn.Module):
    """What the text encoder says of each of K texts, (K, width): the mean over a text's tokens.

    ``soft_tokens`` learned vectors stand between the start token and the words of each (Zhou et al. 2022,
    arXiv:2109.01134). ``said`` (K, width) is kept with the network: it is what is returned where nothing learns. It
    is renewed whenever the network is switched from learning to judging. ``centre`` is the mean of the texts without
    soft prompts; it is taken off, because what BERT says of any two texts is nearly the same.
    """

    said: Tensor
    centre: Tensor
    ids: Tensor
    mask: Tensor

    def __init__(self, config: TextConfig, texts: Sequence[str], soft_tokens: int, encoder: TextEncoder | None) -> None:
        super().__init__()
        self.config, self.texts = config, tuple(texts)
        learned = 0.02 * torch.randn(len(texts), soft_tokens, config.width)
        self.soft = nn.Parameter(learned, requires_grad=soft_tokens > 0)
        self.register_buffer("said", torch.zeros(len(texts), config.width))
        self.register_buffer("centre", torch.zeros(config.width))
        self.register_buffer("ids", torch.zeros(len(texts), config.tokens, dtype=torch.long))
        self.register_buffer("mask", torch.zeros(len(texts), config.tokens, dtype=torch.long))
        self._encoder: list[Any] = []  # in a list, so that its weights are not the network's
        if encoder is not None:
            self.attach(encoder)

    @property
    def attached(self) -> bool:
        """Whether the text encoder is at hand, so that soft prompts can learn."""
        return bool(self._encoder)

    def attach(self, encoder: TextEncoder, *, renew: bool = True) -> None:
        """Give the text encoder; with ``renew``, what it says of the texts is taken from it anew.

        Raise ModelError if its width is not the config's, or if a text has more tokens than are read.
        """
        width = int(encoder.model.config.hidden_size)
        if width != self.config.width:
            raise ModelError(
                f"The text encoder says {width} numbers of a text; the network was made for {self.config.width}."
            )
        read = encoder.tokenizer(list(self.texts), padding="max_length", max_length=self.config.tokens)
        ids = torch.tensor(read["input_ids"]) if len({len(one) for one in read["input_ids"]}) == 1 else None
        if ids is None or ids.shape[1] != self.config.tokens:
            raise ModelError(f"A prompt has more than the {self.config.tokens} tokens that are read of each.")
        self.share(encoder.model)
        self.ids.copy_(ids)
        self.mask.copy_(torch.tensor(read["attention_mask"]))
        if renew and not self.ids.is_meta:
            with torch.no_grad():
                self.centre.copy_(self._read(hard=True).mean(dim=0))
            self.renew()

    def share(self, model: Any) -> None:
        """Use a text encoder that reads the tokens which are kept already."""
        self._encoder = [model]

    def renew(self) -> None:
        """Keep what the text encoder says now."""
        with torch.no_grad():
            self.said.copy_(self._read(hard=False) - self.centre)

    def train(self, mode: bool = True) -> Prompts:
        """Switch between learning and judging; see the class."""
        if self.training and not mode and self.attached and not self.ids.is_meta:
            self.renew()
        return super().train(mode)

    def forward(self) -> Tensor:
        """Return (K, width), with a way back to the soft prompts if these learn and the text encoder is at hand."""
        if self.attached and self.training and torch.is_grad_enabled() and self.soft.shape[1]:
            return self._read(hard=False) - self.centre
        return self.said

    def _read(self, *, hard: bool) -> Tensor:
        model = self._encoder[0]
        if model.device != self.ids.device:
            model.to(self.ids.device)
        words = model.embeddings.word_embeddings(self.ids)
        mask = self.mask
        if not hard and self.soft.shape[1]:
            words = torch.cat([words[:, :1], self.soft.to(words.dtype), words[:, 1:]], dim=1)
            mask = torch.cat([mask[:, :1], torch.ones_like(mask[:, :1]).expand(-1, self.soft.shape[1]), mask[:, 1:]], 1)
        said: Tensor = model(inputs_embeds=words, attention_mask=mask).last_hidden_state
        weights = mask.to(said.dtype).unsqueeze(-1)
        return (said * weights).sum(dim=1) / weights.sum(dim=1)
