"""Ultrasound phantoms: drawings that behave like the views of each category, for tests, demonstrations and training.

They show nobody and say PHANTOM. ``python -m clinic_ai_ultrasound.reference.phantoms femur OUTDIR --count N`` writes
N of them with a sheet of questions and answers, as a person would hand them in for training.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from openpyxl import Workbook
from PIL import Image, ImageDraw, ImageFilter

from clinic_ai_ultrasound.reference.drawing import DRAWERS, Details, Sketch
from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse, facts
from clinic_ai_ultrasound.reference.poses import BUILDS, plan, pose
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS, Asked, ask

_GRAIN = 2
_CLOUD = 27

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Phantom:
    """A drawing, where its structure lies, and what is true of it by topic."""

    category: str
    pixels: Grey
    ellipse: Ellipse
    truths: dict[str, str] = field(default_factory=dict)


def draw_phantoms(category: str, count: int, seed: int) -> list[Phantom]:
    """Return ``count`` phantoms, uint8 (rows, columns) each; every answer to a question is true equally often.

    The same seed gives the same phantoms. Raise KeyError if there is no drawing for ``category``.
    """
    generator = np.random.default_rng([seed, sorted(SUBJECTS).index(category)])
    # The trimester of a drawing is nobody's.
    topics = {topic: tuple(TOPICS[topic].answers) for topic in SUBJECTS[category].topics if topic != "trimester"}
    return [draw(category, wish, generator) for wish in plan(topics, count, generator)]


def draw(category: str, wish: dict[str, str], generator: np.random.Generator) -> Phantom:
    """Return one phantom of which ``wish`` (choice by topic) is true as far as that can be."""
    ellipse = pose(BUILDS[category], wish, generator)
    details: Details = {topic: choice for topic, choice in wish.items() if topic not in facts(ellipse)}
    layer = Image.new("L", (WIDTH, HEIGHT), 0)
    # What is transparent to the background: 255 hides it.
    cover = Image.new("L", (WIDTH, HEIGHT), 0)
    told = DRAWERS[category](Sketch(ellipse, details, generator, (ImageDraw.Draw(layer), ImageDraw.Draw(cover))))
    pixels = _finish(layer, cover, generator)
    own = {topic: choice for topic, choice in facts(ellipse).items() if topic in SUBJECTS[category].topics}
    return Phantom(category, pixels, ellipse, own | told)


def _finish(layer: Image.Image, cover: Image.Image, generator: np.random.Generator) -> Grey:
    """Return the drawing over tissue, within a sector, with speckle and the mark."""
    blur = ImageFilter.GaussianBlur(generator.uniform(0.8, 2.0))
    drawn, hidden = (np.asarray(one.filter(blur), dtype=np.float32) for one in (layer, cover))
    share = hidden / np.float32(255)
    tissue = _tissue(generator) * _sector(generator)
    image = (tissue * (1 - share) + drawn * share) * _texture(generator, _GRAIN, "rayleigh")
    made = Image.fromarray(np.clip(image * generator.uniform(0.8, 1.2), 0, 255).astype(np.uint8))
    _mark(made, generator)
    return np.asarray(made)


def background(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return grey levels (rows, columns) of tissue in which nothing lies."""
    return _tissue(generator) * _texture(generator, _GRAIN, "rayleigh")


def _tissue(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    fall = np.linspace(1.0, generator.uniform(0.5, 1.0), HEIGHT, dtype=np.float32)[:, None]
    level = np.float32(generator.uniform(25, 95))
    tissue: npt.NDArray[np.float32] = level * _texture(generator, _CLOUD, "normal") * fall
    return tissue


def _texture(generator: np.random.Generator, grain: int, kind: str) -> npt.NDArray[np.float32]:
    """Return factors around 1 (rows, columns) that vary over about ``grain`` pixels: clouds, or speckle."""
    shape = (HEIGHT // grain + 1, WIDTH // grain + 1)
    if kind == "rayleigh":
        values = generator.rayleigh(0.8, shape).astype(np.float32) * 0.6 + 0.4
    else:
        values = 1 + 0.35 * generator.standard_normal(shape, dtype=np.float32)
    grown = Image.fromarray(values).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    factors: npt.NDArray[np.float32] = np.clip(np.asarray(grown), 0.05, 3.0)
    return factors


def _sector(generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return 1 within the field of the probe and 0 outside: a fan, or the whole image."""
    if generator.random() < 0.4:
        return np.ones((HEIGHT, WIDTH), dtype=np.float32)
    field_of_view = Image.new("L", (WIDTH, HEIGHT), 0)
    apex = (WIDTH / 2 + generator.uniform(-20, 20), generator.uniform(-160, -40))
    radius, spread = HEIGHT - apex[1] + generator.uniform(-8, 25), generator.uniform(32, 50)
    box = (apex[0] - radius, apex[1] - radius, apex[0] + radius, apex[1] + radius)
    ImageDraw.Draw(field_of_view).pieslice(box, 90 - spread, 90 + spread, fill=1)
    return np.asarray(field_of_view, dtype=np.float32)


def _mark(image: Image.Image, generator: np.random.Generator) -> None:
    """Write PHANTOM into a corner, and sometimes a grey wedge at the left edge as machines do."""
    pen = ImageDraw.Draw(image)
    place = (int(generator.choice((14, WIDTH - 62))), int(generator.choice((3, HEIGHT - 14))))
    pen.text(place, "PHANTOM", fill=170)
    if generator.random() < 0.5:
        for row in range(12, 90):
            pen.line((1, row, 3, row), fill=255 - 3 * (row - 12))


def write_phantoms(directory: Path, category: str, count: int, seed: int) -> list[Asked]:
    """Write ``count`` phantoms as PNG and ``answers.xlsx`` beside them, one row for each pair; return the pairs.

    The sheet has the columns Image, Question and Answer. Raise KeyError if there is no drawing for ``category``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    sheet = book.active
    sheet.title = "Answers"
    sheet.append(["Image", "Question", "Answer"])
    asked: list[Asked] = []
    for number, phantom in enumerate(draw_phantoms(category, count, seed)):
        name = f"{category}-{number:03d}.png"
        Image.fromarray(phantom.pixels).save(directory / name)
        for one in ask(category, number, phantom.truths):
            sheet.append([name, one.pair.question, one.pair.answer])
            asked.append(one)
    book.save(directory / "answers.xlsx")
    return asked


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write ultrasound phantoms and a sheet of questions and answers.")
    parser.add_argument("category", choices=sorted(SUBJECTS))
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    asked = write_phantoms(chosen.outdir, chosen.category, chosen.count, chosen.seed)
    sys.stdout.write(f"{chosen.count} images and {len(asked)} pairs in {chosen.outdir}\n")


if __name__ == "__main__":
    main()
