"""Brings a volume onto the grid of a network, and cuts off what lies far from the lungs."""

from __future__ import annotations

import torch
from torch import Tensor

from clinic_ai.domain import Vector
from clinic_ai_ct.configurations import NetworkConfig, Size
from clinic_ai_ct.reading import resampled
from clinic_ai_ct.volume import Volume
from clinic_ai_ct.windows import Window, windowed

CHEST_MM: tuple[float, float, float] = (480.0, 400.0, 400.0)
"""Longest parts along (z, y, x) that are read, about the middle of the lungs: there is no larger chest."""


def on_network_grid(volume: Volume, config: NetworkConfig, middle: Vector | None) -> Volume:
    """Return a canonical volume with the spacing of the network; what is cut off is said in its remarks.

    ``middle`` is that of the lungs, LPS in mm. An axis is cut to one window of the encoder where that is long enough
    for a chest, so that it is read once; else to ``CHEST_MM``.
    """
    shape = []
    for axis, limit in enumerate(CHEST_MM):
        step = config.spacing[axis]
        own = max(1, round(volume.grid.shape[axis] * volume.grid.spacing[axis] / step))
        window = config.encoder.volume[axis]
        most = max(window, round(limit / step))
        if axis > 0 and window * step >= 0.9 * limit:
            most = window
        shape.append(min(own, most))
    size: Size = (shape[0], shape[1], shape[2])
    return resampled(volume, config.spacing, size, _about(volume, config, size, middle))


def image_of(volume: Volume, windows: tuple[tuple[float, float], ...]) -> Tensor:
    """Return a volume through windows (centre, width) as a network reads it: (1, C, D, H, W) in 0..1."""
    return torch.from_numpy(windowed(volume.hu, [Window(*one) for one in windows])).unsqueeze(0)


def _about(volume: Volume, config: NetworkConfig, size: Size, middle: Vector | None) -> Vector | None:
    """Return the middle of what is kept: that of the volume along axes of which nothing is cut off."""
    if middle is None:
        return None
    grid = volume.grid
    affine = grid.affine()
    centre = affine[:3, 3].copy()
    for axis in range(3):
        centre += (grid.shape[axis] - 1) / 2 * affine[:3, axis]
    for axis in range(3):
        extent, kept = grid.shape[axis] * grid.spacing[axis], size[axis] * config.spacing[axis]
        spare = (extent - kept) / 2
        if spare <= config.spacing[axis]:
            continue
        direction = affine[:3, axis] / grid.spacing[axis]
        off = float((middle - centre) @ direction)
        centre += min(max(off, -spare), spare) * direction
    x, y, z = (float(value) for value in centre)
    return x, y, z
