"""Teaches the vision tower and the Q-Former where a structure lies, before any word is learned.

A ViT with a Q-Former that learns from answers alone stays at the commonest one. Here each patch says how much of it
is structure, and the query tokens, as the language model will get them, say the ellipse and what follows from it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration

from clinic_ai_ultrasound.reference.cycle import Cycle, Recipe
from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse
from clinic_ai_ultrasound.reference.network import PATCH, QUERIES, SIDE, make_pictures
from clinic_ai_ultrasound.reference.phantoms import Grey
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS

_GRID = SIDE // PATCH
_SWAPPED = {"left": "right", "right": "left"}
_CATEGORIES = tuple(SUBJECTS)
_AT_ONCE = 128
LANGUAGE = "language_model."


@dataclass(frozen=True)
class Sample:
    """One image for learning to see: pixels of the network's size, its category, ellipse and truths by topic."""

    pixels: Grey
    category: str
    ellipse: Ellipse
    truths: dict[str, str]


RECIPE = Recipe(epochs=8, batch=64, rate=1e-3, warm_up=0.1, weight_decay=0.05, seed=18)
"""How seeing is learned."""


def shrink(pixels: Grey) -> Grey:
    """Return grey levels (rows, columns) in the size of the network, as its image processor makes them."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def normalised(pixels: Tensor) -> Tensor:
    """Return uint8 (n, side, side) as the vision tower takes it: float32 (n, 3, side, side)."""
    pictures = make_pictures()
    scaled = (pixels.float() / 255 - pictures.image_mean[0]) / pictures.image_std[0]
    return scaled[:, None].expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Targets:
    """What is to be said of images, those of the mirrored ones beside them: all tensors are (2, n, …)."""

    ellipse: Tensor
    occupied: Tensor
    category: Tensor
    choices: Tensor

    def of(self, mirrored: Tensor, rows: Tensor) -> Targets:
        """Return those of some rows, (m, …), each as it is or mirrored (0 or 1)."""
        return Targets(
            *(getattr(self, name)[mirrored, rows] for name in ("ellipse", "occupied", "category", "choices"))
        )


def targets(samples: Sequence[Sample]) -> Targets:
    """Return what is to be said of ``samples``."""
    both = [samples, [_mirrored(sample) for sample in samples]]
    return Targets(
        torch.stack([torch.tensor([_numbers(s.ellipse) for s in part]) for part in both]),
        torch.stack([torch.from_numpy(np.stack([_occupied(s.ellipse) for s in part])) for part in both]),
        torch.tensor([[_CATEGORIES.index(s.category) for s in part] for part in both]),
        torch.tensor([[[_choice(topic, s.truths) for topic in TOPICS] for s in part] for part in both]),
    )


def _mirrored(sample: Sample) -> Sample:
    truths = {
        topic: _SWAPPED.get(choice, choice) if topic in ("side", "heart") else choice
        for topic, choice in sample.truths.items()
    }
    return replace(sample, ellipse=sample.ellipse.mirrored(), truths=truths)


def _choice(topic: str, truths: dict[str, str]) -> int:
    """Return the number of the true choice, -1 if nothing is known."""
    return list(TOPICS[topic].answers).index(truths[topic]) if topic in truths else -1


def _numbers(ellipse: Ellipse) -> list[float]:
    across, down = ellipse.reach
    # How much the direction means: nothing for a circle.
    long = 1 - ellipse.b / ellipse.a
    return [
        2 * ellipse.x / WIDTH - 1,
        2 * ellipse.y / HEIGHT - 1,
        2 * across / WIDTH,
        2 * down / HEIGHT,
        2 * long * math.cos(2 * ellipse.angle),
        2 * long * math.sin(2 * ellipse.angle),
        2 * ellipse.inside() - 1,
    ]


def _occupied(ellipse: Ellipse) -> npt.NDArray[np.float32]:
    """Return which share of each patch (row by row) the ellipse takes up, float32."""
    step = _GRID * 4
    x, y = np.meshgrid(
        (np.arange(step) + 0.5) * WIDTH / step - ellipse.x, (np.arange(step) + 0.5) * HEIGHT / step - ellipse.y
    )
    cos, sin = math.cos(ellipse.angle), math.sin(ellipse.angle)
    inside = ((x * cos + y * sin) / ellipse.a) ** 2 + ((y * cos - x * sin) / ellipse.b) ** 2 <= 1
    shares: npt.NDArray[np.float32] = inside.reshape(_GRID, 4, _GRID, 4).mean(axis=(1, 3), dtype=np.float32)
    return shares.ravel()


class Heads(nn.Module):
    """What reads the vision tower and the query tokens while seeing is learned; thrown away afterwards."""

    def __init__(self, vision: int, language: int) -> None:
        super().__init__()
        tokens = QUERIES * language
        self.patch = nn.Linear(vision, 1)
        self.ellipse = nn.Linear(tokens, 7)
        self.category = nn.Linear(tokens, len(_CATEGORIES))
        self.topics = nn.ModuleDict({key: nn.Linear(tokens, len(topic.answers)) for key, topic in TOPICS.items()})

    def loss(self, output: Any, wanted: Targets) -> Tensor:
        """Return the sum of all losses for the output of ``get_image_features``."""
        patches = self.patch(output.vision_outputs.last_hidden_state[:, 1:])[..., 0]
        tokens = output.pooler_output.flatten(1)
        parts = [
            2 * nn.functional.binary_cross_entropy_with_logits(patches, wanted.occupied),
            4 * nn.functional.smooth_l1_loss(self.ellipse(tokens), wanted.ellipse, beta=0.1),
            0.5 * nn.functional.cross_entropy(self.category(tokens), wanted.category),
        ]
        for number, head in enumerate(self.topics.values()):
            known = wanted.choices[:, number]
            if (known >= 0).any():
                parts.append(0.5 * nn.functional.cross_entropy(head(tokens), known, ignore_index=-1))
        return torch.stack(parts).sum()

    @torch.no_grad()
    def right(self, output: Any, wanted: Targets) -> tuple[Tensor, Tensor]:
        """Return by topic how many choices are right, and how many are known."""
        tokens = output.pooler_output.flatten(1)
        said = torch.stack([head(tokens).argmax(dim=1) for head in self.topics.values()], dim=1)
        known = wanted.choices >= 0
        return ((said == wanted.choices) & known).sum(dim=0), known.sum(dim=0)


def learn_to_see(
    model: Blip2ForConditionalGeneration,
    train: Sequence[Sample],
    apart: Sequence[Sample],
    recipe: Recipe,
    path: Path,
) -> list[dict[str, Any]]:
    """Train vision tower, Q-Former and projection; write their weights to ``path``; return what each epoch gave.

    The weights of the last epoch are kept: there is nothing to choose.
    """
    torch.manual_seed(recipe.seed)
    heads = Heads(model.vision_model.config.hidden_size, model.language_projection.out_features)
    learned = [value for name, value in model.named_parameters() if not name.startswith(LANGUAGE)]
    per_epoch = len(train) // recipe.batch
    cycle = Cycle([*learned, *heads.parameters()], recipe, per_epoch)
    pixels, wanted = torch.from_numpy(np.stack([sample.pixels for sample in train])), targets(train)
    history: list[dict[str, Any]] = []
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        total = 0.0
        order = torch.randperm(len(train))
        for step in range(per_epoch):
            rows = order[step * recipe.batch : (step + 1) * recipe.batch]
            mirrored = torch.randint(0, 2, (len(rows),))
            output = model.get_image_features(normalised(_varied(pixels[rows], mirrored)))
            total += cycle.step(heads.loss(output, wanted.of(mirrored, rows)))
        history.append({"epoch": epoch, "loss": total / per_epoch, **_judge(model, heads, apart)})
        sys.stderr.write(f"{history[-1]}\n")
    save_file({name: value.contiguous() for name, value in seeing(model)}, path)
    return history


def _varied(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """Return the images, some mirrored, each a little brighter or darker, harder or softer: uint8."""
    turned = torch.where(mirrored[:, None, None] == 1, pixels.flip(2), pixels).float()
    gain = torch.empty(len(pixels), 1, 1).uniform_(0.75, 1.3)
    gamma = torch.empty(len(pixels), 1, 1).uniform_(0.8, 1.25)
    return (255 * (turned * gain / 255).clamp(0, 1) ** gamma).to(torch.uint8)


def _judge(model: Blip2ForConditionalGeneration, heads: Heads, apart: Sequence[Sample]) -> dict[str, float]:
    """Return by category and topic which share of the choices is right."""
    model.eval()
    found: dict[str, float] = {}
    for category in sorted({sample.category for sample in apart}):
        right, known = _count_right(model, heads, [sample for sample in apart if sample.category == category])
        shares = right / known
        found |= {f"{category}.{topic}": round(float(shares[n]), 3) for n, topic in enumerate(TOPICS) if known[n]}
    return found


@torch.no_grad()
def _count_right(
    model: Blip2ForConditionalGeneration, heads: Heads, samples: Sequence[Sample]
) -> tuple[Tensor, Tensor]:
    """Return by topic how many choices are right, and how many are known."""
    wanted, counts = targets(samples), []
    for begin in range(0, len(samples), _AT_ONCE):
        rows = torch.arange(begin, min(begin + _AT_ONCE, len(samples)))
        pixels = torch.from_numpy(np.stack([samples[row].pixels for row in rows]))
        output = model.get_image_features(normalised(pixels))
        counts.append(torch.stack(heads.right(output, wanted.of(torch.zeros_like(rows), rows))))
    right, known = torch.stack(counts).sum(dim=0)
    return right, known


def seeing(model: Blip2ForConditionalGeneration) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of what has learned to see: all but the language model."""
    return ((name, value) for name, value in model.state_dict().items() if not name.startswith(LANGUAGE))


def load_sight(model: Blip2ForConditionalGeneration, path: Path) -> None:
    """Give ``model`` what ``learn_to_see`` left at ``path``. Raise RuntimeError if it does not fit."""
    saved = load_file(path)
    if set(saved) != {name for name, _ in seeing(model)}:
        raise RuntimeError(f"{path} is of a model of another shape.")
    model.load_state_dict(saved, strict=False)
