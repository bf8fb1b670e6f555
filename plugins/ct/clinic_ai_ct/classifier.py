"""Judges labels by comparing what is seen with what a text encoder says of each of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.label_sets import label_texts
from clinic_ai_ct.text import Prompts, TextEncoder

_START_TEMPERATURE = 0.1
_START_BIAS = -2.0
"""Most labels are absent from most studies."""


class Classifier(nn.Module):
    """Text-prompted multi-label classification.

    Each label's text looks at the patches, the regions and the whole (cross-attention with the text as query, Liu et
    al. 2021, arXiv:2107.10834); the cosine between what it finds and the text itself, divided by a learned
    temperature, plus a learned bias is its logit. ``weights`` (L,) are those of the positives in the loss.
    """

    weights: Tensor

    def __init__(self, config: NetworkConfig, encoder: TextEncoder | None) -> None:
        super().__init__()
        self.config = config.classifier
        width, seen = self.config.width, config.encoder.width
        self.prompts = Prompts(config.text, prompts_of(self.config.labels), self.config.soft_tokens, encoder)
        self.text = nn.Sequential(nn.LayerNorm(config.text.width), nn.Linear(config.text.width, width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(seen, width)
        self.value = nn.Linear(seen, width)
        self.image = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.temperature = nn.Parameter(torch.tensor(math.log(_START_TEMPERATURE)))
        self.bias = nn.Parameter(torch.full((len(self.config.labels),), _START_BIAS))
        self.register_buffer("weights", torch.ones(len(self.config.labels)))

    def forward(self, features: Features) -> Tensor:
        """Return logits (B, L), labels in the order of the config."""
        seen = [features.global_.unsqueeze(1), features.local]
        if features.region is not None and features.region_seen is not None:
            # A region that is not in the volume says nothing: its token is emptied instead of masked.
            seen.insert(1, features.region * features.region_seen.unsqueeze(-1))
        tokens = torch.cat(seen, dim=1)
        said = self.text(self.prompts())
        batch, heads = len(tokens), self.config.heads
        query = self.query(said).view(1, len(said), heads, -1).transpose(1, 2).expand(batch, -1, -1, -1)
        key, value = (
            part(tokens).view(batch, tokens.shape[1], heads, -1).transpose(1, 2) for part in (self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, len(said), -1)
        cosine = F.cosine_similarity(self.image(found), said.unsqueeze(0), dim=-1)
        logits: Tensor = cosine * torch.exp(-self.temperature) + self.bias
        return logits

    def set_weights(self, weights: Tensor) -> None:
        """Set the weights (L,) of the positives; see ``label_sets.class_weights``."""
        self.weights.copy_(weights)


def prompts_of(labels: tuple[str, ...]) -> list[str]:
    """Return what the text encoder reads of each label. Raise ValueError if a label has no text."""
    texts = label_texts()
    unknown = [label for label in labels if label not in texts]
    if unknown:
        raise ValueError(f"There is no text for {', '.join(unknown)}; add it to label_sets.toml.")
    return [texts[label] for label in labels]


def classification_loss(logits: Tensor, values: Tensor, known: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy over the labels that are known; all arguments are (B, L), ``weights`` (L,).

    ``known`` is 0 where an example's data set does not have a label; without any known label the loss is 0.
    """
    losses = F.binary_cross_entropy_with_logits(logits, values, pos_weight=weights, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)
