"""Lesion masks in three stages: what is looked for in words, denoised features, and an attention U-Net at full size.

The U-Net reads the windowed image itself at full resolution: a nodule of a few voxels is no longer in the features
of a patch. It computes all findings at once; what makes the channel of one finding is made of its text (as in Liu et
al. 2023, arXiv:2301.00785).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from monai.losses.dice import DiceLoss
from monai.networks.blocks.convolutions import ResidualUnit
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.blocks import GuidedBlock, checkpointed, convolution, groups_of, halvings
from clinic_ai_ct.classifier import prompts_of
from clinic_ai_ct.configurations import LocaliserConfig, NetworkConfig, Size
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.lesions import RIVALS
from clinic_ai_ct.text import Prompts, TextEncoder

_START_BIAS = -4.0
"""Nearly all voxels show no lesion."""


class DenoisingTransformer(nn.Module):
    """Refines the features of the patches by what is looked for; (B, N, E) and text (B, K, width) → (B, N, width).

    While learning, noise is added to what comes in, and ``restore`` says what the features were without it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        own = config.localiser
        self.noise, self.checkpointing = own.noise, config.encoder.checkpointing
        self.enter = nn.Linear(config.encoder.width, own.width)
        self.layers = nn.ModuleList(GuidedBlock(own.width, own.heads) for _ in range(own.layers))
        self.norm = nn.LayerNorm(own.width)
        self.restore = nn.Linear(own.width, config.encoder.width)

    def forward(self, local: Tensor, text: Tensor) -> Tensor:
        """Return the refined features (B, N, width)."""
        if self.training and self.noise:
            spread = self.noise * local.detach().std(dim=(1, 2), keepdim=True)
            local = local + spread * torch.randn_like(local)
        tokens = self.enter(local)
        for layer in self.layers:
            tokens = checkpointed(layer, tokens, text, active=self.checkpointing and self.training)
        refined: Tensor = self.norm(tokens)
        return refined


class TextGate(nn.Module):
    """Lets through of a skip what any finding looks for there (Oktay et al. 2018, arXiv:1804.03999, by text).

    ``skip`` (B, C, …) and the coarser level's ``signal`` (B, C, …), brought to the same size, are compared with each
    text (B, K, W); the skip is scaled by the best match, 0..1.
    """

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        inner = max(4, channels // 2)
        self.skip = nn.Conv3d(channels, inner, kernel_size=1)
        self.signal = nn.Conv3d(channels, inner, kernel_size=1)
        self.norm = nn.GroupNorm(groups_of(inner), inner)
        self.text = nn.Linear(text_width, inner)
        self.scale = inner**-0.5
        self.bias = nn.Parameter(torch.ones(()))

    def forward(self, skip: Tensor, signal: Tensor, text: Tensor) -> Tensor:
        """Return the skip, scaled."""
        both = F.relu(self.norm(self.skip(skip) + self.signal(signal)))
        matches = torch.einsum("bcdhw,bkc->bkdhw", both, self.text(text)) * self.scale
        passed: Tensor = skip * torch.sigmoid(matches.amax(dim=1, keepdim=True) + self.bias)
        return passed


class UpLevel(nn.Module):
    """One level of the way up: coarser features, brought to the size of the gated skip and joined with it."""

    def __init__(self, coarse: int, fine: int, strides: Size, text_width: int, units: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(coarse, fine, kernel_size=strides, stride=strides)
        self.gate = TextGate(fine, text_width)
        self.join = _units(2 * fine, fine, 1, units)

    def forward(self, coarse: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        """Return (B, fine, …) at the size of the skip."""
        signal = self.up(coarse)
        joined: Tensor = self.join(torch.cat([self.gate(skip, signal, text), signal], dim=1))
        return joined


class TextGuidedUNet(nn.Module):
    """Attention U-Net over the windowed image, with the refined features at its bottom and text at its gates.

    It goes down to the grid of the patches. Image (B, C, D, H, W), refined (B, width, D', H', W') and text (B, K,
    width) → logits (B, K, D, H, W).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        own = config.localiser
        strides = halvings(config.encoder.patch)
        widths = [min(own.base << level, own.largest) for level in range(len(strides) + 1)]
        self.first = convolution(config.encoder.channels, widths[0])
        self.down = nn.ModuleList(_units(a, b, s, 2) for a, b, s in zip(widths[:-1], widths[1:], strides, strict=True))
        self.meet = convolution(widths[-1] + own.width, widths[-1])
        self.up = nn.ModuleList(
            UpLevel(widths[level + 1], widths[level], strides[level], own.width, units=1 if level == 0 else 2)
            for level in reversed(range(len(strides)))
        )
        self.kernel = nn.Linear(own.width, widths[0])
        self.bias = nn.Parameter(torch.full((len(own.findings),), _START_BIAS))
        self.scale = widths[0] ** -0.5

    def forward(self, image: Tensor, refined: Tensor, text: Tensor) -> Tensor:
        """Return logits; see the class."""
        skips = [self.first(image)]
        for down in self.down:
            skips.append(down(skips[-1]))
        found = self.meet(torch.cat([skips.pop(), refined], dim=1))
        for up in self.up:
            found = up(found, skips.pop(), text)
        logits: Tensor = torch.einsum("bcdhw,bkc->bkdhw", found, self.kernel(text)) * self.scale
        return logits + self.bias.view(1, -1, 1, 1, 1)


class Localiser(nn.Module):
    """Text embedder, denoising transformer and U-Net: one mask for each finding; masks may overlap."""

    def __init__(self, config: NetworkConfig, encoder: TextEncoder | None) -> None:
        super().__init__()
        self.config: LocaliserConfig = config.localiser
        # The texts of the findings stay as they are: no soft prompts, so the text encoder reads them once.
        self.prompts = Prompts(config.text, prompts_of(self.config.findings), 0, encoder)
        self.text = nn.Sequential(nn.LayerNorm(config.text.width), nn.Linear(config.text.width, self.config.width))
        self.denoiser = DenoisingTransformer(config)
        self.unet = TextGuidedUNet(config)

    def spoken(self, batch: int) -> Tensor:
        """Return the text of each finding, (batch, K, width)."""
        said: Tensor = self.text(self.prompts())
        return said.unsqueeze(0).expand(batch, -1, -1)

    def refine(self, features: Features) -> Tensor:
        """Return the refined features on the grid of the patches, (B, width, D', H', W')."""
        refined: Tensor = self.denoiser(features.local, self.spoken(len(features.local)))
        return refined.transpose(1, 2).reshape(len(refined), -1, *features.grid)

    def segment(self, refined: Tensor, image: Tensor) -> Tensor:
        """Return logits (B, K, D, H, W) of an image (B, C, D, H, W) and the refined features of its patches."""
        logits: Tensor = self.unet(image, refined, self.spoken(len(image)))
        return logits

    def denoising_loss(self, refined: Tensor, features: Features) -> Tensor:
        """Return how far the refined features are from telling what the encoder saw: 0 is all of it, 1 nothing."""
        restored = self.denoiser.restore(refined.flatten(2).transpose(1, 2))
        truth = features.local.detach()
        return F.mse_loss(restored, truth) / truth.var().clamp(min=1e-6)


def probabilities(logits: Tensor, findings: Sequence[str]) -> Tensor:
    """Return what the masks of one volume, logits (K, D, H, W) in the order of ``findings``, say of each voxel, 0..1.

    Where several ``RIVALS`` claim a voxel, each gets its share of their softmax: a mass is no consolidation as well.
    """
    chances = torch.sigmoid(logits.float())
    rivals = [place for place, name in enumerate(findings) if name in RIVALS]
    if len(rivals) > 1:
        total = reduce(torch.logaddexp, (logits[place].float() for place in rivals))  # map by map: they are large
        for place in rivals:
            chances[place] *= torch.exp(logits[place].float() - total)
    return chances


def localisation_loss(logits: Tensor, masks: Tensor, known: Tensor | None = None) -> Tensor:
    """Return Dice loss plus binary cross-entropy, each finding on its own: lesions overlap, so nothing competes.

    ``logits`` and ``masks`` are (B, K, D, H, W); ``known`` (B, K) is 0 where a finding has no mask to learn from. Dice
    is counted over the batch, so that a finding that is nowhere costs only what is drawn of it.
    """
    weights = torch.ones(logits.shape[:2], device=logits.device) if known is None else known
    dice = DiceLoss(sigmoid=True, batch=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)
    shown = weights.view(*weights.shape, 1, 1, 1)
    # What is unknown is made right beforehand, so that it costs nothing.
    overlap = dice(torch.where(shown > 0, logits, torch.full_like(logits, -30.0)), masks * shown).flatten()
    counted = (weights.sum(dim=0) > 0).to(logits.dtype)
    crossed = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(2, 3, 4))
    entropy = (crossed * weights).sum() / weights.sum().clamp(min=1)
    loss: Tensor = (overlap * counted).sum() / counted.sum().clamp(min=1) + entropy
    return loss


def _units(inputs: int, outputs: int, strides: Size | int, units: int) -> nn.Module:
    return ResidualUnit(
        3,
        inputs,
        outputs,
        strides=strides,
        subunits=units,
        adn_ordering="NA",
        act="GELU",
        norm=("GROUP", {"num_groups": groups_of(outputs)}),
    )
