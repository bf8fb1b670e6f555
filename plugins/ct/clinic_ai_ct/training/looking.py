"""The encoder phase: foretell hidden patches from the others, and tell which regions of the chest each patch is of.

The system description names a phase for the encoder but no objective. Here it is masked image modelling with a linear
head (SimMIM, Xie et al. 2022, arXiv:2111.09886), and where volumes come with a mask of regions, their shares of each
patch. In half of the steps the regions are given to the encoder instead, so that it learns to use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.blocks import region_shares
from clinic_ai_ct.configurations import EncoderConfig
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.objective import VALIDATION_LOSS, Objective, Scene, Whole, generator_of
from clinic_ai_ct.training.phases import Phase
from clinic_ai_ct.training.prepared import Prepared, stacked

_FILL = 0.5
"""What hidden patches show: the middle of each window."""
_SMALL = 0.02
"""Spread of the weights of the heads, so that they begin by telling the middle."""
_JUDGED_SEED = 0
"""What is hidden of validation volumes is the same in every epoch."""


class Heads(nn.Module):
    """Linear heads on the features of patches: ``restore`` their voxels, and ``tell`` their regions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.restore = nn.Linear(config.width, config.channels * math.prod(config.patch))
        self.tell = nn.Linear(config.width, 1 + config.regions)
        for head in (self.restore, self.tell):
            nn.init.trunc_normal_(head.weight, std=_SMALL)
        nn.init.constant_(self.restore.bias, _FILL)
        nn.init.zeros_(self.tell.bias)


class Looking(Objective):
    """Learns the encoder."""

    def __init__(self, phase: Phase, scene: Scene) -> None:
        self._config = scene.network.config.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(scene.recipe.seed_of(phase, 0))
            self.heads = Heads(self._config).to(scene.device)
        super().__init__(phase, scene, self.heads)

    def whole(self, cases: Sequence[Case]) -> Whole:
        """Return how many cases there are, and how many have regions."""
        return {"cases": len(cases), "regions": sum(case.regions is not None for case in cases)}

    def loss(self, cases: Sequence[Case], whole: Whole, seed: int) -> Tensor:
        """Return the mean squared error of hidden voxels, and the cross-entropy of regions that are not given."""
        ready = [self.scene.prepare(case) for case in cases]
        given = seed % 2 == 1
        features, wrong, _ = self._restored(cases, ready, seed, given=given)
        loss = wrong.mean() * (len(cases) / whole["cases"])
        if given or not whole["regions"]:
            return loss
        entropy = self._entropy(features, ready)
        return loss if entropy is None else loss + entropy.sum() / whole["regions"]

    @torch.no_grad()
    def judge(self, cases: Sequence[Case]) -> dict[str, float]:
        """Return how much of what is hidden in each volume is foretold: 1 is all, 0 no more than its mean grey."""
        wrong, spread, told, patches = 0.0, 0.0, 0.0, 0
        for case in cases:
            ready = [self.scene.prepare(case)]
            features, errors, truth = self._restored([case], ready, _JUDGED_SEED, given=False)
            wrong += float(errors.sum())
            spread += float((truth - truth.mean(dim=(0, 1), keepdim=True)).square().sum())
            shares = self._shares(ready)
            if shares is not None:
                told += float((self.heads.tell(features.local).argmax(-1) == shares.argmax(-1)).sum())
                patches += shares.shape[1]
        restored = 1 - wrong / max(spread, 1e-12)
        found = {VALIDATION_LOSS: 1 - restored, self.phase.metric: restored}
        return found | ({"validation_regions": told / patches} if patches else {})

    def _restored(
        self, cases: Sequence[Case], ready: Sequence[Prepared], seed: int, *, given: bool
    ) -> tuple[Features, Tensor, Tensor]:
        """Return features, squared errors and truth of the hidden patches, (hidden, voxels, C)."""
        images, regions = stacked(ready)
        images = images.to(self.scene.device)
        hidden = torch.stack([self._hidden(generator_of(seed, case)) for case in cases]).to(images.device)
        features = self.scene.network.encode(
            torch.where(self._wide(hidden), _FILL, images),
            regions.to(images.device) if given and regions is not None else None,
        )
        truth = self._patches(images)[hidden]
        said = self.heads.restore(features.local[hidden]).view_as(truth)
        return features, (said - truth).square(), truth

    def _hidden(self, generator: torch.Generator) -> Tensor:
        """Return which patches (N,) are hidden: always as many."""
        count = self._config.tokens
        order = torch.randperm(count, generator=generator)
        few = min(count - 1, max(1, round(self.scene.recipe.hidden * count)))
        return torch.zeros(count, dtype=torch.bool).index_fill_(0, order[:few], True)

    def _wide(self, hidden: Tensor) -> Tensor:
        """Return the hidden patches as voxels, (B, 1, D, H, W)."""
        wide = hidden.view(len(hidden), 1, *self._config.grid)
        for axis, side in enumerate(self._config.patch, start=2):
            wide = wide.repeat_interleave(side, dim=axis)
        return wide

    def _patches(self, images: Tensor) -> Tensor:
        """Return (B, N, voxels of a patch, C)."""
        (d, h, w), (pd, ph, pw) = self._config.grid, self._config.patch
        cut = images.view(len(images), -1, d, pd, h, ph, w, pw).permute(0, 2, 4, 6, 3, 5, 7, 1)
        return cut.reshape(len(images), d * h * w, pd * ph * pw, -1)

    def _shares(self, ready: Sequence[Prepared]) -> Tensor | None:
        """Return what share of each patch is of no region and of each, (B, N, 1 + R), of cases that have regions."""
        _, regions = stacked([one for one in ready if one.regions is not None] or ready)
        if regions is None or not self._config.regions:
            return None
        shares = region_shares(regions.to(self.scene.device), self._config.patch, self._config.regions).float()
        return torch.cat([1 - shares.sum(dim=2, keepdim=True), shares], dim=2).clamp(min=0)

    def _entropy(self, features: Features, ready: Sequence[Prepared]) -> Tensor | None:
        """Return the cross-entropy of each case that has regions; None if none has."""
        shares = self._shares(ready)
        if shares is None:
            return None
        there = torch.tensor([one.regions is not None for one in ready], device=features.local.device)
        said = self.heads.tell(features.local[there])
        return F.cross_entropy(said.transpose(1, 2), shares.transpose(1, 2), reduction="none").mean(dim=1)
