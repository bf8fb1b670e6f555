"""The images each step of the build learns from or is measured on; which they are follows from seeds alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clinic_ai_ultrasound.reference.heads import Head, View, part_of, views
from clinic_ai_ultrasound.reference.phantoms import Grey, Phantom, draw_phantoms
from clinic_ai_ultrasound.reference.pretraining import Sample, shrink

HEAD = "fetal_head"
DRAWN = ("abdomen", "femur", "thorax", "standard_nt", "non_standard_nt")
"""Categories that have an adapter and no real images."""
SEEDS = {"sight": 100, "language": 200, "train": 300, "validation": 400, "test": 500}
"""Phantoms and views of different steps are different ones."""


@dataclass(frozen=True)
class Shown:
    """An image that questions are asked about, uint8 (rows, columns), whose it is, and what is true of it by topic."""

    subject: str
    pixels: Grey
    truths: dict[str, str]


def of_part(heads: Iterable[Head], part: str) -> list[Head]:
    """Return the images of the subjects of one part."""
    return [head for head in heads if part_of(head.subject) == part]


def from_views(made: Iterable[View]) -> list[Sample]:
    """Return views of heads in the size of the network."""
    return [Sample(shrink(one.pixels), HEAD, one.ellipse, one.truths) for one in made]


def from_phantoms(drawn: Iterable[Phantom]) -> list[Sample]:
    """Return phantoms in the size of the network."""
    return [Sample(shrink(one.pixels), one.category, one.ellipse, one.truths) for one in drawn]


def for_sight(heads: list[Head], each: int, drawings: int) -> list[Sample]:
    """Return what seeing is learned from: views of the heads of training, and as many phantoms of every category."""
    found = from_views(views(of_part(heads, "train"), each, SEEDS["sight"]))
    for category in (HEAD, *DRAWN):
        found += from_phantoms(draw_phantoms(category, drawings, SEEDS["sight"]))
    return found


def to_watch(heads: list[Head]) -> list[Sample]:
    """Return what is looked at while seeing is learned: heads of validation and other phantoms."""
    found = from_views(views(of_part(heads, "validation"), 2, SEEDS["validation"]))
    for category in DRAWN:
        found += from_phantoms(draw_phantoms(category, 60, SEEDS["validation"]))
    return found


def for_language(drawings: int) -> list[Sample]:
    """Return what speaking is learned from: phantoms of every category, others than seeing was learned from."""
    found: list[Sample] = []
    for category in (HEAD, *DRAWN):
        found += from_phantoms(draw_phantoms(category, drawings, SEEDS["language"]))
    return found


def of_category(category: str, heads: list[Head], part: str, count: int) -> list[Shown]:
    """Return the images of one part for a category: ``count`` views of every head, or ``count`` phantoms."""
    if category == HEAD:
        return [Shown(v.head.subject, v.pixels, v.truths) for v in views(of_part(heads, part), count, SEEDS[part])]
    drawn = draw_phantoms(category, count, SEEDS[part])
    return [Shown(f"phantom {number}", one.pixels, one.truths) for number, one in enumerate(drawn)]


def unaltered(heads: list[Head], part: str) -> list[Shown]:
    """Return the images of one part as they are."""
    return [Shown(head.subject, head.pixels, head.truths) for head in of_part(heads, part)]
