"""Reads a volume of any size: windows as large as the encoder's, and tiles of them for the U-Net, with overlap.

The encoder runs once for each window, and all tasks share what it saw. Windows and tiles that overlap are blended by
a Gaussian (MONAI's sliding-window inference, as in nnU-Net, Isensee et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from clinic_ai_ct.configurations import NetworkConfig, Size
from clinic_ai_ct.encoder import Features, merged
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.windows import Window, outside_in


@dataclass(frozen=True)
class Reading:
    """What the network makes of one volume: ``features``, ``logits`` (1, L) of the labels, ``masks`` (1, K, D, H, W).

    ``masks`` are logits too, on the grid of the volume. Features of several windows are merged; see
    ``encoder.merged``.
    """

    features: Features
    logits: Tensor
    masks: Tensor
    windows: int


@torch.inference_mode()
def read(network: CTNetwork, image: Tensor, regions: Tensor | None = None) -> Reading:
    """Read (1, C, D, H, W) in 0..1, and ``regions`` (1, D, H, W) if they are known; see ``CTNetwork.encode``.

    What is smaller than a window is filled up as resampling and learning do; what was filled is cut off again.
    """
    config = network.config
    shape = _size(image)
    image = _surrounded(image, config)
    regions = None if regions is None else _filled(regions, config.encoder.volume)
    seen: list[Features] = []

    def look(window: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        there = None if regions is None else regions[(slice(None), *places[0][2:])]
        seen.append(network.encode(window, there))
        return by_tiles(network, seen[-1], window)

    masks = _slide(image, config.encoder.volume, config.localiser.overlap, look)
    features = merged(seen)
    masks = masks[:, :, : shape[0], : shape[1], : shape[2]]
    return Reading(features, network.classify(features), masks, len(seen))


def windows_of(shape: Size, window: Size, overlap: float) -> int:
    """Return how many windows a volume is read in."""
    counts = (
        1 if side <= part else 1 + math.ceil((side - part) / max(1, int(part * (1 - overlap))))
        for side, part in zip(shape, window, strict=True)
    )
    return math.prod(counts)


def by_tiles(network: CTNetwork, features: Features, image: Tensor) -> Tensor:
    """Return mask logits (1, K, D, H, W) of one window, tile by tile; the tiles lie on whole patches."""
    patch = network.config.encoder.patch
    refined = network.refine(features)
    size = _size(image)
    z, y, x = (min(side, part) for side, part in zip(size, network.config.localiser.tile, strict=True))

    def draw(tile: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        guidance = refined[(slice(None), slice(None), *_patches(places[0][2:], patch))]
        drawn = network.segment(guidance, tile)
        if network.config.localiser.mirrored:
            drawn = (drawn + network.segment(guidance.flip(-1), tile.flip(-1)).flip(-1)) / 2
        return drawn

    return _slide(image, (z, y, x), network.config.localiser.overlap, draw, patch)


def _slide(image: Tensor, window: Size, overlap: float, predict: Any, step: Size = (1, 1, 1)) -> Tensor:
    """Return what ``predict(window, places)`` says of windows of an image, blended where they overlap.

    Windows begin at multiples of ``step``: the overlap is made larger where that is needed.
    """
    size = _size(image)
    if size == window:
        found: Tensor = predict(image, [[slice(0, 1), slice(None), *(slice(0, side) for side in size)]])
        return found
    strides = [max(one, int(part * (1 - overlap)) // one * one) for part, one in zip(window, step, strict=True)]
    overlaps = [1 - stride / part for stride, part in zip(strides, window, strict=True)]
    blended = sliding_window_inference(
        image,
        window,
        1,
        predict,
        overlap=overlaps,
        mode="gaussian",
        with_coord=True,
    )
    assert isinstance(blended, Tensor)  # as ``predict`` returns one
    return blended


def _patches(places: Sequence[slice], patch: Size) -> tuple[slice, ...]:
    return tuple(slice(one.start // side, one.stop // side) for one, side in zip(places, patch, strict=True))


def _surrounded(image: Tensor, config: NetworkConfig) -> Tensor:
    """Fill an image up with what its channels show of the outside; see ``_filled``."""
    filled = _filled(image, config.encoder.volume)
    if filled is not image:
        z, y, x = _size(image)
        outside = image.new_tensor(outside_in([Window(*one) for one in config.windows])).view(-1, 1, 1, 1)
        for beyond in (filled[..., z:, :, :], filled[..., y:, :], filled[..., x:]):
            beyond[:] = outside
    return filled


def _filled(volume: Tensor, window: Size) -> Tensor:
    """Fill the last three axes up with 0 at their ends until a window fits into each."""
    missing = [max(0, part - side) for side, part in zip(volume.shape[-3:], window, strict=True)]
    if not any(missing):
        return volume
    return F.pad(volume, [n for side in reversed(missing) for n in (0, side)])


def _size(image: Tensor) -> Size:
    z, y, x = image.shape[-3:]
    return int(z), int(y), int(x)
