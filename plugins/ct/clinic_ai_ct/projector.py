"""Turns what the encoder saw into words' places: a few learned queries in the width of a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clinic_ai_ct.blocks import GuidedBlock, checkpointed
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.encoder import Features


class Projector(nn.Module):
    """Learned queries that look at the patches, the regions and the whole (Q-Former, Li et al. 2023, arXiv:2301.12597).

    ``loudness`` is the spread of what it returns: that of the language model's own word embeddings, so that images
    are as loud as words.
    """

    loudness: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        own = config.projector
        self.checkpointing = config.encoder.checkpointing
        # Small, so that what the queries see is louder from the start than what they are.
        self.queries = nn.Parameter(0.02 * torch.randn(1, own.queries, own.width))
        self.enter = nn.Linear(config.encoder.width, own.width)
        self.layers = nn.ModuleList(GuidedBlock(own.width, own.heads) for _ in range(own.layers))
        self.leave = nn.Sequential(
            nn.LayerNorm(own.width), nn.Linear(own.width, own.language_width), nn.LayerNorm(own.language_width)
        )
        self.register_buffer("loudness", torch.ones(()))

    def forward(self, features: Features) -> Tensor:
        """Return (B, Q, language width)."""
        seen = [features.global_.unsqueeze(1), features.local]
        if features.region is not None and features.region_seen is not None:
            seen.insert(1, features.region * features.region_seen.unsqueeze(-1))
        context = self.enter(torch.cat(seen, dim=1))
        queries = self.queries.expand(len(context), -1, -1)
        for layer in self.layers:
            queries = checkpointed(layer, queries, context, active=self.checkpointing and self.training)
        spoken: Tensor = self.leave(queries) * self.loudness
        return spoken

    def match(self, words: Tensor) -> None:
        """Take over the spread of a language model's word embeddings (V, width)."""
        self.loudness.copy_(words.detach().float().std())
