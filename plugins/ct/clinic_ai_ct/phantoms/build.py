"""What differs from one phantom to the next: the build of the patient, the heart, the contrast and the scanner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinic_ai_ct.phantoms.space import Point

Contrast = Literal["none", "arterial", "venous"]

NORMAL_HEART = (0.88, 1.05)
LARGE_HEART = (1.30, 1.50)
"""Ranges of the size of the heart, 1 being usual; between them nobody would agree on what is enlarged."""


@dataclass(frozen=True)
class Enhancement:
    """Hounsfield units of what a contrast agent changes, in its phase."""

    right_heart: float
    left_heart: float
    muscle_of_heart: float
    liver: float
    spleen: float
    node: float


ENHANCEMENTS: dict[Contrast, Enhancement] = {
    "none": Enhancement(42, 42, 48, 58, 50, 38),
    "arterial": Enhancement(330, 280, 90, 75, 110, 65),
    "venous": Enhancement(150, 155, 105, 112, 120, 85),
}


@dataclass(frozen=True)
class Build:
    """Lengths in mm, angles in degrees. ``width`` and ``depth`` are half axes of the inside of the rib cage."""

    width: float
    depth: float
    fat: float
    breasts: float
    """Half their height; 0 for none."""
    heart: float
    """Size of the heart, 1 being usual."""
    aorta: float
    """Radius of the ascending aorta."""
    right_dome: float
    left_dome: float
    """How high (z) the halves of the diaphragm stand."""
    lung_hu: float
    bone_hu: float
    contrast: Contrast
    noise_hu: float
    turns: Point
    moved: Point
    table: float
    """y of the table top below the patient's middle."""


def build(generator: np.random.Generator, *, large_heart: bool, contrast: Contrast | None) -> Build:
    """Draw a patient and a scan by chance, but for the size of the heart and the contrast if it is given."""
    uniform = generator.uniform
    width, fat = uniform(116, 132), uniform(6, 20)
    dome = uniform(-80, -62)
    phase: Contrast = ("none", "arterial", "venous")[int(generator.choice(3, p=(0.4, 0.2, 0.4)))]
    return Build(
        width=width,
        depth=width * uniform(0.64, 0.72),
        fat=fat,
        breasts=float(generator.choice((0.0, uniform(14, 26)))),
        heart=uniform(*(LARGE_HEART if large_heart else NORMAL_HEART)),
        aorta=uniform(13, 17),
        right_dome=dome,
        left_dome=dome - uniform(3, 13),
        lung_hu=uniform(-885, -845),
        bone_hu=uniform(130, 230),
        contrast=contrast or phase,
        noise_hu=uniform(9, 26),
        turns=(uniform(-5, 5), uniform(-2.5, 2.5), uniform(-3, 3)),
        moved=(uniform(-7, 7), uniform(-6, 6), uniform(-6, 6)),
        table=width * 0.7 + 34 + fat,
    )
