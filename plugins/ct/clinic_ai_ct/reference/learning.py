"""How the reference network learns: first to see whole chests, then to draw lesions on tiles of them.

The encoder, the denoising transformer and the classifier learn together on whole volumes, with a helper that says
for each patch how much of it each condition fills: labels of whole volumes alone would teach it slowly. Then what
they see is kept, and the U-Net learns to draw on tiles, most of them around lesions. Steps follow from the time that
is allowed: the first ones are measured, so that the schedule fits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.classifier import classification_loss
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.label_sets import Targets, class_weights
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.localiser import localisation_loss
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.reference.examples import AREAS, JUDGED, Example, load, varied
from clinic_ai_ct.windows import Window, windowed

Report = Callable[[str], None]
TILE = (64, 64, 64)
_MEASURED, _EVERY, _WARM_UP = 3, 50, 0.08
_AROUND = 0.8
"""Of the tiles, those that are drawn around a lesion."""


@dataclass(frozen=True)
class Stage:
    """One stage: its name, the CPU seconds it may take, the largest rate, and volumes or tiles in a step."""

    name: str
    seconds: float
    rate: float
    batch: int


class Helper(nn.Module):
    """Says of each patch what share of it each of ``AREAS`` fills; used while learning only."""

    def __init__(self, width: int, refined: int) -> None:
        super().__init__()
        self.seen = nn.Linear(width, len(AREAS))
        self.refined = nn.Linear(refined, len(LESIONS))
        for layer in (self.seen, self.refined):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, -3.0)

    def loss(self, features: Features, refined: Tensor, areas: Tensor) -> Tensor:
        """Return the cross-entropy of the shares; ``areas`` (B, A, D, H, W)."""
        patch = [side // part for side, part in zip(areas.shape[2:], features.grid, strict=True)]
        mean = F.avg_pool3d(areas, patch)
        there = torch.maximum(mean, 0.6 * F.max_pool3d(areas, patch))  # a nodule fills little of a patch
        shares = there.flatten(2).transpose(1, 2)
        lesions = shares[..., : len(LESIONS)]
        own = F.binary_cross_entropy_with_logits(self.seen(features.local), shares)
        guided = F.binary_cross_entropy_with_logits(self.refined(refined.flatten(2).transpose(1, 2)), lesions)
        return own + guided


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


# ---------------------------------------------------------------- seeing


def learn_to_see(network: CTNetwork, files: Sequence[Path], stage: Stage, work: Path, report: Report) -> None:
    """Train encoder, denoiser and classifier on whole volumes; goes on where it was."""
    helper = Helper(network.config.encoder.width, network.config.localiser.width)
    labels = [load(path).labels for path in files]
    values, known = targets_of(labels, network)
    rows = [Targets(v.numpy(), k.numpy()) for v, k in zip(values, known, strict=True)]
    weights = torch.from_numpy(class_weights(rows, limit=4.0))
    trained = nn.ModuleList(
        [network.encoder, network.classifier, network.localiser.denoiser, network.localiser.text, helper]
    )

    def step(generator: torch.Generator) -> Tensor:
        loss = torch.zeros(())
        for _ in range(stage.batch):
            place = int(torch.randint(len(files), (), generator=generator))
            example = load(files[place])
            image = varied(image_of(example, network), generator)
            features = network.encode(image)
            refined = network.refine(features)
            areas = torch.from_numpy(example.areas).float().unsqueeze(0)
            told = classification_loss(
                network.classify(features), values[place : place + 1], known[place : place + 1], weights
            )
            one = 0.5 * told + 4.0 * helper.loss(features, refined, areas)
            torch.autograd.backward(one / stage.batch)
            loss += one.detach() / stage.batch
        return loss

    _learn(trained, step, stage, work, report)


# ---------------------------------------------------------------- drawing


def learn_to_draw(network: CTNetwork, files: Sequence[Path], stage: Stage, work: Path, report: Report) -> None:
    """Train the U-Net on tiles, with what the denoiser made of whole volumes kept beforehand."""
    kept = keep_features(network, files, work / "refined")
    unet = network.localiser.unet
    patch = network.config.encoder.patch
    size = network.config.encoder.volume
    with torch.no_grad():
        text = network.localiser.spoken(1)

    def step(generator: torch.Generator) -> Tensor:
        images, masks, refined = [], [], []
        for _ in range(stage.batch):
            place = int(torch.randint(len(files), (), generator=generator))
            example = load(files[place])
            tile = _tile(example, patch, size, generator)
            cut = Example(example.seed, example.hu[tile], example.areas[(slice(None), *tile)], example.labels)
            images.append(varied(image_of(cut, network), generator))
            masks.append(torch.from_numpy(cut.masks).float())
            coarse = tuple(slice(t.start // p, t.stop // p) for t, p in zip(tile, patch, strict=True))
            refined.append(load_file(kept[place])["refined"].float()[(slice(None), *coarse)])
        logits = unet(torch.cat(images), torch.stack(refined), text.expand(stage.batch, -1, -1))
        loss = localisation_loss(logits, torch.stack(masks))
        torch.autograd.backward(loss)
        return loss.detach()

    _learn(unet, step, stage, work, report)


@torch.inference_mode()
def keep_features(network: CTNetwork, files: Sequence[Path], directory: Path) -> list[Path]:
    """Write what the denoiser makes of each volume beside one another, unless it is there; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    network.eval()
    found = []
    for path in files:
        target = directory / f"{path.stem}.safetensors"
        if not target.exists():
            refined = network.refine(network.encode(image_of(load(path), network)))[0]
            save_file({"refined": refined.half().contiguous()}, target)
        found.append(target)
    return found


def _tile(
    example: Example, patch: tuple[int, int, int], size: tuple[int, int, int], generator: torch.Generator
) -> tuple[slice, slice, slice]:
    """Return where a tile lies, on whole patches; mostly around a voxel of a lesion, each kind as often."""
    shown = [mask for mask in example.masks if mask.any()]
    if shown and float(torch.rand((), generator=generator)) < _AROUND:
        mask = shown[int(torch.randint(len(shown), (), generator=generator))]
        voxels = np.argwhere(mask)
        middle = voxels[int(torch.randint(len(voxels), (), generator=generator))]
    else:
        middle = np.array([int(torch.randint(side, (), generator=generator)) for side in size])
    slices = []
    for at, wanted, part, whole in zip(middle, TILE, patch, size, strict=True):
        side = min(wanted, whole)
        moved = int(at) - side // 2 + int(torch.randint(-side // 4, side // 4 + 1, (), generator=generator))
        start = min(max(0, moved // part * part), whole - side)
        slices.append(slice(start, start + side))
    return slices[0], slices[1], slices[2]


# ---------------------------------------------------------------- any stage


def _learn(
    module: nn.Module, step: Callable[[torch.Generator], Tensor], stage: Stage, work: Path, report: Report
) -> None:
    """Take steps until those that the time allows are done; every ``_EVERY`` of them all is kept."""
    module.train()
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=stage.rate, weight_decay=0.02)
    state = _State(work, stage.name)
    done, steps = state.restore(module, optimiser)
    losses: list[float] = []
    began, first = time.process_time(), done
    while steps is None or done < steps:
        if steps is None and done - first == _MEASURED:
            each = (time.process_time() - began) / _MEASURED
            steps = max(_MEASURED + 1, math.ceil(stage.seconds / each))
            report(f"{stage.name}: {each:.2f} s of CPU a step, {steps} steps")
        rate = stage.rate * _share(done, steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
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
    """Weights, moments and place of a stage on disk."""

    def __init__(self, work: Path, name: str) -> None:
        self._tensors, self._said = work / f"{name}.safetensors", work / f"{name}.json"

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, int | None]:
        """Take up what was kept; return the steps that were done, and how many there will be if that is known."""
        if not (self._tensors.exists() and self._said.exists()):
            return 0, None
        said = json.loads(self._said.read_text())
        tensors = load_file(self._tensors)
        module.load_state_dict(dict(_below("module.", tensors)))
        saved = optimiser.state_dict()
        saved["state"] = {
            place: dict(_below(f"moment.{place}.", tensors))
            for place in range(len(saved["param_groups"][0]["params"]))
            if f"moment.{place}.step" in tensors
        }
        optimiser.load_state_dict(saved)
        return int(said["done"]), int(said["steps"])

    def keep(self, module: nn.Module, optimiser: torch.optim.Optimizer, done: int, steps: int) -> None:
        """Replace what was kept."""
        tensors = {f"module.{name}": value.contiguous().clone() for name, value in module.state_dict().items()}
        for place, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"moment.{place}.{name}": value.contiguous().clone() for name, value in moments.items()}
        draft = self._tensors.with_suffix(".part")
        save_file(tensors, draft)
        draft.replace(self._tensors)
        write_durably(self._said, json.dumps({"done": done, "steps": steps}).encode())


def _below(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))
