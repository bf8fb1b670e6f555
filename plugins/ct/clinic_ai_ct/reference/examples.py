"""Phantoms as the network sees them, drawn once and kept on disk."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_ct.anatomy import label_of
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.phantoms import CONDITIONS, Phantom, make
from clinic_ai_ct.preparing import on_network_grid
from clinic_ai_ct.reading import resampled
from clinic_ai_ct.volume import HU, OUTSIDE_HU, Bits, Volume

JUDGED = CONDITIONS
"""Labels that the network is judged by."""
AREAS = (*LESIONS, "pneumothorax", "atelectasis", "emphysema", "fibrosis", "lung_mass", "pleural_thickening",
         "calcification", "lymphadenopathy")  # fmt: skip
"""Conditions whose voxels a phantom knows; the encoder learns from them where to look."""
LANDMARKS = ("heart", "mediastinum")
"""Regions that it learns as well: a large heart and a wide mediastinum are told by how far these reach."""
GRIDS = (
    ((96, 128, 128), (3.0, 2.8, 2.8)),
    ((112, 128, 128), (2.6, 2.9, 2.9)),
    ((60, 144, 144), (5.0, 2.5, 2.5)),
    ((120, 160, 160), (2.5, 2.3, 2.3)),
)
"""Shape and spacing that phantoms are scanned with, (z, y, x)."""


@dataclass(frozen=True)
class Example:
    """One phantom on the grid of the network: ``hu`` (D, H, W) of its window.

    ``areas`` (A, D, H, W) are those of ``AREAS``, then those of ``LANDMARKS``.
    """

    seed: int
    hu: HU
    areas: Bits
    labels: npt.NDArray[np.float32]

    @property
    def masks(self) -> Bits:
        """The lesions that the network draws, (5, D, H, W)."""
        return self.areas[: len(LESIONS)]


def phantom_of(seed: int) -> Phantom:
    """Return the phantom of a seed, scanned on one of ``GRIDS``."""
    shape, spacing = GRIDS[seed % len(GRIDS)]
    return make(seed, shape=shape, spacing=spacing)


def draw(seed: int, config: NetworkConfig, work: Path) -> Path:
    """Draw the phantom of a seed as an example, unless its file is there; return the file."""
    path = work / f"{seed:06d}.npz"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    phantom = phantom_of(seed)
    small = on_network_grid(phantom.volume, config, None)
    areas = np.stack([_brought(_area(phantom, name), phantom, small) for name in (*AREAS, *LANDMARKS)])
    labels = np.array([phantom.labels[name] for name in CONDITIONS], dtype=np.uint8)
    size = config.encoder.volume
    hu = np.full(size, OUTSIDE_HU, dtype=np.int16)
    whole = np.zeros((len(areas), *size), dtype=np.bool_)
    z, y, x = (min(a, b) for a, b in zip(size, small.hu.shape, strict=True))
    hu[:z, :y, :x], whole[:, :z, :y, :x] = small.hu[:z, :y, :x], areas[:, :z, :y, :x]
    content = io.BytesIO()
    np.savez_compressed(content, hu=hu, areas=np.packbits(whole, axis=-1), labels=labels)
    write_durably(path, content.getvalue())
    return path


@dataclass(frozen=True)
class Packed:
    """An example as it is kept: ``bits`` are its areas with eight columns in a byte; ``places`` some voxels of each."""

    seed: int
    hu: HU
    bits: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.float32]
    places: tuple[npt.NDArray[np.intp], ...]

    def cut(self, tile: tuple[slice, slice, slice]) -> Example:
        """Return a part of it."""
        z, y, x = tile
        rows = np.unpackbits(self.bits[:, z, y], axis=-1, count=self.hu.shape[-1])
        return Example(self.seed, self.hu[tile], rows[..., x].astype(np.bool_), self.labels)

    def whole(self) -> Example:
        """Return all of it."""
        z, y, x = self.hu.shape
        return self.cut((slice(0, z), slice(0, y), slice(0, x)))


def load(path: Path) -> Example:
    """Return the example that ``draw`` wrote."""
    return load_packed(path).whole()


def load_packed(path: Path, places: int = 0) -> Packed:
    """Return the example that ``draw`` wrote, with up to so many voxels of each area, drawn by its seed."""
    with np.load(path, allow_pickle=False) as kept:
        seed, hu, bits = int(path.stem), kept["hu"], kept["areas"]
        labels = kept["labels"].astype(np.float32)
    generator = np.random.default_rng(seed)
    found = []
    for area in bits if places else ():
        voxels = np.argwhere(np.unpackbits(area, axis=-1, count=hu.shape[-1]))
        found.append(voxels[np.sort(generator.permutation(len(voxels))[:places])])
    return Packed(seed, hu, bits, labels, tuple(found))


def _area(phantom: Phantom, name: str) -> Bits:
    if name in LANDMARKS:
        region: Bits = phantom.organs == label_of(name)
        return region
    found = phantom.masks.get(name, phantom.other_masks.get(name))
    return np.zeros(phantom.volume.hu.shape, dtype=np.bool_) if found is None else found


def _brought(mask: Bits, phantom: Phantom, small: Volume) -> Bits:
    """Return a mask on the grid of ``small``: true where it fills half of a voxel."""
    if not mask.any():
        return np.zeros(small.hu.shape, dtype=np.bool_)
    full = np.where(mask, np.int16(1000), np.int16(0))
    brought = resampled(Volume(full, phantom.volume.grid), small.grid.spacing, small.grid.shape)
    found: Bits = brought.hu >= 500
    return found


def varied(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return an image in 0..1 as another scanner might show it: darker, flatter, grainier."""
    gain, shift, grain = (float(torch.rand((), generator=generator)) for _ in range(3))
    noise = torch.randn(image.shape, generator=generator) * (0.03 * grain)
    return (image * (0.94 + 0.12 * gain) + 0.06 * (shift - 0.5) + noise).clamp(0, 1)
