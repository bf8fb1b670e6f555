"""The HC18 images that the reference models are made of: where each head lies, whose it is, and views made of it.

HC18: van den Heuvel TLA, de Bruijn D, de Korte CL, van Ginneken B. Automated measurement of fetal head circumference
using 2D ultrasound images. PLoS ONE 13(8), 2018; https://doi.org/10.5281/zenodo.1327317, CC BY 4.0.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse, facts
from clinic_ai_ultrasound.reference.phantoms import Grey, background
from clinic_ai_ultrasound.reference.poses import Build, plan, pose
from clinic_ai_ultrasound.reference.questions import TOPICS

PARTS = ("train", "validation", "test")
_SHARES = (0.70, 0.85)
_SIZES = (38.0, 175.0)
"""Half the long axis of a head in a view, in pixels."""
_MADE = ("side", "level", "fills", "axis", "whole")


@dataclass(frozen=True)
class Head:
    """One image, uint8 (rows, columns), with the outline of the head, whose it is, and its measures in mm."""

    name: str
    subject: str
    pixels: Grey
    ellipse: Ellipse
    circumference_mm: float
    pixel_mm: float

    @property
    def trimester(self) -> str:
        """The trimester that the circumference tells."""
        return trimester(self.circumference_mm)

    @property
    def truths(self) -> dict[str, str]:
        """What is true of the image as it is, choice by topic."""
        return facts(self.ellipse) | {"trimester": self.trimester}


@dataclass(frozen=True)
class View:
    """A head shifted, turned, scaled or mirrored: uint8 (rows, columns), where it lies then, and what is true of it."""

    head: Head
    pixels: Grey
    ellipse: Ellipse
    truths: dict[str, str]


def trimester(circumference_mm: float) -> str:
    """Return first, second (from 14 weeks) or third (from 28 weeks) by Hadlock's formula of 1984."""
    cm = circumference_mm / 10
    weeks = 8.96 + 0.540 * cm + 0.0003 * cm**3
    return "first" if weeks < 14 else "second" if weeks < 28 else "third"


def read_heads(data: Path) -> list[Head]:
    """Read ``labels.csv`` and what it names; images of another size than ``WIDTH`` x ``HEIGHT`` are fitted to it.

    Columns: file, annotation, patient_id, pixel_size_mm_half, hc_mm. An image is half the size of its annotation.
    """
    with (data / "labels.csv").open(newline="") as table:
        return [_read(data, row) for row in csv.DictReader(table)]


def _read(data: Path, row: dict[str, str]) -> Head:
    with Image.open(data / row["file"]) as image, Image.open(data / row["annotation"]) as outline:
        rows, columns = np.nonzero(np.asarray(outline.convert("L")) > 127)
        scale = image.width / outline.width
        ellipse = fit_ellipse((columns + 0.5) * scale, (rows + 0.5) * scale)
        # A few images are some pixels smaller or larger: cut or filled at their right and lower edge.
        pixels = image.convert("L").crop((0, 0, WIDTH, HEIGHT))
        return Head(
            row["file"],
            row["patient_id"],
            np.asarray(pixels),
            ellipse,
            float(row["hc_mm"]),
            float(row["pixel_size_mm_half"]),
        )


def fit_ellipse(x: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]]) -> Ellipse:
    """Return the ellipse through the points of an outline, by least squares on its conic.

    Raise ValueError if no ellipse goes through them.
    """
    middle, spread = (x.mean(), y.mean()), max(x.std(), y.std())
    u, v = (x - middle[0]) / spread, (y - middle[1]) / spread
    (p, q, r, s, t), *_ = np.linalg.lstsq(np.stack([u * u, u * v, v * v, u, v], axis=1), np.ones_like(u), rcond=None)
    conic = np.array([[p, q / 2], [q / 2, r]])
    centre = np.linalg.solve(-2 * conic, [s, t])
    level = 1 + centre @ conic @ centre
    values, vectors = np.linalg.eigh(conic / level)
    if values[0] <= 0:
        raise ValueError("The outline is not that of an ellipse.")
    long, short = spread / np.sqrt(values)
    angle = math.atan2(vectors[1, 0], vectors[0, 0])
    return Ellipse(
        float(middle[0] + spread * centre[0]), float(middle[1] + spread * centre[1]), float(long), float(short), angle
    )


def part_of(subject: str) -> str:
    """Return train, validation or test; it follows from the identifier alone, so all images of a subject are in one."""
    share = int.from_bytes(hashlib.sha256(f"HC18 {subject}".encode()).digest()[:4]) / 2**32
    return PARTS[sum(share >= bound for bound in _SHARES)]


def views(heads: list[Head], each: int, seed: int) -> list[View]:
    """Return ``each`` views of every head; every answer to a question of place or size is true about equally often."""
    generator = np.random.default_rng(seed)
    wishes = plan({topic: tuple(TOPICS[topic].answers) for topic in _MADE}, each * len(heads), generator)
    return [
        view(head, wish, generator) for head, wish in zip([h for h in heads for _ in range(each)], wishes, strict=True)
    ]


def view(head: Head, wish: dict[str, str], generator: np.random.Generator) -> View:
    """Return one view of which ``wish`` (choice by topic) is true as far as that can be."""
    known = head.ellipse
    ratio = known.a / known.b
    wanted = pose(Build(_SIZES, (ratio, ratio)), wish, generator)
    mirror = bool(generator.random() < 0.5)
    source = known.mirrored() if mirror else known
    pixels = head.pixels[:, ::-1] if mirror else head.pixels
    back = _back(source, wanted)
    made = Image.fromarray(pixels).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    grey = np.asarray(made, dtype=np.float32) * generator.uniform(0.7, 1.3)
    if generator.random() < 0.5:
        # Where the image ends would tell where the head is.
        there = Image.new("L", (WIDTH, HEIGHT), 1).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, back)
        grey = np.where(np.asarray(there) > 0, grey, background(generator))
    return View(head, np.clip(grey, 0, 255).astype(np.uint8), wanted, facts(wanted) | {"trimester": head.trimester})


def as_they_are(heads: list[Head]) -> list[View]:
    """Return the images themselves."""
    return [View(head, head.pixels, head.ellipse, head.truths) for head in heads]


def _back(source: Ellipse, wanted: Ellipse) -> tuple[float, ...]:
    """Return the affine map from where a pixel is wanted to where it is, as Pillow takes it."""
    scale = source.a / wanted.a
    turn = source.angle - wanted.angle
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    return (
        cos,
        -sin,
        source.x - cos * wanted.x + sin * wanted.y,
        sin,
        cos,
        source.y - sin * wanted.x - cos * wanted.y,
    )
