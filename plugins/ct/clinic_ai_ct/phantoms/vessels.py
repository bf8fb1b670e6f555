"""Vessels of the lungs: from each hilum over the lobes to the periphery, thinner from branch to branch."""

from __future__ import annotations

import numpy as np

from clinic_ai_ct.anatomy import LEFT_LOBES, LOBES
from clinic_ai_ct.phantoms.body import Chest
from clinic_ai_ct.phantoms.build import ENHANCEMENTS
from clinic_ai_ct.phantoms.space import Point

_BRANCHES, _TWIGS = 6, 7
"""Branches of each lobe, and twigs of each branch."""


def draw_vessels(chest: Chest, generator: np.random.Generator) -> None:
    """Draw a tree of vessels into every lobe, over what haze there is."""
    enhanced = ENHANCEMENTS[chest.build.contrast]
    for name in LOBES:
        voxels = np.argwhere(chest.lobe(name))
        if len(voxels) < 50:
            continue
        level = (enhanced.left_heart, enhanced.right_heart)[int(generator.integers(2))]
        hilum = (45.0 if name in LEFT_LOBES else -45.0, 16.0, 18.0)
        middle = chest.space.place(voxels[len(voxels) // 2])
        trunk = _towards(hilum, middle, 0.3, generator, 4.0)
        _vessel(chest, hilum, trunk, (5.2, 4.2), level)
        for _ in range(_BRANCHES):
            far = chest.space.place(voxels[int(generator.integers(len(voxels)))])
            fork = _towards(trunk, far, 0.45, generator, 5.0)
            _vessel(chest, trunk, fork, (3.6, 2.5), level)
            near = voxels[generator.integers(0, len(voxels), 70)]
            ends = sorted((_apart(chest.space.place(voxel), fork), chest.space.place(voxel)) for voxel in near)
            for _, end in ends[8 : 8 + 4 * _TWIGS : 4]:
                knee = _towards(fork, end, 0.5, generator, 4.0)
                _vessel(chest, fork, knee, (2.2, 1.5), level)
                _vessel(chest, knee, end, (1.5, 0.8), level)


def _vessel(chest: Chest, start: Point, end: Point, radii: tuple[float, float], level: float) -> None:
    space = chest.space
    box = space.box([start, end], max(radii) + space.edge)
    share = space.inside(space.tube(start, end, radii, box)) * space.inside(chest.lungs[box])
    part = chest.hu[box]
    part += share * np.maximum(level - part, 0.0)


def _towards(start: Point, end: Point, share: float, generator: np.random.Generator, off: float) -> Point:
    x, y, z = (a + (b - a) * share + generator.uniform(-off, off) for a, b in zip(start, end, strict=True))
    return x, y, z


def _apart(one: Point, other: Point) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
