"""Parts of the encoder: stems, positions, and attention that never holds a matrix of all tokens by all tokens.

Tokens are (B, N, E): batch, tokens, width; N runs over the patches (z, y, x) in that order. Special tokens stand
before them: one for the whole volume, and one for each anatomical region if regions are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.mlp import MLPBlock
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from clinic_ai_ct.configurations import EncoderConfig, Size


def groups_of(channels: int) -> int:
    """Return into how many groups so many channels are normalised together: at most 8."""
    return math.gcd(channels, 8)


def convolution(inputs: int, outputs: int, *, strides: Size | int = 1, kernel: int = 3) -> nn.Module:
    """Return a 3-D convolution with group norm and GELU; (B, inputs, D, H, W) → (B, outputs, D/s, H/s, W/s)."""
    return Convolution(
        3,
        inputs,
        outputs,
        strides=strides,
        kernel_size=kernel,
        adn_ordering="NA",
        act="GELU",
        norm=("GROUP", {"num_groups": groups_of(outputs)}),
    )


def halvings(patch: Size) -> list[Size]:
    """Return the strides, finest first, that lead from voxels to patches: the axes with most to go begin."""
    steps = [int(math.log2(side)) for side in patch]
    found = []
    for left in range(max(steps), 0, -1):
        z, y, x = (2 if step >= left else 1 for step in steps)
        found.append((z, y, x))
    return found


def prepare(module: nn.Module) -> None:
    """Begin a linear layer as vision transformers do: Glorot weights, and no bias that every image would share."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def stem(config: EncoderConfig) -> nn.Module:
    """Return what makes tokens of voxels: (B, C, D, H, W) → (B, E, D', H', W')."""
    if config.stem == "patch":
        return nn.Conv3d(config.channels, config.width, kernel_size=config.patch, stride=config.patch)
    strides = halvings(config.patch)
    widths = [max(16, config.width >> (len(strides) - place)) for place in range(len(strides))]
    inputs = [config.channels, *widths[:-1]]
    layers = [convolution(a, b, strides=s) for a, b, s in zip(inputs, widths, strides, strict=True)]
    return nn.Sequential(*layers, nn.Conv3d(widths[-1], config.width, kernel_size=1))


class Positions(nn.Module):
    """A learned vector for each place along each axis; (B, E, D', H', W') → the same.

    That of a token is the sum of three, so that every slice has its own. A grid that is not the one learned for is
    interpolated along each axis, unless it is said where it lies within that one.
    """

    def __init__(self, grid: Size, width: int) -> None:
        super().__init__()
        self.axes = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, width, side)) for side in grid)

    def forward(self, tokens: Tensor, start: Size | None = None) -> Tensor:
        """Return the tokens with their positions; ``start`` (z, y, x) is where a tile begins, in patches."""
        for axis, (learned, side) in enumerate(zip(self.axes, tokens.shape[2:], strict=True)):
            shape = [1, tokens.shape[1], 1, 1, 1]
            shape[2 + axis] = side
            placed = learned
            if start is not None:
                placed = learned[:, :, start[axis] : start[axis] + side]
            elif side != learned.shape[2]:
                placed = F.interpolate(learned, size=side, mode="linear", align_corners=False)
            tokens = tokens + placed.view(shape)
        return tokens


def region_shares(regions: Tensor, patch: Size, count: int) -> Tensor:
    """Return what share of each patch each region fills: (B, N, R) of a mask (B, D, H, W) of numbers 0..R.

    0 belongs to no region.
    """
    shares = [
        F.avg_pool3d((regions == number).unsqueeze(1).float(), kernel_size=patch, stride=patch).flatten(2)
        for number in range(1, count + 1)
    ]
    return torch.cat(shares, dim=1).transpose(1, 2)


class SpaceAttention(nn.Module):
    """Self-attention of the patches and the special tokens, by torch's fused kernels; (B, S+N, E) → the same.

    A global layer lets each patch look at all. Any other is slice-aware: half of its heads look at the patches of the
    same slice, the other half at those above and below (stripes split over heads as in Dong et al. 2022,
    arXiv:2107.00652, axes as in Ho et al. 2019, arXiv:1912.12180). Every patch also looks at the special tokens.
    These are region-aware: the one of a region looks at the patches that the region fills, weighed by how much of
    each it fills. The largest matrix that could ever be held is S by S+N.
    """

    def __init__(self, width: int, heads: int, *, everywhere: bool) -> None:
        super().__init__()
        self.heads, self.everywhere = heads, everywhere
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, grid: Size, bias: Tensor | None) -> Tensor:
        """Return what the tokens gathered. ``bias`` (B, 1, S, S+N) is added for the special tokens' looks."""
        batch, length, width = tokens.shape
        special = length - math.prod(grid)
        query, key, value = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        overview = F.scaled_dot_product_attention(query[:, :, :special], key, value, attn_mask=bias)
        patches = query[:, :, special:]
        if self.everywhere:
            seen = F.scaled_dot_product_attention(patches, key, value)
        else:
            half = self.heads // 2
            within = _in_slices(patches[:, :half], key[:, :half], value[:, :half], grid)
            through = _through_slices(patches[:, half:], key[:, half:], value[:, half:], grid)
            seen = torch.cat([within, through], dim=1)
        gathered = torch.cat([overview, seen], dim=2).transpose(1, 2).reshape(batch, length, width)
        found: Tensor = self.out(gathered)
        return found


def _in_slices(query: Tensor, key: Tensor, value: Tensor, grid: Size) -> Tensor:
    """Attention of the patches (B, h, N, d) within their slice and to the special tokens, (B, h, N, d).

    ``key`` and ``value`` (B, h, S+N, d) begin with the special tokens.
    """
    batch, heads, patches, size = query.shape
    depth, plane, special = grid[0], grid[1] * grid[2], key.shape[2] - patches

    def sliced(part: Tensor) -> Tensor:
        return part.reshape(batch, heads, depth, plane, size).transpose(1, 2).reshape(-1, heads, plane, size)

    def with_special(part: Tensor) -> Tensor:
        repeated = part[:, None, :, :special].expand(-1, depth, -1, -1, -1).reshape(-1, heads, special, size)
        return torch.cat([repeated, sliced(part[:, :, special:])], dim=2)

    seen = F.scaled_dot_product_attention(sliced(query), with_special(key), with_special(value))
    return seen.view(batch, depth, heads, plane, size).transpose(1, 2).reshape(batch, heads, patches, size)


def _through_slices(query: Tensor, key: Tensor, value: Tensor, grid: Size) -> Tensor:
    """Attention of the patches along their column, from slice to slice; otherwise as ``_in_slices``."""
    batch, heads, patches, size = query.shape
    depth, plane, special = grid[0], grid[1] * grid[2], key.shape[2] - patches

    def columns(part: Tensor) -> Tensor:
        ordered = part.reshape(batch, heads, depth, plane, size).permute(0, 3, 1, 2, 4)
        return ordered.reshape(-1, heads, depth, size)

    def with_special(part: Tensor) -> Tensor:
        repeated = part[:, None, :, :special].expand(-1, plane, -1, -1, -1).reshape(-1, heads, special, size)
        return torch.cat([repeated, columns(part[:, :, special:])], dim=2)

    seen = F.scaled_dot_product_attention(columns(query), with_special(key), with_special(value))
    ordered = seen.view(batch, plane, heads, depth, size).permute(0, 2, 3, 1, 4)
    return ordered.reshape(batch, heads, patches, size)


class EncoderBlock(nn.Module):
    """One layer of the encoder: attention, then MLP, each after a norm and beside a shortcut."""

    def __init__(self, config: EncoderConfig, *, everywhere: bool) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = SpaceAttention(config.width, config.heads, everywhere=everywhere)
        self.norm_mlp = nn.LayerNorm(config.width)
        self.mlp = MLPBlock(config.width, config.mlp_width)

    def forward(self, tokens: Tensor, grid: Size, bias: Tensor | None) -> Tensor:
        """Return the tokens (B, S+N, E) after this layer; see ``SpaceAttention``."""
        tokens = tokens + self.attention(self.norm_attention(tokens), grid, bias)
        after: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return after


def checkpointed(layer: Callable[..., Tensor], *given: Any, active: bool) -> Tensor:
    """Return ``layer(*given)``; if ``active`` and a gradient is wanted, it is computed again on the way back.

    Memory then holds what goes into each layer, and what is inside of one of them.
    """
    if active and torch.is_grad_enabled():
        found: Tensor = checkpoint(layer, *given, use_reentrant=False)
        return found
    return layer(*given)


class Attention(nn.Module):
    """Attention of queries (B, M, E) to a context (B, N, E) by torch's fused kernels; → (B, M, E).

    MONAI's block of this kind wants einops; ``torch.nn.MultiheadAttention`` holds all of the M by N matrix when it
    judges on a processor.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Return what the queries gathered."""
        batch, count, width = queries.shape
        query = self.query(queries).view(batch, count, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(context).view(batch, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        gathered: Tensor = self.out(seen.transpose(1, 2).reshape(batch, count, width))
        return gathered


class GuidedBlock(nn.Module):
    """Self-attention, cross-attention to a context and MLP, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_context = nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLPBlock(width, 4 * width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Return the tokens (B, N, E) after looking at each other and at the context (B, K, E)."""
        normed = self.norm_self(tokens)
        tokens = tokens + self.attention(normed, normed)
        tokens = tokens + self.cross(self.norm_context(tokens), context)
        after: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return after
