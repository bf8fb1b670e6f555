"""The five kinds of lesion that have masks: what is wished for, and how it is drawn with a mask that is exact.

Fluid, consolidation and ground glass are drawn as the part of a field below a threshold, and the threshold is chosen so
that the volume is the one wished for, to the voxel. A nodule is an ellipsoid whose long axis is its diameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinic_ai_ct.anatomy import LEFT_LOBES, LOBES, RIGHT_LOBES, label_of
from clinic_ai_ct.phantoms.body import AIR, WATER, Chest
from clinic_ai_ct.phantoms.build import Build
from clinic_ai_ct.phantoms.space import Field, Point, Space, beyond, clouds, smooth
from clinic_ai_ct.volume import Bits

PlaneSide = Literal["left", "right"]
_TRIES = 400


@dataclass(frozen=True)
class PericardialEffusion:
    """Fluid around the heart; ``thickness_mm`` where it is thickest, at the back and below."""

    thickness_mm: float
    name = "pericardial_effusion"


@dataclass(frozen=True)
class PleuralEffusion:
    """Free fluid in one pleural space of a patient on the back."""

    side: PlaneSide
    ml: float
    name = "pleural_effusion"


@dataclass(frozen=True)
class Consolidation:
    """Airless lung in one lobe, with open bronchi in it."""

    lobe: str
    ml: float
    name = "consolidation"


@dataclass(frozen=True)
class GroundGlass:
    """Hazy lung in one lobe through which the vessels are seen."""

    lobe: str
    ml: float
    name = "ground_glass_opacity"


@dataclass(frozen=True)
class Nodule:
    """A round or oval nodule within one lobe; above 30 mm it is a mass, which has no mask among the five."""

    lobe: str
    diameter_mm: float
    name = "lung_nodule"


LesionSpec = PericardialEffusion | PleuralEffusion | Consolidation | GroundGlass | Nodule


@dataclass(frozen=True)
class DrawnLesion:
    """What became of a wish, measured on its mask: ``ml`` of its voxels; ``side`` and ``lobe`` as wished.

    ``diameter_mm`` is the long axis that a nodule was drawn with, None for others.
    """

    name: str
    side: Literal["left", "right", ""]
    lobe: str
    ml: float
    diameter_mm: float | None = None


def side_of(lobe: str) -> PlaneSide:
    """Return the side of a lobe. Raise ValueError if there is no such lobe."""
    if lobe not in LOBES:
        raise ValueError(f"there is no lobe {lobe!r}")
    return "left" if lobe in LEFT_LOBES else "right"


def wished(generator: np.random.Generator) -> tuple[LesionSpec, ...]:
    """Draw lesions by chance: each kind in a little less than half of the phantoms, one to three nodules."""
    uniform = generator.uniform
    chosen: list[LesionSpec] = []
    if generator.random() < 0.35:
        chosen.append(PericardialEffusion(float(uniform(7, 22))))
    if generator.random() < 0.42:
        sides: tuple[PlaneSide, ...] = (("left",), ("right",), ("left", "right"))[int(generator.integers(3))]
        chosen.extend(PleuralEffusion(side, float(np.exp(uniform(np.log(60), np.log(900))))) for side in sides)
    lobes = list(generator.permutation(LOBES))
    for _ in range(int(generator.choice(3, p=(0.6, 0.28, 0.12)))):
        chosen.append(Consolidation(str(lobes.pop()), float(np.exp(uniform(np.log(15), np.log(160))))))
    for _ in range(int(generator.choice(4, p=(0.58, 0.2, 0.12, 0.1)))):
        if lobes:
            chosen.append(GroundGlass(str(lobes.pop()), float(np.exp(uniform(np.log(20), np.log(200))))))
    if generator.random() < 0.5:
        for _ in range(int(generator.integers(1, 4))):
            lobe = str(generator.choice(LOBES))
            chosen.append(Nodule(lobe, float(np.exp(uniform(np.log(7), np.log(30))))))
    return tuple(chosen)


# ---------------------------------------------------------------- around the heart


def sac_of(space: Space, build: Build, heart: Field, effusion: PericardialEffusion | None) -> tuple[Field, Field]:
    """Return the distance outside the sac of the heart, and outside its fluid (positive everywhere if there is none).

    ``heart`` is the distance outside the heart itself.
    """
    if effusion is None:
        return heart - 4.5, np.full_like(heart, 99.0)
    share = smooth(-60.0, 45.0, space.y + 22.0) * 0.65 + smooth(40.0, -60.0, space.z - build.left_dome - 40.0) * 0.35
    thick = effusion.thickness_mm * (0.25 + 0.75 * share)
    return heart - 3.5 - thick, np.maximum(2.0 - heart, heart - 2.0 - thick)


def draw_pericardial(chest: Chest, fluid: Field) -> Bits:
    """Paint the fluid around the heart, which the lungs have made room for; return its mask."""
    around = np.isin(chest.organs, (label_of("mediastinum"), label_of("oesophagus")))
    mask: Bits = (fluid < 0) & around & (chest.lungs > 0)
    chest.hu += mask * chest.space.inside(fluid) * (WATER + 4.0 - chest.hu)
    chest.organs[mask] = 0
    return mask


# ---------------------------------------------------------------- pleura


def pleural_field(chest: Chest) -> Field:
    """Return how hard it is for fluid to reach each voxel of the lungs, in mm: it lies at the back and the bottom."""
    reach = smooth(-0.55, 0.85, chest.back) * (0.05 + 0.95 * smooth(100.0, -70.0, chest.space.z)) + 0.004
    low = smooth(-0.3, 0.7, chest.back) * 0.35 + 0.004
    field: Field = np.minimum(np.maximum(chest.wall, 0.0) / reach, np.maximum(chest.above, 0.0) / low)
    return field


def draw_pleural(chest: Chest, spec: PleuralEffusion) -> tuple[Bits, Field]:
    """Paint free fluid; return its mask and the field, measured from its surface, for what is squeezed beside it."""
    lung, field = chest.lung(spec.side), pleural_field(chest)
    field = field - _threshold(field, lung, spec.ml / chest.space.grid.voxel_mm3 * 1000.0)
    mask = chest.fill(lung, field, WATER)
    chest.organs[mask] = 0
    return mask, field


# ---------------------------------------------------------------- in the lung


def draw_ground_glass(chest: Chest, spec: GroundGlass, generator: np.random.Generator) -> Bits:
    """Make a part of a lobe hazy, some 250 to 400 HU denser; return its mask. Vessels are drawn over it later."""
    lobe, field = _patch(chest, spec.lobe, spec.ml, generator, grain=10.0, ragged=7.5)
    added = generator.uniform(240, 380)
    uneven = 1.0 + 0.12 * clouds(generator, chest.space.grid, 7.0)
    chest.hu += chest.space.inside(field) * lobe * added * uneven
    mask: Bits = lobe & (field < 0)
    return mask


def draw_consolidation(chest: Chest, spec: Consolidation, generator: np.random.Generator) -> Bits:
    """Fill a part of a lobe with fluid and cells, but for a few bronchi that stay open; return its mask."""
    lobe, field = _patch(chest, spec.lobe, spec.ml, generator, grain=12.0, ragged=6.0)
    level = generator.uniform(15, 50) + (25.0 if chest.build.contrast != "none" else 0.0)
    mask = chest.fill(lobe, field, level + 6.0 * clouds(generator, chest.space.grid, 9.0))
    voxels = np.argwhere(mask)
    hilum = (46.0 if spec.lobe in LEFT_LOBES else -46.0, 20.0, 12.0)
    for voxel in voxels[generator.integers(0, len(voxels), 5)] if len(voxels) else ():
        end = chest.space.place(voxel)
        start = _between(hilum, end, 0.55)
        box = chest.space.box([start, end], 4.0)
        distance = np.maximum(chest.space.tube(start, end, (1.9, 1.1), box), field[box] + 2.0)
        chest.hu[box] += chest.space.inside(distance) * lobe[box] * (AIR + 120.0 - chest.hu[box])
    return mask


def draw_nodule(chest: Chest, spec: Nodule, taken: Bits, generator: np.random.Generator) -> Bits:
    """Paint a nodule where its lobe has room for it and ``taken`` is false; return its mask, empty if there is no room.

    A large one may reach beyond the lung that is there; what it would cover of other tissue is left out.
    """
    space, lobe = chest.space, chest.lobe(spec.lobe)
    free = lobe & ~taken
    voxels = np.argwhere(free)
    mask = np.zeros(space.grid.shape, dtype=np.bool_)
    if not len(voxels):
        return mask
    radius = spec.diameter_mm / 2
    radii = tuple(radius * part for part in generator.permutation((1.0, *generator.uniform(0.82, 1.0, 2))))
    best, wanted = (-1.0, (0.0, 0.0, 0.0)), 0.999
    for number, voxel in enumerate(voxels[generator.integers(0, len(voxels), _TRIES)]):
        centre = space.place(voxel)
        box = space.box([centre], radius)
        inside = space.ball(centre, radii, box) < 0
        share = float((inside & free[box]).sum()) / max(1, int(inside.sum()))
        best = max(best, (share, centre))
        if best[0] >= wanted - number / _TRIES * 0.3:
            break
    centre = best[1]
    box = space.box([centre], radius + 2 * space.edge)
    distance = space.ball(centre, radii, box)
    level = generator.uniform(10, 60) + (20.0 if chest.build.contrast != "none" else 0.0)
    shown = space.inside(distance) * (chest.lungs[box] < space.edge) * ~taken[box]
    chest.hu[box] += shown * (level - chest.hu[box])
    mask[box] = (distance < 0) & free[box]
    return mask


def _patch(
    chest: Chest, lobe: str, ml: float, generator: np.random.Generator, *, grain: float, ragged: float
) -> tuple[Bits, Field]:
    """Return the voxels of a lobe, and a field that is below 0 in a ragged part of it, ``ml`` large (or all of it)."""
    space, inside = chest.space, chest.lobe(lobe)
    voxels = np.argwhere(inside)
    if not len(voxels):
        return inside, np.full(space.grid.shape, 1.0, dtype=np.float32)
    tries = voxels[generator.integers(0, len(voxels), 12)]
    depth = [chest.wall[tuple(voxel)] for voxel in tries]
    centre = space.place(tries[int(np.argsort(depth)[3])])  # rather at the border than at the hilum
    x, y, z = space.x - centre[0], space.y - centre[1], space.z - centre[2]
    radius = (ml * 1000.0 * 0.75 / np.pi) ** (1 / 3)
    stretch = generator.uniform(0.8, 1.25, 3)
    field = beyond(x, y, z, (radius * stretch[0], radius * stretch[1], radius * stretch[2]))
    field = field + ragged * clouds(generator, space.grid, grain)
    return inside, (field - _threshold(field, inside, ml / space.grid.voxel_mm3 * 1000.0)).astype(np.float32)


def _threshold(field: Field, inside: Bits, voxels: float) -> float:
    """Return the value below which ``voxels`` of the field lie inside; above all of them if there are not so many."""
    values, count = field[inside], round(voxels)
    if count >= len(values):
        return float(values.max()) + 1.0 if len(values) else 0.0
    return float(np.partition(values, count)[count])


def _between(start: Point, end: Point, share: float) -> Point:
    x, y, z = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return x, y, z


def lobes_of(side: str) -> tuple[str, ...]:
    """Return the lobes of a side."""
    return LEFT_LOBES if side == "left" else RIGHT_LOBES
