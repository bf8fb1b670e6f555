"""The examples that are learned from, and where in them a tile is taken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clinic_ai_ct.configurations import Size
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.reference.examples import AREAS, JUDGED, LANDMARKS, Example, Packed, load_packed
from clinic_ai_ct.windows import Window, windowed

Tile = tuple[slice, slice, slice]
_AROUND = 0.8
"""Of the tiles, those that are drawn around a lesion."""
_PLACES = 200
"""Voxels of each area of an example that tiles are drawn around."""


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


def known_areas(example: Packed) -> Tensor:
    """Return (A,) of 0 and 1: a condition that is there but was not drawn voxel by voxel is known as a label only."""
    rows = dict(zip(JUDGED, example.labels, strict=True))
    drawn = zip((*AREAS, *LANDMARKS), example.places, strict=True)
    return torch.tensor([float(len(voxels) > 0 or not rows.get(name, 0.0)) for name, voxels in drawn])


def image_of(example: Example, network: CTNetwork) -> Tensor:
    """Return (1, C, D, H, W) of an example."""
    return torch.from_numpy(windowed(example.hu, [Window(*one) for one in network.config.windows])).unsqueeze(0)


def tile_around(
    places: Sequence[np.ndarray], wanted: Size, patch: Size, size: Size, generator: torch.Generator
) -> Tile:
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
