"""Conditions beside the five with masks that the phantoms can show; each function paints and returns its voxels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from clinic_ai_ct.anatomy import label_of
from clinic_ai_ct.phantoms.body import AIR, Chest
from clinic_ai_ct.phantoms.build import ENHANCEMENTS
from clinic_ai_ct.phantoms.lesions import lobes_of
from clinic_ai_ct.phantoms.space import Field, Point, clouds, smooth
from clinic_ai_ct.volume import Bits

Side = Literal["left", "right"]


def a_side(generator: np.random.Generator) -> Side:
    """Return a side by chance."""
    return "left" if generator.random() < 0.5 else "right"


def pneumothorax(chest: Chest, side: Side, generator: np.random.Generator) -> Bits:
    """Put air between the front of the rib cage and a lung that has fallen back, its pleura a fine line."""
    reach = smooth(0.35, -0.85, chest.back) * (0.55 + 0.45 * smooth(60.0, -60.0, chest.space.z)) + 0.004
    field: Field = np.maximum(chest.wall, 0.0) / reach - generator.uniform(20, 45)
    lung = chest.lung(side)
    line = np.abs(field - 0.6 * chest.space.edge) - 0.8
    chest.hu += chest.space.inside(line) * lung * (-420.0 - chest.hu)
    chest.hu += chest.space.inside(field) * lung * (AIR + 8.0 - chest.hu)
    mask: Bits = lung & (field < 0)
    chest.organs[mask] = 0
    return mask


def squeezed(chest: Chest, side: Side, field: Field, generator: np.random.Generator) -> Bits:
    """Collapse the lung beside an effusion; ``field`` is measured from the surface of the fluid. Only where it lies."""
    lower = chest.lobe(lobes_of(side)[-1])
    width = generator.uniform(9, 15)
    level = 45.0 + ENHANCEMENTS[chest.build.contrast].node * 0.4
    return chest.fill(lower, np.maximum(field - width, -field), level)


def plate(chest: Chest, side: Side, generator: np.random.Generator) -> Bits:
    """Draw plate-like atelectases: two or three flat bands at the base of a lung."""
    space, lung = chest.space, chest.lung(side)
    mask = np.zeros(space.grid.shape, dtype=np.bool_)
    bent = 3.0 * clouds(generator, space.grid, 22.0)
    for number in range(int(generator.integers(2, 4))):
        tilt = generator.uniform(-0.5, 0.5, 2)
        sign = 1.0 if side == "left" else -1.0
        flat = space.z - chest.build.left_dome - 26.0 - 18.0 * number + bent
        flat = flat - tilt[0] * (space.x - 70.0 * sign) - tilt[1] * space.y
        reach = space.ball((70.0 * sign, float(generator.uniform(-20, 40)), chest.build.left_dome + 30), 52.0)
        band = np.maximum(np.abs(flat) - generator.uniform(1.8, 3.2), reach)
        chest.hu += space.inside(band) * lung * (15.0 - chest.hu)
        mask |= lung & (band < 0)
    return mask


def emphysema(chest: Chest, generator: np.random.Generator) -> Bits:
    """Riddle the lungs, more above than below, with holes in which there is nothing but air."""
    space = chest.space
    holes = clouds(generator, space.grid, 7.0) - 0.35 + 0.9 * smooth(60.0, -70.0, space.z)
    lungs = chest.lungs < -3.0
    share = space.inside(-5.0 * holes) * lungs
    chest.hu += share * (AIR + 12.0 - chest.hu)
    chest.hu -= lungs * 22.0
    return np.logical_and(lungs, holes > 0)


def fibrosis(chest: Chest, generator: np.random.Generator) -> Bits:
    """Draw a net of thick lines with small cysts under the pleura of the bases."""
    space = chest.space
    depth = 26.0 * smooth(-0.5, 0.6, chest.back) * smooth(30.0, -40.0, space.z)
    region: Bits = np.logical_and(chest.lungs < 0, np.minimum(chest.wall, chest.above + 4.0) < depth)
    net = np.abs(clouds(generator, space.grid, 6.5))
    share = region * np.clip(1.3 - 2.6 * net, 0.0, 1.0)
    chest.hu += share * (-120.0 - chest.hu)
    chest.hu += region * np.clip(net - 0.9, 0.0, 1.0) * (AIR + 40.0 - chest.hu)
    return region


def thick_pleura(chest: Chest, side: Side, generator: np.random.Generator) -> Bits:
    """Line the side of one rib cage with a rind, partly of chalk."""
    thick = generator.uniform(6, 11) * smooth(0.75, 0.35, np.abs(chest.back - 0.05))
    thick = thick * smooth(80.0, 50.0, np.abs(chest.space.z - 5.0))
    lung, field = chest.lung(side), chest.wall - thick
    mask = chest.fill(lung, field, 48.0)
    chalk = clouds(generator, chest.space.grid, 14.0) > 0.9
    chest.hu += mask * chalk * (thick > 3) * 450.0
    chest.organs[mask] = 0
    return mask


def chalk(chest: Chest, generator: np.random.Generator) -> Bits:
    """Put calcium into the wall of the aorta and along the coronary arteries."""
    space, build = chest.space, chest.build
    aorta = np.argwhere(chest.lobe("aorta"))
    size, low = build.heart, build.left_dome
    middle = (16.0 + 16.0 * (size - 1.0), -22.0, low + 50.0 * size - 4.0)
    mask = np.zeros(space.grid.shape, dtype=np.bool_)
    spots: list[tuple[Point, float]] = []
    for _ in range(5):  # of the left anterior descending artery, along the front of the heart
        along = generator.uniform(0.0, 1.0)
        spots.append(
            ((middle[0] + 30 * along - 2, middle[1] - 34 * size + 14 * along, middle[2] + 30 - 40 * along), 2.6)
        )
    edge = (
        [voxel for voxel in aorta[generator.integers(0, len(aorta), 60)] if _bordering(chest, voxel)]
        if len(aorta)
        else []
    )
    spots.extend((space.place(voxel), float(generator.uniform(2.2, 4.0))) for voxel in edge[:10])
    for centre, radius in spots:
        box = space.box([centre], radius + space.edge)
        distance = space.ball(centre, radius, box)
        chest.hu[box] += space.inside(distance) * (generator.uniform(550, 950) - chest.hu[box])
        mask[box] |= distance < 0
    return mask


def _bordering(chest: Chest, voxel: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> bool:
    k, j, i = (int(index) for index in voxel)
    around = chest.organs[k, max(0, j - 1) : j + 2, max(0, i - 1) : i + 2]
    return bool((around != label_of("aorta")).any())


_STATIONS: tuple[Point, ...] = (
    (-17.0, 0.0, 58.0),
    (-15.0, 4.0, 40.0),
    (30.0, -8.0, 44.0),
    (6.0, -34.0, 66.0),
    (2.0, 20.0, 20.0),
    (-40.0, 16.0, 4.0),
    (43.0, 16.0, 8.0),
)


def nodes(chest: Chest, generator: np.random.Generator, *, enlarged: bool) -> Bits:
    """Draw lymph nodes of the mediastinum: of 4 to 7 mm as everybody has them, or three or more of 15 to 26 mm."""
    space, mask = chest.space, np.zeros(chest.space.grid.shape, dtype=np.bool_)
    level = ENHANCEMENTS[chest.build.contrast].node
    count = int(generator.integers(3, 6))
    for station in generator.permutation(len(_STATIONS))[:count]:
        short = generator.uniform(15, 26) if enlarged else generator.uniform(4, 7)
        centre = _STATIONS[int(station)]
        radii = (short / 2, short / 2, short / 2 * generator.uniform(1.0, 1.7))
        box = space.box([centre], max(radii) + space.edge)
        distance = space.ball(centre, radii, box)
        open_to = np.isin(chest.organs[box], (0, 1, 2, 3, 4, 5, label_of("mediastinum"), label_of("oesophagus")))
        share = space.inside(distance) * open_to
        chest.hu[box] += share * (level - chest.hu[box])
        found = (distance < 0) & open_to
        mask[box] |= found
        chest.organs[box][found] = label_of("mediastinum")
    return mask
