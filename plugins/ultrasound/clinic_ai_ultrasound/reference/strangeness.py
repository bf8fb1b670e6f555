"""What the images of training look like to the vision tower, so that an image unlike them can be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from clinic_ai.ml import unlike
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH
from clinic_ai_ultrasound.reference.phantoms import Grey
from clinic_ai_ultrasound.reference.pretraining import normalised, shrink

_AT_ONCE = 64
_RIDGE, _MARGIN = 1e-3, 1.1


@torch.inference_mode()
def pooled(base: Base, images: Sequence[Grey]) -> Tensor:
    """Return the mean hidden state of the vision tower, (n, width), of images of the network's size."""
    found = []
    for begin in range(0, len(images), _AT_ONCE):
        pixels = torch.from_numpy(np.stack(images[begin : begin + _AT_ONCE]))
        found.append(base.model.vision_model(normalised(pixels)).last_hidden_state.float().mean(dim=1))
    return torch.cat(found)


def write_statistics(base: Base, train: Sequence[Grey], apart: Sequence[Grey], directory: Path) -> float:
    """Write what the vision tower makes of ``train`` into ``directory``; return the limit, by ``apart``.

    Images are of the network's size.
    """
    return unlike.write_statistics(pooled(base, train), pooled(base, apart), directory, ridge=_RIDGE, margin=_MARGIN)


def _noise(pixels: Grey, chance: np.random.Generator) -> Grey:
    return chance.integers(0, 256, pixels.shape, dtype=np.uint8)


def _clouds(_: Grey, chance: np.random.Generator) -> Grey:
    coarse = chance.integers(0, 256, (6, 9), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def _page(_: Grey, chance: np.random.Generator) -> Grey:
    """Return a white page with lines of black strokes."""
    page = np.full((HEIGHT, WIDTH), 250, dtype=np.uint8)
    for row in range(20, HEIGHT - 10, 14):
        page[row : row + 6, 20:-20] = np.where(chance.random((1, WIDTH - 40)) < 0.5, 20, 250)
    return page


STRANGE: dict[str, Callable[[Grey, np.random.Generator], Grey]] = {
    "inverted": lambda pixels, _: 255 - pixels,
    "noise": _noise,
    "clouds": _clouds,
    "a printed page": _page,
}
"""Ways to make a strange image, from one of a head, uint8 (rows, columns)."""


def refused(base: Base, directory: Path, limit: float, images: dict[str, list[Grey]]) -> dict[str, float]:
    """Return which share of each kind of ``images``, uint8 (rows, columns) each, is refused as unlike training."""
    tensors = load_file(directory / unlike.STATISTICS)
    shares = {}
    for kind, some in images.items():
        away = (pooled(base, [shrink(pixels) for pixels in some]) - tensors["mean"]) @ tensors["factor"]
        shares[kind] = float((away.norm(dim=1) > limit).float().mean())
    return shares
