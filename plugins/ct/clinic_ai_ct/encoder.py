"""The 3-D vision transformer: one look at a chest that serves every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clinic_ai_ct.blocks import EncoderBlock, Positions, checkpointed, region_shares, stem
from clinic_ai_ct.configurations import EncoderConfig, Size

_LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Features:
    """What the encoder saw, for all tasks.

    ``global_`` (B, E) is of the whole volume, ``local`` (B, N, E) of each patch in the order (z, y, x) of ``grid``,
    ``region`` (B, R, E) of each anatomical region, and ``region_seen`` (B, R) says which of those are in the volume;
    both are None where no regions were given.
    """

    global_: Tensor
    local: Tensor
    grid: Size
    region: Tensor | None = None
    region_seen: Tensor | None = None

    def detached(self) -> Features:
        """Return the same, cut off from what computed it."""
        region = None if self.region is None else self.region.detach()
        return Features(self.global_.detach(), self.local.detach(), self.grid, region, self.region_seen)


class Encoder(nn.Module):
    """3-D ViT (Dosovitskiy et al. 2021, arXiv:2010.11929) with slice-aware and region-aware attention."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = stem(config)
        self.positions = Positions(config.grid, config.width)
        self.whole = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.regions = nn.Parameter(0.02 * torch.randn(1, config.regions, config.width))
        self.layers = nn.ModuleList(
            EncoderBlock(config, everywhere=(place + 1) % config.global_every == 0) for place in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, volume: Tensor, regions: Tensor | None = None, start: Size | None = None) -> Features:
        """Encode (B, C, D, H, W) in 0..1; ``regions`` (B, D, H, W) holds the number of each voxel's region, 0 for none.

        D, H and W are whole patches; a volume larger than the one of the config is better read in windows. ``start``
        (z, y, x) says of a tile where it begins in the volume of the config, in patches. Raise ValueError if D, H and W
        are no whole patches, or if the region mask has another shape.
        """
        self._check(volume, regions)
        placed = self.positions(self.stem(volume), start)
        z, y, x = placed.shape[2:]
        grid = (int(z), int(y), int(x))
        patches = placed.flatten(2).transpose(1, 2)
        special, bias, seen = self.whole.expand(len(volume), -1, -1), None, None
        if regions is not None and self.config.regions:
            shares = region_shares(regions, self.config.patch, self.config.regions).to(patches.dtype)
            # What an anatomical region is, each patch knows by the regions it lies in.
            patches = patches + shares @ self.regions[0]
            special = torch.cat([special, self.regions.expand(len(volume), -1, -1)], dim=1)
            bias, seen = _bias(shares), shares.amax(dim=1) > 0
        tokens = torch.cat([special, patches], dim=1)
        for layer in self.layers:
            tokens = checkpointed(layer, tokens, grid, bias, active=self.config.checkpointing and self.training)
        tokens = self.norm(tokens)
        count = special.shape[1]
        region = None if seen is None else tokens[:, 1:count]
        return Features(tokens[:, 0], tokens[:, count:], grid, region, seen)

    def _check(self, volume: Tensor, regions: Tensor | None) -> None:
        if volume.ndim != 5 or volume.shape[1] != self.config.channels:
            raise ValueError(f"The encoder reads (B, {self.config.channels}, D, H, W), not {tuple(volume.shape)}.")
        if any(side % part for side, part in zip(volume.shape[2:], self.config.patch, strict=True)):
            raise ValueError(f"The volume {tuple(volume.shape[2:])} is not whole patches of {self.config.patch}.")
        if regions is not None and regions.shape != (len(volume), *volume.shape[2:]):
            raise ValueError(f"The region mask {tuple(regions.shape)} is not of the volume {tuple(volume.shape)}.")


def merged(parts: Sequence[Features]) -> Features:
    """Return the features of windows of one volume as one: all patches, and the mean of what is of the whole.

    A region's is the mean over the windows in which it was seen. The patches keep no common grid: that of the result
    counts them along z.
    """
    if len(parts) == 1:
        return parts[0]
    local = torch.cat([one.local for one in parts], dim=1)
    whole = torch.stack([one.global_ for one in parts]).mean(dim=0)
    grid = (local.shape[1], 1, 1)
    regions = [(one.region, one.region_seen) for one in parts if one.region is not None and one.region_seen is not None]
    if not regions:
        return Features(whole, local, grid)
    seen = torch.stack([there for _, there in regions])
    weights = seen.to(whole.dtype).unsqueeze(-1)
    region = (torch.stack([one for one, _ in regions]) * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1)
    return Features(whole, local, grid, region, seen.any(dim=0))


def _bias(shares: Tensor) -> Tensor:
    """Return what is added to the looks of the special tokens (B, 1, 1+R, 1+R+N): the logarithm of the shares.

    The token of the whole volume looks everywhere, that of a region at itself, at the whole and at its patches; one
    that is not in the volume is left with the first two.
    """
    batch, patches, count = shares.shape
    own = torch.eye(count, device=shares.device, dtype=shares.dtype).expand(batch, -1, -1)
    logs = torch.cat([torch.ones_like(own[:, :, :1]), own, shares.transpose(1, 2)], dim=2)
    logs = logs.clamp(min=_LEAST_SHARE).log().masked_fill(logs < _LEAST_SHARE, -torch.inf)
    whole = torch.zeros(batch, 1, 1 + count + patches, device=shares.device, dtype=shares.dtype)
    return torch.cat([whole, logs], dim=1).unsqueeze(1)
