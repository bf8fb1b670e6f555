"""How the U-Net of the reference network learns to draw, on tiles of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.lesions import LESIONS, RIVALS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.reference.examples import AREAS, varied
from clinic_ai_ct.reference.learning import keep_features
from clinic_ai_ct.reference.stages import Report, Stage, learn
from clinic_ai_ct.reference.tiles import Corpus, image_of, known_areas, tile_around

DRAW_TILE = (48, 48, 48)
_SHOWN, _NOT_SHOWN = 0.3, 3.0
"""Weights of the cross-entropy of voxels that show a finding and of those that do not, beside the Dice loss."""
_HARDEST, _HARD = 0.02, 3.0
"""Of the voxels that do not show a finding, those that count once the U-Net draws at all, and their weight: a tile has
many findings that it does not show, over all of which these voxels are averaged."""
_UNGUIDED, _RARELY = 0.5, 0.2
"""Of the tiles, those on which the U-Net sees the image alone, so that it does not lean on what the encoder overlooks;
fewer of them once it draws at all."""
_OVERLOOKED, _OWN_TILES = "lymphadenopathy", 0.12
"""What few chests show, and in little of them; and the tiles around it once the U-Net draws at all. By chance alone it
would be on one of fifty, and was never drawn."""
_MIRRORED = 0.5
"""Of the tiles, those whose left is right: as if there were more chests, for what looks alike on both sides."""


@dataclass(frozen=True)
class Drawn:
    """What a tile shows: ``image`` (1, C, D, H, W), ``guidance`` of the denoiser (R, D', H', W'), ``masks`` of the
    findings (M, D, H, W), and ``known`` (M,), which of them are known.
    """

    image: Tensor
    guidance: Tensor
    masks: Tensor
    known: Tensor

    def mirrored(self) -> Drawn:
        """Return it with left and right exchanged."""
        return Drawn(self.image.flip(-1), self.guidance.flip(-1), self.masks.flip(-1), self.known)


class Tiles:
    """Draws tiles to learn from; ``guidance`` has what the denoiser made of each volume of the corpus, whole."""

    def __init__(self, network: CTNetwork, corpus: Corpus, guidance: Sequence[Tensor]) -> None:
        self._network, self._corpus, self._guidance = network, corpus, guidance
        self._rows = [AREAS.index(name) for name in network.config.localiser.findings]
        # What is measured, twice as often as signs.
        self._around = self._rows + [AREAS.index(name) for name in LESIONS]
        self._overlooked = AREAS.index(_OVERLOOKED)
        self._few = corpus.showing(self._overlooked)

    def any(self, generator: torch.Generator, *, sharp: bool) -> Drawn:
        """Return a tile; ``sharp`` if the U-Net draws already."""
        place, areas = self._chosen(generator, sharp=sharp)
        packed, encoder = self._corpus.packed[place], self._network.config.encoder
        around = [packed.places[area] for area in areas]
        tile = tile_around(around, DRAW_TILE, encoder.patch, encoder.volume, generator)
        cut = packed.cut(tile)
        image = varied(image_of(cut, self._network), generator)
        coarse = tuple(slice(t.start // p, t.stop // p) for t, p in zip(tile, encoder.patch, strict=True))
        guidance = self._guidance[place].float()[(slice(None), *coarse)]
        if float(torch.rand((), generator=generator)) < (_RARELY if sharp else _UNGUIDED):
            guidance = torch.zeros_like(guidance)
        masks = torch.from_numpy(cut.areas[self._rows]).float()
        drawn = Drawn(image, guidance, masks, known_areas(packed)[self._rows])
        if sharp and float(torch.rand((), generator=generator)) < _MIRRORED:
            return drawn.mirrored()
        return drawn

    def _chosen(self, generator: torch.Generator, *, sharp: bool) -> tuple[int, list[int]]:
        """Return the place of an example, and the areas of which its tile shall lie around one."""
        if sharp and self._few and float(torch.rand((), generator=generator)) < _OWN_TILES:
            return self._few[int(torch.randint(len(self._few), (), generator=generator))], [self._overlooked]
        return self._corpus.any(generator), self._around


def learn_to_draw(network: CTNetwork, corpus: Corpus, stages: tuple[Stage, Stage], work: Path, report: Report) -> None:
    """Train the U-Net on tiles, with what the denoiser made of whole volumes kept beforehand.

    First it learns to draw, then to draw nothing else: see ``drawing_loss``.
    """
    guidance = [load_file(path)["refined"] for path in keep_features(network, corpus.files, work / "features")]
    tiles = Tiles(network, corpus, guidance)
    # Channels last: on a processor its convolutions take two thirds of the time then.
    unet = network.localiser.unet.to(memory_format=torch.channels_last_3d)
    rivals = [place for place, name in enumerate(network.config.localiser.findings) if name in RIVALS]
    with torch.no_grad():
        text = network.localiser.spoken(1)

    def step(stage: Stage, generator: torch.Generator) -> Tensor:
        sharp = stage is not stages[0]
        drawn = [tiles.any(generator, sharp=sharp) for _ in range(stage.batch)]
        image = torch.cat([one.image for one in drawn]).contiguous(memory_format=torch.channels_last_3d)
        logits = unet(image, torch.stack([one.guidance for one in drawn]), text.expand(stage.batch, -1, -1))
        masks, known = torch.stack([one.masks for one in drawn]), torch.stack([one.known for one in drawn])
        loss = drawing_loss(logits, masks, known, hardest=_HARDEST if sharp else None)
        if sharp:
            loss = loss + telling_apart_loss(logits[:, rivals], masks[:, rivals])
        torch.autograd.backward(loss)
        return loss.detach()

    for stage in stages:
        learn(unet, partial(step, stage), stage, work, report)
    unet.to(memory_format=torch.contiguous_format)


def drawing_loss(logits: Tensor, masks: Tensor, known: Tensor, hardest: float | None = None) -> Tensor:
    """Return Dice loss of what is there, plus cross-entropy; arguments as those of ``localisation_loss``.

    Of a tile most findings show nothing. Counted with Dice, they would teach a fresh network to draw nothing at all
    before it has learned anything else; for the same reason voxels that show a finding, which are few, are averaged
    by themselves. Later that leaves it careless: what it draws in the wrong place is lost among a hundred thousand
    voxels. With ``hardest``, of those that show nothing that share counts on which it errs most.
    """
    axes = (0, 2, 3, 4)
    shown = known.view(*known.shape, 1, 1, 1)
    masks = masks * shown
    chances = torch.sigmoid(logits) * shown
    voxels = masks.sum(dim=axes)
    dice = 1 - (2 * (chances * masks).sum(dim=axes) + 1) / (chances.sum(dim=axes) + voxels + 1)
    crossed = F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * shown
    missed = (crossed * masks).sum(dim=axes) / voxels.clamp(min=1)
    empty = crossed * (1 - masks)
    if hardest is None:
        loss = _NOT_SHOWN * empty.mean(dim=axes).mean()
    else:
        loss = _HARD * empty.flatten(2).topk(max(1, round(hardest * empty[0, 0].numel())), dim=2).values.mean()
    there = voxels > 0
    return loss + (dice + _SHOWN * missed)[there].mean() if bool(there.any()) else loss


def telling_apart_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy of which rival fills a voxel, where exactly one does; each rival counts as much.

    ``logits`` and ``masks`` are (B, R, D, H, W). The masks are learned one by one; nothing but the few voxels on which
    each errs most would tell it that what it draws is another one's.
    """
    alone = masks.sum(dim=1) == 1
    which = masks.argmax(dim=1)[alone]
    counts = torch.bincount(which, minlength=masks.shape[1])
    crossed = F.cross_entropy(logits.movedim(1, -1)[alone], which, reduction="none")
    each = crossed / counts[which]
    return each.sum() / (counts > 0).sum().clamp(min=1)
