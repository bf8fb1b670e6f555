"""How the reference network learns: to look, to see, to tell, and to draw.

Encoder and denoising transformer learn what is where: a helper says of each patch how much of it each condition fills,
for labels of whole volumes alone would teach it slowly. The stem begins alone: beside a transformer that is still
blind it learns nothing but where lesions usually lie. Then all learn on tiles, most of them around a lesion, and last
on whole volumes. What they see is kept from then on: the classifier learns from it alone, in seconds for an epoch, and
so does the U-Net, which draws on tiles of the images. Steps follow from the time that is allowed: the first ones are
measured, so that the schedule fits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.classifier import classification_loss
from clinic_ai_ct.configurations import Size
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.label_sets import Targets, class_weights
from clinic_ai_ct.lesions import LESIONS, RIVALS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.reference.examples import (
    AREAS,
    JUDGED,
    LANDMARKS,
    Example,
    Packed,
    load,
    load_packed,
    varied,
)
from clinic_ai_ct.windows import Window, windowed

Report = Callable[[str], None]
Tile = tuple[slice, slice, slice]
BEGIN_TILE, LOOK_TILE, DRAW_TILE = (32, 64, 64), (48, 96, 96), (48, 48, 48)
_MEASURED, _EVERY, _WARM_UP = 3, 50, 0.08
_AROUND = 0.8
"""Of the tiles, those that are drawn around a lesion."""
_PLACES = 200
"""Voxels of each area of an example that tiles are drawn around."""
_RARE = 20.0
"""How much more a patch that a condition fills counts than one without it."""
_FADED, _DROPPED = 0.2, 0.3
"""Spread of the noise on what the classifier learns from, relative to its own, and the patches that are left out."""
_SHOWN, _NOT_SHOWN = 0.3, 3.0
"""Weights of the cross-entropy of voxels that show a finding and of those that do not, beside the Dice loss."""
_STEM_SHARE = 0.3
"""Rate of the stem, relative to that of the rest, once it has learned alone."""
_HARDEST, _HARD = 0.02, 3.0
"""Of the voxels that do not show a finding, those that count once the U-Net draws at all, and their weight: a tile has
many findings that it does not show, over all of which these voxels are averaged."""
_UNGUIDED, _RARELY = 0.5, 0.2
"""Of the tiles, those on which the U-Net sees the image alone, so that it does not lean on what the encoder overlooks;
fewer of them at the end."""
_OVERLOOKED, _OWN_TILES = "lymphadenopathy", 0.12
"""What few chests show, and in little of them; and the tiles around it once the U-Net draws at all. By chance alone it
would be on one of fifty, and was never drawn."""
_MIRRORED = 0.5
"""Of the tiles, those whose left is right: as if there were more chests, for what looks alike on both sides."""


@dataclass(frozen=True)
class Stage:
    """One stage: its name, the CPU seconds it may take, the largest rate, and volumes or tiles in a step."""

    name: str
    seconds: float
    rate: float
    batch: int


class Corpus:
    """The examples that are learned from, in memory; about 7 MB each."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    @cached_property
    def packed(self) -> list[Packed]:
        """The examples, in the order of the files."""
        return [load_packed(path, _PLACES) for path in self.files]

    def any(self, generator: torch.Generator) -> int:
        """Return the place of one of them."""
        return int(torch.randint(len(self.files), (), generator=generator))

    def showing(self, area: int) -> list[int]:
        """Return the places of those that show an area."""
        return [place for place, packed in enumerate(self.packed) if len(packed.places[area])]


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


def known_areas(example: Packed) -> Tensor:
    """Return (A,) of 0 and 1: a condition that is there but was not drawn voxel by voxel is known as a label only."""
    rows = dict(zip(JUDGED, example.labels, strict=True))
    drawn = zip((*AREAS, *LANDMARKS), example.places, strict=True)
    return torch.tensor([float(len(voxels) > 0 or not rows.get(name, 0.0)) for name, voxels in drawn])


def image_of(example: Example, network: CTNetwork) -> Tensor:
    """Return (1, C, D, H, W) of an example."""
    return torch.from_numpy(windowed(example.hu, [Window(*one) for one in network.config.windows])).unsqueeze(0)


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
            example = packed.cut(_tile(packed.places[: len(AREAS)], BEGIN_TILE, patch, size, generator))
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
        return _tile(packed.places[: len(AREAS)], LOOK_TILE, patch, size, generator)

    def whole(_: Packed, __: torch.Generator) -> Tile:
        return slice(0, size[0]), slice(0, size[1]), slice(0, size[2])

    stem = network.encoder.stem
    _learn(nn.ModuleList([stem, helper]), first_step, begin, work, report)
    _learn(trained, lambda generator: step(look, around, generator), look, work, report, slow=stem)
    _learn(trained, lambda generator: step(see, whole, generator), see, work, report, slow=stem)


@torch.inference_mode()
def keep_features(network: CTNetwork, files: Sequence[Path], directory: Path) -> list[Path]:
    """Write what the network sees of each volume, unless it is there; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    network.eval()
    found = []
    for path in files:
        target = directory / f"{path.stem}.safetensors"
        if not target.exists():
            features = network.encode(image_of(load(path), network))
            refined = network.refine(features)[0]
            kept = {"refined": refined, "local": features.local[0], "whole": features.global_[0]}
            save_file({name: tensor.half().contiguous() for name, tensor in kept.items()}, target)
        found.append(target)
    return found


# ---------------------------------------------------------------- telling


def learn_to_tell(network: CTNetwork, corpus: Corpus, stage: Stage, work: Path, report: Report) -> None:
    """Train the classifier on what is kept of each volume."""
    kept = [load_file(path) for path in keep_features(network, corpus.files, work / "features")]
    values, known = targets_of([packed.labels for packed in corpus.packed], network)
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

    _learn(network.classifier, step, stage, work, report)


# ---------------------------------------------------------------- drawing


def learn_to_draw(network: CTNetwork, corpus: Corpus, stages: tuple[Stage, Stage], work: Path, report: Report) -> None:
    """Train the U-Net on tiles, with what the denoiser made of whole volumes kept beforehand.

    First it learns to draw, then to draw nothing else: see ``drawing_loss``.
    """
    draw = stages[0]
    kept = [load_file(path)["refined"] for path in keep_features(network, corpus.files, work / "features")]
    # Channels last: on a processor its convolutions take two thirds of the time then.
    unet = network.localiser.unet.to(memory_format=torch.channels_last_3d)
    rows = [AREAS.index(name) for name in network.config.localiser.findings]
    rivals = [place for place, name in enumerate(network.config.localiser.findings) if name in RIVALS]
    around = rows + [AREAS.index(name) for name in LESIONS]  # what is measured, twice as often as signs
    overlooked = AREAS.index(_OVERLOOKED)
    few = corpus.showing(overlooked)
    patch, size = network.config.encoder.patch, network.config.encoder.volume
    with torch.no_grad():
        text = network.localiser.spoken(1)

    def chosen(stage: Stage, generator: torch.Generator) -> tuple[int, list[int]]:
        """Return the place of an example, and the areas of which its tile shall lie around one."""
        if stage is not draw and few and float(torch.rand((), generator=generator)) < _OWN_TILES:
            return few[int(torch.randint(len(few), (), generator=generator))], [overlooked]
        return corpus.any(generator), around

    def step(stage: Stage, generator: torch.Generator) -> Tensor:
        images, masks, known, refined = [], [], [], []
        for _ in range(stage.batch):
            place, areas = chosen(stage, generator)
            packed = corpus.packed[place]
            tile = _tile([packed.places[row] for row in areas], DRAW_TILE, patch, size, generator)
            cut = packed.cut(tile)
            images.append(varied(image_of(cut, network), generator))
            masks.append(torch.from_numpy(cut.areas[rows]).float())
            known.append(known_areas(packed)[rows])
            coarse = tuple(slice(t.start // p, t.stop // p) for t, p in zip(tile, patch, strict=True))
            guidance = kept[place].float()[(slice(None), *coarse)]
            unguided = float(torch.rand((), generator=generator)) < (_UNGUIDED if stage is draw else _RARELY)
            refined.append(torch.zeros_like(guidance) if unguided else guidance)
            if stage is not draw and float(torch.rand((), generator=generator)) < _MIRRORED:
                for tensors in (images, masks, refined):
                    tensors[-1] = tensors[-1].flip(-1)
        image = torch.cat(images).contiguous(memory_format=torch.channels_last_3d)
        logits = unet(image, torch.stack(refined), text.expand(stage.batch, -1, -1))
        there = torch.stack(masks)
        loss = drawing_loss(logits, there, torch.stack(known), hardest=None if stage is draw else _HARDEST)
        if stage is not draw:
            loss = loss + telling_apart_loss(logits[:, rivals], there[:, rivals])
        torch.autograd.backward(loss)
        return loss.detach()

    for stage in stages:
        _learn(unet, partial(step, stage), stage, work, report)
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


def _tile(places: Sequence[np.ndarray], wanted: Size, patch: Size, size: Size, generator: torch.Generator) -> Tile:
    """Return where a tile lies, on whole patches; mostly around a voxel of an area, each as often."""
    shown = [voxels for voxels in places if len(voxels)]
    if shown and float(torch.rand((), generator=generator)) < _AROUND:
        voxels = shown[int(torch.randint(len(shown), (), generator=generator))]
        middle = voxels[int(torch.randint(len(voxels), (), generator=generator))]
    else:
        middle = np.array([int(torch.randint(side, (), generator=generator)) for side in size])
    slices = []
    for at, length, part, whole in zip(middle, wanted, patch, size, strict=True):
        side = min(length, whole)
        moved = int(at) - side // 2 + int(torch.randint(-side // 4, side // 4 + 1, (), generator=generator))
        start = min(max(0, moved // part * part), whole - side)
        slices.append(slice(start, start + side))
    return slices[0], slices[1], slices[2]


# ---------------------------------------------------------------- any stage


def _learn(
    module: nn.Module,
    step: Callable[[torch.Generator], Tensor],
    stage: Stage,
    work: Path,
    report: Report,
    *,
    slow: nn.Module | None = None,
) -> None:
    """Take steps until those that the time allows are done; every ``_EVERY`` of them all is kept.

    ``slow`` is a part of the module that learns with ``_STEM_SHARE`` of the rate.
    """
    module.train()
    held = {id(parameter) for parameter in slow.parameters()} if slow is not None else set()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if (id(parameter) in held) == slowly], "share": share}
        for slowly, share in ((False, 1.0), (True, _STEM_SHARE))
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=stage.rate, weight_decay=0.02)
    state = _State(work, stage.name)
    done, steps = state.restore(module, optimiser)
    losses: list[float] = []
    began, first = time.process_time(), done
    while steps is None or done < steps:
        if done - first == 1:
            began = time.process_time()  # the first step also reads what it needs
        if steps is None and done - first == 1 + _MEASURED:
            each = (time.process_time() - began) / _MEASURED
            steps = max(_MEASURED + 2, math.ceil(stage.seconds / each))
            report(f"{stage.name}: {each:.2f} s of CPU a step, {steps} steps")
        rate = stage.rate * _share(done, steps)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        generator = torch.Generator().manual_seed(7919 * done + 17)  # a step draws the same wherever it is resumed
        torch.manual_seed(7919 * done + 18)
        optimiser.zero_grad(set_to_none=True)
        loss = step(generator)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss))
        done += 1
        if steps is not None and (done % _EVERY == 0 or done == steps):
            state.keep(module, optimiser, done, steps)
            report(f"{stage.name}: step {done} of {steps}, loss {np.mean(losses[-_EVERY:]):.4f}")
    module.eval()


def _share(done: int, steps: int | None) -> float:
    """Return the share of the largest rate at a step: a warm-up, then half a cosine."""
    if steps is None:
        return 0.1
    warm = max(1, round(_WARM_UP * steps))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, steps - warm))) + 0.01


class _State:
    """Weights, moments and place of a stage on disk: one file, so that they are of the same step.

    A file ``NAME.json`` beside it, as earlier builds wrote them, may say how many ``steps`` there shall be.
    """

    def __init__(self, work: Path, name: str) -> None:
        self._kept, self._said = work / f"{name}.safetensors", work / f"{name}.json"

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, int | None]:
        """Take up what was kept; return the steps that were done, and how many there will be if that is known.

        Raise ValueError if the file does not say it and no other beside it does.
        """
        if not self._kept.exists():
            self._said.unlink(missing_ok=True)  # it was of what is no longer there, and this stage begins anew
            return 0, None
        beside = json.loads(self._said.read_text()) if self._said.exists() else {}
        with safe_open(self._kept, framework="pt") as file:
            own = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        done, steps = own.get("done", beside.get("done")), beside.get("steps", own.get("steps"))
        if done is None or steps is None:
            raise ValueError(f"{self._kept.name} does not say of which step it is")
        module.load_state_dict(dict(_below("module.", tensors)))
        saved = optimiser.state_dict()
        saved["state"] = {
            place: dict(_below(f"moment.{place}.", tensors))
            for place in range(sum(len(group["params"]) for group in saved["param_groups"]))
            if f"moment.{place}.step" in tensors
        }
        optimiser.load_state_dict(saved)
        return int(done), int(steps)

    def keep(self, module: nn.Module, optimiser: torch.optim.Optimizer, done: int, steps: int) -> None:
        """Replace what was kept."""
        tensors = {f"module.{name}": value.contiguous().clone() for name, value in module.state_dict().items()}
        for place, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"moment.{place}.{name}": value.contiguous().clone() for name, value in moments.items()}
        write_durably(self._kept, save(tensors, metadata={"done": str(done), "steps": str(steps)}))


def _below(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))
