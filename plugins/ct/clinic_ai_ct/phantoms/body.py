"""A healthy chest: layer over layer, from the air around the body to the bronchi in its lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai_ct.anatomy import label_of
from clinic_ai_ct.phantoms.build import ENHANCEMENTS, Build
from clinic_ai_ct.phantoms.space import Field, Point, Space, beyond, clouds, smooth
from clinic_ai_ct.volume import Bits

AIR, FAT, MUSCLE, WATER = -1000.0, -98.0, 55.0, 8.0
AIRWAYS = (label_of("trachea"), label_of("oesophagus"))
RIB_STEP, RIB_SLOPE = 25.0, 0.42
"""mm from one rib to the next, and how far they fall for each mm to the front."""
_CAVITY_MIDDLE = -6.0
"""y of the middle of the rib cage."""


@dataclass
class Chest:
    """A chest as it is drawn; fields are (D, H, W), lengths in mm.

    ``wall`` is the distance from the rib cage (positive within), ``back`` goes from -1 (front) to 1 (back) around its
    middle, ``above`` the height over the diaphragm, ``heart`` the distance outside the heart, ``lungs`` that outside
    both lungs (negative in them). ``organs`` are labels of ``anatomy.REGIONS``; ``territory`` is the lobe
    to which every voxel would belong.
    """

    space: Space
    build: Build
    hu: Field
    organs: npt.NDArray[np.uint8]
    wall: Field
    back: Field
    above: Field
    heart: Field
    lungs: Field
    territory: npt.NDArray[np.uint8]

    def lobe(self, name: str) -> Bits:
        """Return the voxels of a lobe, or of any region."""
        return np.equal(self.organs, label_of(name))

    def lung(self, side: str) -> Bits:
        """Return the voxels of the left or the right lung."""
        left = self.organs <= 2 if side == "left" else (self.organs > 2) & (self.organs <= 5)
        return np.logical_and(left, self.organs > 0)

    def fill(self, inside: Bits, field: Field, level: float | Field) -> Bits:
        """Put ``level`` where ``field`` is below 0 in a part of the lungs; return those voxels.

        What a voxel at the border of the lungs has of lung is filled too, or a dark line would be left around it.
        """
        lung = self.space.inside(self.lungs)
        labels = np.unique(self.organs[inside])
        rim = np.isin(self.territory, labels) & (lung > 0) & (lung < 1) & ~np.isin(self.organs, AIRWAYS)
        share = self.space.inside(field)
        change = np.where(rim, lung * np.maximum(level - self.build.lung_hu, 0.0), level - self.hu)
        self.hu += share * (inside | rim) * change
        return np.logical_and(inside, field < 0)


def draw_chest(
    space: Space, build: Build, generator: np.random.Generator, *, heart: Field, sac: Field, widened: float
) -> Chest:
    """Return a chest without lesions. ``heart`` and ``sac`` are how many mm each voxel lies outside these.

    ``widened`` is by how many mm each side the upper mediastinum is too wide.
    """
    chest = _walls(space, build, generator, heart)
    _belly(chest, generator)
    _mediastinum(chest, generator)
    _lungs(chest, sac, generator, widened)
    _bones(chest, generator)
    _airways(chest)
    return chest


def heart_of(space: Space, build: Build) -> Field:
    """Return how many mm each voxel lies outside the heart, an ellipsoid whose tip points down, left and to the front.

    It sits on the diaphragm and grows to the left, so that a large one touches the wall before the right lung.
    """
    size = build.heart
    x, y = space.x - (16.0 + 16.0 * (size - 1.0)), space.y + 22.0
    z = space.z - (build.left_dome + 50.0 * size - 4.0)
    x, y = 0.82 * x - 0.57 * y, 0.57 * x + 0.82 * y
    x, z = 0.92 * x - 0.39 * z, 0.39 * x + 0.92 * z
    return beyond(x, y, z, (60.0 * size, 44.0 * min(size, 1.25), 51.0 * size))


# ---------------------------------------------------------------- walls


def _walls(space: Space, build: Build, generator: np.random.Generator, heart: Field) -> Chest:
    """Draw table, skin, fat and muscle, and measure the cavity."""
    wall, back = _cavity(space, build)
    hu = np.full(space.grid.shape, AIR, dtype=np.float32)
    organs = np.zeros(space.grid.shape, dtype=np.uint8)
    _table(space, build, hu)
    under_skin = _under_skin(space, build)
    if build.breasts:
        for side in (-1.0, 1.0):
            bump = space.ball((side * 72.0, -build.depth - 26.0, -18.0), (56.0, build.breasts + 18.0, 52.0))
            under_skin = np.maximum(under_skin, -bump)
    space.paint(hu, -under_skin, MUSCLE - 30.0)
    streaks = clouds(generator, space.grid, 14.0)
    deep = under_skin - build.fat - 2.5 * streaks
    space.paint(hu, 2.2 - under_skin, FAT + 6.0 * streaks)
    shoulders = 70.0 * smooth(60.0, 135.0, space.z)
    flesh = np.minimum(deep, 34.0 + shoulders + 4.0 * streaks + wall + 6.0 * np.abs(back))
    space.paint(hu, -flesh, MUSCLE + 4.0 * streaks)
    gaps = np.abs(np.sin(flesh * 0.42 + streaks * 1.2)) - 0.16  # fat between the muscles of the wall
    space.paint(hu, np.maximum(7.0 * gaps, np.maximum(np.maximum(5.0 - flesh, flesh - 36.0), 11.0 + wall)), FAT + 25.0)
    organs[under_skin > 0] = label_of("subcutaneous_fat")
    organs[flesh > 0] = label_of("chest_wall")
    above = _above_diaphragm(space, build)
    return Chest(space, build, hu, organs, wall, back, above, heart, -wall, organs)


def _cavity(space: Space, build: Build) -> tuple[Field, Field]:
    """Return the distance from the inside of the rib cage, positive within, and the place between front and back."""
    rise = np.clip((space.z + 40.0) / 168.0, 0.0, 0.9999)
    shrink = np.sqrt(1.0 - rise * rise * rise)
    width, depth = build.width * shrink, build.depth * np.sqrt(shrink)
    y = space.y - _CAVITY_MIDDLE
    across, along = np.abs(space.x) / width, np.abs(y) / depth
    ratio = (across * across * np.sqrt(across) + along * along * np.sqrt(along)) ** np.float32(0.4)
    distance = np.sqrt(space.x * space.x + y * y) + np.float32(1e-3)
    wall = np.minimum(distance / np.maximum(ratio, 0.02) - distance, 60.0)
    return wall.astype(np.float32), (y / distance).astype(np.float32)


def _under_skin(space: Space, build: Build) -> Field:
    """Return how many mm below the skin each voxel lies; negative outside."""
    up = smooth(40.0, 125.0, space.z)
    neck = smooth(118.0, 175.0, space.z)
    width = (build.width + 30.0 + build.fat) * (1.0 + 0.10 * up - 0.35 * neck)
    depth = (build.depth + 23.0 + build.fat) * (1.0 - 0.10 * up)
    y = space.y - _CAVITY_MIDDLE - 5.0
    across, along = np.abs(space.x) / width, np.abs(y) / depth
    ratio = (across * across * np.sqrt(across) + along * along * np.sqrt(along)) ** np.float32(0.4)
    distance = np.sqrt(space.x * space.x + y * y) + np.float32(1e-3)
    result: Field = distance / np.maximum(ratio, 0.02) - distance
    return result


def _table(space: Space, build: Build, hu: Field) -> None:
    """Draw the table the patient lies on: a thin bent shell in the frame of the scanner, not of the patient."""
    bent = space.y - build.table + (space.x / 70.0) ** 2 * 4.0
    shell = np.maximum(np.abs(np.abs(bent - 16.0) - 14.0) - 1.5, np.abs(space.x) - 195.0)
    space.paint(hu, shell, -180.0)


def _above_diaphragm(space: Space, build: Build) -> Field:
    """Return how many mm each voxel lies above the half of the diaphragm on its side."""
    right = space.x < 0
    top = np.where(right, build.right_dome, build.left_dome).astype(np.float32)
    x = space.x - np.where(right, -62.0, 66.0).astype(np.float32)
    fall = (x / 78.0) ** 2 * 34.0 + ((space.y + 14.0) / 72.0) ** 2 * 46.0
    result: Field = (space.z - top + np.minimum(fall, 42.0)).astype(np.float32)
    return result


# ---------------------------------------------------------------- below and between the lungs


def _belly(chest: Chest, generator: np.random.Generator) -> None:
    """Draw what lies below the diaphragm: fat, liver, spleen and a stomach with its bubble of gas."""
    space, hu = chest.space, chest.hu
    enhanced = ENHANCEMENTS[chest.build.contrast]
    inside = np.maximum(-chest.wall, chest.above)
    space.paint(hu, -chest.wall, FAT + 8.0)
    space.paint(hu, np.maximum(inside, -chest.above - 4.0), MUSCLE)
    liver = np.maximum(np.maximum(inside + 3.0, 2.0 - chest.wall), space.x - 30.0 + 0.5 * (space.y + 20.0))
    liver = np.maximum(liver, space.y - 62.0 - 0.25 * space.x)
    texture = clouds(generator, space.grid, 9.0)
    space.paint(hu, liver, enhanced.liver + 5.0 * texture)
    low = chest.build.left_dome
    spleen = np.maximum(space.ball((92.0, 34.0, low - 42.0), (34.0, 42.0, 46.0)), inside + 3.0)
    space.paint(hu, spleen, enhanced.spleen + 4.0 * texture)
    stomach = np.maximum(space.ball((56.0, -32.0, low - 40.0), (42.0, 40.0, 44.0)), inside + 4.0)
    stomach = np.maximum(stomach, -liver)
    space.paint(hu, stomach, MUSCLE - 10.0)
    level = generator.uniform(-45.0, -25.0)
    space.paint(hu, stomach + 4.0, np.where(space.y < level, AIR + 15.0, 25.0).astype(np.float32))
    for name, distance in (("stomach", stomach), ("liver", liver), ("spleen", spleen)):
        chest.organs[distance < 0] = label_of(name)


def _mediastinum(chest: Chest, generator: np.random.Generator) -> None:
    """Draw heart, great vessels and oesophagus into the fat between the lungs."""
    space, hu, build = chest.space, chest.hu, chest.build
    enhanced = ENHANCEMENTS[build.contrast]
    between = np.minimum(chest.wall, chest.above) > 0
    chest.organs[between] = label_of("mediastinum")
    fat_spots = clouds(generator, space.grid, 8.0)
    space.paint(hu, np.maximum(-chest.wall, -chest.above), FAT + 12.0 + 7.0 * fat_spots)
    _heart(chest, fat_spots)
    r = build.aorta
    blood, dark = enhanced.left_heart, enhanced.right_heart
    for name, points, radii, level in (
        ("mediastinum", ((-30.0, -8.0, 5.0), (-29.0, -10.0, 60.0), (-24.0, -14.0, 92.0)), (9.0, 9.0, 7.5), dark),
        ("mediastinum", ((-24.0, -14.0, 92.0), (-46.0, -26.0, 112.0)), (7.0, 7.0), dark),
        ("mediastinum", ((-24.0, -24.0, 88.0), (20.0, -30.0, 92.0), (44.0, -24.0, 112.0)), (6.5, 6.5, 6.5), dark),
        ("mediastinum", ((-4.0, -16.0, 70.0), (-16.0, -8.0, 125.0)), (6.5, 5.0), blood),
        ("mediastinum", ((10.0, -4.0, 72.0), (13.0, 0.0, 130.0)), (4.5, 4.0), blood),
        ("mediastinum", ((20.0, 10.0, 70.0), (26.0, 12.0, 130.0)), (5.0, 4.5), blood),
        ("pulmonary_artery", ((16.0, -34.0, -4.0), (17.0, -22.0, 24.0), (36.0, 4.0, 30.0)), (14.0, 13.0, 10.5), dark),
        ("pulmonary_artery", ((17.0, -18.0, 22.0), (-10.0, 0.0, 20.0), (-44.0, 8.0, 17.0)), (11.0, 10.5, 9.0), dark),
        ("aorta", ((2.0, -18.0, -8.0), (-12.0, -24.0, 22.0), (-9.0, -20.0, 48.0)), (r, r, r), blood),
        ("aorta", ((-9.0, -20.0, 48.0), (3.0, -6.0, 63.0), (17.0, 14.0, 62.0)), (r, r * 0.95, r * 0.9), blood),
        ("aorta", ((17.0, 14.0, 62.0), (24.0, 31.0, 44.0), (25.0, 36.0, 0.0)), (r * 0.9, r * 0.85, r * 0.82), blood),
        ("aorta", ((25.0, 36.0, 0.0), (19.0, 36.0, -70.0), (10.0, 36.0, -170.0)), (r * 0.82, r * 0.8, r * 0.72), blood),
    ):
        for box, distance in space.tubes(points, radii):
            space.paint(hu, distance, level, box)
            chest.organs[box][distance < 0] = label_of(name)
    gullet = ((4.0, 28.0, 140.0), (3.0, 30.0, 40.0), (4.0, 28.0, -20.0), (12.0, 20.0, -90.0), (30.0, 0.0, -120.0))
    for box, distance in space.tubes(gullet, (7.0, 7.0, 7.5, 8.0, 8.0)):
        space.paint(hu, distance, MUSCLE - 15.0, box)
        chest.organs[box][distance < 0] = label_of("oesophagus")
    gas = generator.uniform(-10, 80)
    for box, distance in space.tubes(((4.0, 28.0, gas), (4.0, 29.0, gas + 14.0)), (2.5, 2.5)):
        space.paint(hu, distance, AIR + 150.0, box)


def _heart(chest: Chest, fat_spots: Field) -> None:
    """Draw the muscle of the heart, its four chambers, the fat in its groove, and the sac around it."""
    space, hu, build = chest.space, chest.hu, chest.build
    enhanced, size = ENHANCEMENTS[build.contrast], build.heart
    heart = chest.heart
    space.paint(hu, heart - 4.0, FAT + 20.0)
    space.paint(hu, np.abs(heart - 4.0) - 0.7, 20.0)
    space.paint(hu, heart, enhanced.muscle_of_heart + 2.0 * fat_spots)
    middle = (16.0 + 16.0 * (size - 1.0), -22.0, build.left_dome + 50.0 * size - 4.0)

    def chamber(at: Point, radii: Point, level: float) -> None:
        centre = (middle[0] + at[0] * size, middle[1] + at[1] * size, middle[2] + at[2] * size)
        scaled = (radii[0] * size, radii[1] * size, radii[2] * size)
        box = space.box([centre], max(scaled) + 3.0)
        distance = np.maximum(space.ball(centre, scaled, box), heart[box] + 4.0)
        space.paint(hu, distance, level, box)

    chamber((26.0, -2.0, -12.0), (24.0, 17.0, 22.0), enhanced.left_heart)
    chamber((2.0, -24.0, -8.0), (26.0, 16.0, 24.0), enhanced.right_heart)
    chamber((-30.0, -6.0, 4.0), (18.0, 20.0, 26.0), enhanced.right_heart)
    chamber((-6.0, 26.0, 18.0), (30.0, 15.0, 18.0), enhanced.left_heart)
    groove = np.abs(space.x - middle[0] + 10.0 * size + 0.6 * (space.z - middle[2])) - 3.0
    space.paint(hu, np.maximum(np.maximum(groove, -heart - 9.0), heart), FAT + 25.0)
    chest.organs[heart < 0] = label_of("heart")


# ---------------------------------------------------------------- lungs


def _lungs(chest: Chest, sac: Field, generator: np.random.Generator, widened: float) -> None:
    """Draw the lungs around heart and mediastinum, darker in front than at the back, and label their lobes."""
    space, build = chest.space, chest.build
    x, y, z = space.x, space.y, space.z
    middle = 9.0 + 23.0 * np.exp(-(((y + 2.0) / 36.0) ** 2)) + 15.0 * smooth(16.0, 44.0, y)
    middle += widened * np.exp(-(((z - 58.0) / 44.0) ** 2)) * np.exp(-(((y + 8.0) / 40.0) ** 2))
    middle += 7.0 * smooth(70.0, 125.0, z) + 2.0 * clouds(generator, space.grid, 30.0)
    lungs = np.maximum(np.maximum(-chest.wall, middle - np.abs(x)), np.maximum(-chest.above, -sac))
    solid = (chest.organs == label_of("aorta")) | (chest.organs == label_of("pulmonary_artery"))
    if widened:
        filled = np.maximum(np.maximum(lungs * -1.0, np.abs(z - 58.0) - 50.0), np.maximum(9.0 - middle, y - 26.0))
        filled = np.maximum(filled, np.abs(x) - middle + 1.5)
        soft = np.maximum(filled, 30.0 * solid - 15.0)
        space.paint(chest.hu, soft, ENHANCEMENTS[build.contrast].node)
    r = build.aorta * 0.85
    for points, radii in (
        (((17.0, 14.0, 62.0), (24.0, 31.0, 44.0), (25.0, 36.0, 0.0)), (r + 2, r + 2, r + 2)),
        (((25.0, 36.0, 0.0), (19.0, 36.0, -70.0), (10.0, 36.0, -170.0)), (r + 2, r + 1, r)),
        (((17.0, -22.0, 24.0), (36.0, 4.0, 30.0)), (14.0, 12.0)),
        (((-10.0, 0.0, 20.0), (-44.0, 8.0, 17.0)), (12.0, 10.0)),
    ):
        for box, distance in space.tubes(points, radii):
            lungs[box] = np.maximum(lungs[box], -distance)
    chest.lungs = lungs
    level = build.lung_hu + 22.0 * chest.back + 12.0 * clouds(generator, space.grid, 24.0)
    space.paint(chest.hu, lungs, level)
    oblique = z + 25.0 - 1.15 * y + 2.5 * clouds(generator, space.grid, 60.0)
    horizontal = z - 4.0 - 0.08 * np.abs(x) + 2.0 * chest.back
    _lobes(chest, oblique, horizontal)
    fissures = np.minimum(np.abs(oblique) * 0.66, np.where((x < 0) & (oblique > 0), np.abs(horizontal), 99.0)) - 0.35
    space.paint(chest.hu, np.maximum(fissures, lungs + 1.0), -600.0)


def _lobes(chest: Chest, oblique: Field, horizontal: Field) -> None:
    inside, right = chest.lungs < 0, chest.space.x < 0
    lower = oblique < 0
    left = np.where(lower, label_of("left_lower_lobe"), label_of("left_upper_lobe"))
    front = np.where(horizontal > 0, label_of("right_upper_lobe"), label_of("right_middle_lobe"))
    names = np.where(right, np.where(lower, label_of("right_lower_lobe"), front), left).astype(np.uint8)
    np.copyto(chest.organs, names, where=inside)
    chest.territory = names


# ---------------------------------------------------------------- bones and airways


def _bones(chest: Chest, generator: np.random.Generator) -> None:
    """Draw spine, ribs with their cartilage, sternum, shoulder blades and collar bones."""
    space, hu, wall = chest.space, chest.hu, chest.wall
    x, y, z = space.x, space.y, space.z
    marrow = chest.build.bone_hu
    grain = clouds(generator, space.grid, 6.0)
    start = generator.uniform(0, RIB_STEP)
    rib = (z - RIB_SLOPE * y + start) / RIB_STEP
    across = (rib - np.floor(rib) - 0.5) * RIB_STEP * 0.92
    bone = np.sqrt(((wall + 8.5) / 4.2) ** 2 + (across / 6.0) ** 2) * 5.0 - 5.0
    bone = np.maximum(bone, 20.0 - np.abs(x))
    space.paint(hu, np.maximum(bone, y + 62.0), 120.0 + 10 * grain)  # cartilage
    bone = np.maximum(bone, -60.0 - y)
    space.paint(hu, bone, 560.0)
    space.paint(hu, bone + 2.4, marrow + 20 * grain)
    chest.organs[bone < 0] = label_of("ribs")
    _spine(chest, start, marrow, grain)
    front = -chest.build.depth - 15.0
    sternum = np.sqrt((x / 19.0) ** 2 + ((y - front) / 6.5) ** 2) * 10.0 - 10.0
    sternum = np.maximum(sternum, np.abs(z - 4.0) - 78.0)
    space.paint(hu, sternum, 400.0)
    space.paint(hu, sternum + 3.0, marrow - 30.0 + 15 * grain)
    chest.organs[sternum < 0] = label_of("sternum")
    blade = np.maximum(np.abs(wall + 25.0 + 5.0 * chest.back) - 2.6, np.abs(chest.back - 0.62) * 90.0 - 26.0)
    blade = np.maximum(blade, np.abs(z - 62.0) - 66.0)
    space.paint(hu, blade, 430.0)
    chest.organs[blade < 0] = label_of("shoulder_girdle")
    for side in (-1.0, 1.0):
        points = ((side * 22.0, front + 2.0, 96.0), (side * 62.0, front + 16.0, 110.0), (side * 125.0, -28.0, 132.0))
        for box, distance in space.tubes(points, (8.0, 6.0, 7.0)):
            space.paint(hu, distance, 520.0, box)
            space.paint(hu, distance + 2.6, marrow, box)
            chest.organs[box][distance < 0] = label_of("shoulder_girdle")


def _spine(chest: Chest, start: float, marrow: float, grain: Field) -> None:
    """Draw vertebrae with discs between them, the canal, arches and spinous processes."""
    space, hu = chest.space, chest.hu
    x, z = space.x, space.z
    y = space.y - 53.0 + (z / 150.0) ** 2 * 9.0
    level = (z + start) / RIB_STEP
    across = np.abs(level - np.floor(level) - 0.5) * RIB_STEP
    column = np.sqrt((x / 18.0) ** 2 + (y / 15.0) ** 2) * 16.0 - 16.0
    space.paint(hu, column, 85.0)
    body = np.maximum(column, across - 9.6)
    space.paint(hu, body, 430.0)
    space.paint(hu, body + 2.2, marrow + 30 * grain)
    canal = np.sqrt(x**2 + (y - 23.0) ** 2) - 8.0
    arch = np.maximum(canal - 6.5, 11.0 - y)
    space.paint(hu, np.maximum(arch, across - 9.0), 420.0)
    wings = np.maximum(np.abs(y - 25.0 + 0.12 * np.abs(x)) - 4.5, np.maximum(np.abs(x) - 33.0, across - 5.0))
    process = np.maximum(np.abs(x) - 3.4, np.maximum(np.abs(y - 41.0) - 14.0, across - 8.0))
    rest = np.minimum(wings, process)
    space.paint(hu, rest, 380.0)
    space.paint(hu, canal, 28.0)
    bone = np.minimum(np.minimum(column, rest), arch)
    chest.organs[(bone < 0) & (canal > 0)] = label_of("spine")


def _airways(chest: Chest) -> None:
    """Draw trachea and main bronchi with their walls."""
    for points, radii in (
        (((1.0, 12.0, 190.0), (-1.0, 14.0, 70.0), (-3.0, 14.0, 40.0)), (8.5, 8.5, 8.5)),
        (((-3.0, 14.0, 42.0), (-22.0, 16.0, 27.0), (-48.0, 22.0, 14.0)), (7.0, 6.5, 4.5)),
        (((-3.0, 14.0, 42.0), (18.0, 16.0, 24.0), (46.0, 26.0, 8.0)), (6.5, 5.5, 4.5)),
    ):
        for box, distance in chest.space.tubes(points, radii):
            chest.space.paint(chest.hu, distance - 1.6, np.maximum(chest.hu[box], 10.0), box)
            chest.organs[box][distance < 0] = label_of("trachea")
    for points, radii in (
        (((1.0, 12.0, 190.0), (-1.0, 14.0, 70.0), (-3.0, 14.0, 40.0)), (8.5, 8.5, 8.5)),
        (((-3.0, 14.0, 42.0), (-22.0, 16.0, 27.0), (-48.0, 22.0, 14.0)), (7.0, 6.5, 4.5)),
        (((-3.0, 14.0, 42.0), (18.0, 16.0, 24.0), (46.0, 26.0, 8.0)), (6.5, 5.5, 4.5)),
    ):
        for box, distance in chest.space.tubes(points, radii):
            chest.space.paint(chest.hu, distance, AIR + 10.0, box)
