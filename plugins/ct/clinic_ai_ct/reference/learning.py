"""How the reference network learns to look, to see and to tell; ``drawing`` is how it learns to draw.

Encoder and denoising transformer learn what is where: a helper says of each patch how much of it each condition fills,
for labels of whole volumes alone would teach it slowly. The stem begins alone: beside a transformer that is still
blind it learns nothing but where lesions usually lie. Then all learn on tiles, most of them around a lesion, and last
on whole volumes. What they see is kept from then on: the classifier learns from it alone, in seconds for an epoch, and
so does the U-Net, which draws on tiles of the images. Steps follow from the time that is allowed: the first ones are
measured, so that the schedule fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.classifier import classification_loss
from clinic_ai_ct.configurations import Size
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.label_sets import Targets, class_weights
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.reference.examples import AREAS, JUDGED, LANDMARKS, Packed, load, load_packed, varied
from clinic_ai_ct.reference.stages import Report, Stage, learn
from clinic_ai_ct.reference.tiles import Corpus, Tile, image_of, known_areas, tile_around

BEGIN_TILE, LOOK_TILE = (32, 64, 64), (48, 96, 96)
_RARE = 20.0
"""How much more a patch that a condition fills counts than one without it."""
_FADED, _DROPPED = 0.2, 0.3
"""Spread of the noise on what the classifier learns from, relative to its own, and the patches that are left out."""


class Helper(nn.Module):
    """Says of each patch what share of it each of ``AREAS`` and ``LANDMARKS`` fills; used while learning only."""

    def __init__(self, width: int, refined: int) -> None:
        super().__init__()
        self.seen = nn.Linear(width, len(AREAS) + len(LANDMARKS))
        self.refined = nn.Linear(refined, len(LESIONS))
        for layer in (self.seen, self.refined):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, -3.0)

    def loss(self, features: Features, refined: Tensor, areas: Tensor, known: Tensor) -> Tensor:
        """Return the cross-entropy of the shares; ``areas`` (B, A, D, H, W), ``known`` (B, A) where they are known."""
        shares = _shares(areas, features.grid)
        count = len(LESIONS)
        own = _balanced(self.seen(features.local), shares, known)
        guided = _balanced(self.refined(refined.flatten(2).transpose(1, 2)), shares[..., :count], known[:, :count])
        return own + guided

    def first_loss(self, tokens: Tensor, areas: Tensor, known: Tensor) -> Tensor:
        """Return that of what the stem alone sees, (B, E, D', H', W')."""
        z, y, x = tokens.shape[2:]
        shares = _shares(areas, (int(z), int(y), int(x)))
        return _balanced(self.seen(tokens.flatten(2).transpose(1, 2)), shares, known)


def _shares(areas: Tensor, grid: Size) -> Tensor:
    """Return how much of each patch each area fills, (B, N, A)."""
    patch = [side // part for side, part in zip(areas.shape[2:], grid, strict=True)]
    mean = F.avg_pool3d(areas, patch)
    there = torch.maximum(mean, 0.6 * F.max_pool3d(areas, patch))  # a nodule fills little of a patch
    return there.flatten(2).transpose(1, 2)


def _balanced(said: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    weights = (1 + _RARE * shares) * known.unsqueeze(1)
    losses = F.binary_cross_entropy_with_logits(said, shares, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=1)


def targets_of(labels: Iterable[np.ndarray], network: CTNetwork) -> tuple[Tensor, Tensor]:
    """Return values and what is known of them (n, L) in the order of the network's labels."""
    rows = [dict(zip(JUDGED, row, strict=True)) for row in labels]
    names = network.config.classifier.labels
    values = torch.tensor([[float(row.get(name, 0.0)) for name in names] for row in rows])
    known = torch.tensor([[float(name in row) for name in names] for row in rows])
    return values, known


# ---------------------------------------------------------------- looking and seeing


def learn_to_see(
    network: CTNetwork, corpus: Corpus, stages: tuple[Stage, Stage, Stage], work: Path, report: Report
) -> None:
    """Train the stem alone, then encoder and denoiser on tiles, then on whole volumes; goes on where it was."""
    begin, look, see = stages
    helper = Helper(network.config.encoder.width, network.config.localiser.width)
    trained = nn.ModuleList([network.encoder, network.localiser.denoiser, network.localiser.text, helper])
    patch, size = network.config.encoder.patch, network.config.encoder.volume

    def first_step(generator: torch.Generator) -> Tensor:
        images, areas, known = [], [], []
        for _ in range(begin.batch):
            packed = corpus.packed[corpus.any(generator)]
            example = packed.cut(tile_around(packed.places[: len(AREAS)], BEGIN_TILE, patch, size, generator))
            images.append(varied(image_of(example, network), generator))
            areas.append(torch.from_numpy(example.areas).float())
            known.append(known_areas(packed))
        loss = helper.first_loss(network.encoder.stem(torch.cat(images)), torch.stack(areas), torch.stack(known))
        torch.autograd.backward(loss)
        return loss.detach()

    def loss_of(place: int, tile: Tile, generator: torch.Generator) -> Tensor:
        packed = corpus.packed[place]
        example = packed.cut(tile)
        start: Size = tuple(side.start // part for side, part in zip(tile, patch, strict=True))  # type: ignore[assignment]
        features = network.encoder(varied(image_of(example, network), generator), start=start)
        areas = torch.from_numpy(example.areas).float().unsqueeze(0)
        return helper.loss(features, network.refine(features), areas, known_areas(packed).unsqueeze(0))

    def step(stage: Stage, tile_of: Callable[[Packed, torch.Generator], Tile], generator: torch.Generator) -> Tensor:
        total = torch.zeros(())
        for _ in range(stage.batch):
            place = corpus.any(generator)
            one = loss_of(place, tile_of(corpus.packed[place], generator), generator) / stage.batch
            torch.autograd.backward(one)
            total += one.detach()
        return total

    def around(packed: Packed, generator: torch.Generator) -> Tile:
        return tile_around(packed.places[: len(AREAS)], LOOK_TILE, patch, size, generator)

    def whole(_: Packed, __: torch.Generator) -> Tile:
        return slice(0, size[0]), slice(0, size[1]), slice(0, size[2])

    stem = network.encoder.stem
    learn(nn.ModuleList([stem, helper]), first_step, begin, work, report)
    learn(trained, lambda generator: step(look, around, generator), look, work, report, slow=stem)
    learn(trained, lambda generator: step(see, whole, generator), see, work, report, slow=stem)


@torch.inference_mode()
def keep_features(network: CTNetwork, files: Sequence[Path], directory: Path, *, mirrored: bool = False) -> list[Path]:
    """Write what the network sees of each volume, or of its mirror image, unless it is there; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    network.eval()
    found = []
    for path in files:
        target = directory / f"{path.stem}{'.mirrored' if mirrored else ''}.safetensors"
        if not target.exists():
            image = image_of(load(path), network)
            features = network.encode(image.flip(-1) if mirrored else image)
            refined = network.refine(features)[0]
            kept = {"refined": refined, "local": features.local[0], "whole": features.global_[0]}
            save_file({name: tensor.half().contiguous() for name, tensor in kept.items()}, target)
        found.append(target)
    return found


# ---------------------------------------------------------------- telling


def learn_to_tell(
    network: CTNetwork, corpus: Corpus, fresh: Sequence[Path], stage: Stage, work: Path, report: Report
) -> None:
    """Train the classifier on what is kept of each volume.

    What the encoder says of volumes that it learned from is too good, and a classifier of these alone learns them by
    heart; ``fresh`` ones it has never seen, and they count twice: as they are, and with left and right exchanged.
    """
    features = work / "features"
    files = keep_features(network, corpus.files, features)
    labels = [packed.labels for packed in corpus.packed]
    for mirrored in (False, True):
        files += keep_features(network, fresh, features, mirrored=mirrored)
        labels += [load_packed(path).labels for path in fresh]
    kept = [load_file(path) for path in files]
    values, known = targets_of(labels, network)
    rows = [Targets(v.numpy(), k.numpy()) for v, k in zip(values, known, strict=True)]
    weights = torch.from_numpy(class_weights(rows, limit=4.0))

    def step(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(kept), (stage.batch,), generator=generator)
        local = torch.stack([kept[place]["local"] for place in chosen.tolist()]).float()
        whole = torch.stack([kept[place]["whole"] for place in chosen.tolist()]).float()
        local = local + _FADED * local.std() * torch.randn(local.shape, generator=generator)
        left = torch.rand(local.shape[1], generator=generator) >= _DROPPED
        seen = Features(whole, local[:, left], (int(left.sum()), 1, 1))
        loss = classification_loss(network.classify(seen), values[chosen], known[chosen], weights)
        torch.autograd.backward(loss)
        return loss.detach()

    learn(network.classifier, step, stage, work, report)
