"""The structures of the phantoms, one function for each kind.

Each returns what is true of its details, choice by topic. Lengths along and across are in half axes of the ellipse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse

Pen = ImageDraw.ImageDraw
Details = dict[str, str]


@dataclass(frozen=True)
class Sketch:
    """What is to be drawn: an ellipse with details (choice by topic), by two pens, with chance from ``generator``.

    The first pen draws grey levels, the second where they hide the tissue behind.
    """

    ellipse: Ellipse
    details: Details
    generator: np.random.Generator
    pens: tuple[Pen, Pen]


Drawer = Callable[[Sketch], Details]

_TURN = np.linspace(0, 2 * math.pi, 72)


def _shape(ellipse: Ellipse, along: np.ndarray, across: np.ndarray) -> list[tuple[float, float]]:
    x, y = ellipse.points(along, across)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _fill(pens: tuple[Pen, Pen], points: list[tuple[float, float]], grey: float) -> None:
    pens[0].polygon(points, fill=round(grey))
    pens[1].polygon(points, fill=255)


def _line(pens: tuple[Pen, Pen], points: list[tuple[float, float]], grey: float, width: float) -> None:
    wide = max(1, round(width))
    pens[0].line(points, fill=round(grey), width=wide, joint="curve")
    pens[1].line(points, fill=255, width=wide, joint="curve")


def _oval(ellipse: Ellipse, along: float, across: float, a: float, b: float) -> list[tuple[float, float]]:
    """Return the outline of an oval within ``ellipse``, its half axes ``a`` and ``b`` in half axes of that."""
    return _shape(ellipse, along + a * np.cos(_TURN), across + b * np.sin(_TURN))


def _dot(ellipse: Ellipse, along: float, across: float, radius: float) -> list[tuple[float, float]]:
    """Return the outline of a round spot of ``radius`` pixels."""
    x, y = ellipse.points(np.array([along]), np.array([across]))
    return list(zip((x + radius * np.cos(_TURN)).tolist(), (y + radius * np.sin(_TURN)).tolist(), strict=True))


def _told(topic: str, choice: str, outline: list[tuple[float, float]]) -> Details:
    """Return the choice if what decides it lies in the image, whether it is drawn or not; else nothing."""
    seen = [0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in outline]
    return {topic: choice} if all(seen) else {}


def _ring(pens: tuple[Pen, Pen], ellipse: Ellipse, generator: np.random.Generator) -> None:
    _fill(pens, _oval(ellipse, 0, 0, 1, 1), generator.uniform(25, 60))
    _line(pens, _oval(ellipse, 0, 0, 1, 1), generator.uniform(170, 250), generator.uniform(3, 8))


def head(sketch: Sketch) -> Details:
    """Draw a bright skull with a line along its middle."""
    _ring(sketch.pens, sketch.ellipse, sketch.generator)
    ends = np.array([-sketch.generator.uniform(0.3, 0.9), sketch.generator.uniform(0.3, 0.9)])
    _line(sketch.pens, _shape(sketch.ellipse, ends, np.zeros(2)), sketch.generator.uniform(90, 180), 2)
    _fill(
        sketch.pens,
        _oval(sketch.ellipse, sketch.generator.uniform(-0.4, 0.4), 0.35, 0.2, 0.12),
        sketch.generator.uniform(80, 150),
    )
    return {}


def abdomen(sketch: Sketch) -> Details:
    """Draw a grey disc with the vein and the spine, and the stomach as a dark bubble or without it."""
    _fill(sketch.pens, _oval(sketch.ellipse, 0, 0, 1, 1), sketch.generator.uniform(85, 120))
    _line(sketch.pens, _oval(sketch.ellipse, 0, 0, 1, 1), sketch.generator.uniform(130, 170), 2)
    turned = sketch.generator.choice((-1, 1))
    _fill(sketch.pens, _dot(sketch.ellipse, 0.75 * turned, 0, 0.1 * sketch.ellipse.b), 230)
    _line(
        sketch.pens,
        _shape(sketch.ellipse, np.array([-0.9, -0.3]) * turned, np.array([0.0, 0.1])),
        50,
        0.06 * sketch.ellipse.b,
    )
    seen, size = sketch.details.get("stomach", "yes"), sketch.generator.uniform(0.24, 0.32)
    bubble = _oval(
        sketch.ellipse, sketch.generator.uniform(-0.2, 0.2), 0.45 * sketch.generator.choice((-1, 1)), size, size
    )
    if seen == "yes":
        _fill(sketch.pens, bubble, 8)
    return _told("stomach", seen, bubble)


def femur(sketch: Sketch) -> Details:
    """Draw one bright rod, thicker at its ends, or two side by side."""
    count = sketch.details.get("bones", "one")
    for place in (0.0,) if count == "one" else (-1.5, 1.5):
        along = np.linspace(-1, 1, 20)
        half = 0.55 + 0.35 * along**4
        outline = _shape(
            sketch.ellipse, np.concatenate([along, along[::-1]]), place + np.concatenate([half, -half[::-1]])
        )
        _fill(sketch.pens, outline, sketch.generator.uniform(190, 250))
    return {"bones": count}


def thorax(sketch: Sketch) -> Details:
    """Draw a ring of ribs with a heart of four chambers in its left or right part, as seen in the image."""
    _fill(sketch.pens, _oval(sketch.ellipse, 0, 0, 1, 1), sketch.generator.uniform(75, 110))
    for turn in np.arange(0, 2 * math.pi, math.pi / 7):
        _fill(sketch.pens, _dot(sketch.ellipse, math.cos(turn), math.sin(turn), 0.09 * sketch.ellipse.b), 230)
    side = sketch.details.get("heart", "left")
    upright = Ellipse(
        sketch.ellipse.x + (-0.42 if side == "left" else 0.42) * sketch.ellipse.b,
        sketch.ellipse.y,
        *(0.36 * sketch.ellipse.b,) * 2,
        0,
    )
    outline = _oval(upright, 0, 0, 1, 1)
    _fill(sketch.pens, outline, 12)
    tilted = Ellipse(upright.x, upright.y, upright.a, upright.b, sketch.generator.uniform(0.5, 1.1))
    ends, none = np.array([-0.9, 0.9]), np.zeros(2)
    for points in (_shape(tilted, ends, none), _shape(tilted, none, ends)):
        _line(sketch.pens, points, 170, 0.06 * sketch.ellipse.b)
    return _told("heart", side, outline)


def _fetus(pens: tuple[Pen, Pen], ellipse: Ellipse, up: bool, generator: np.random.Generator) -> float:
    """Draw a fetus in profile; return at which end (-1 or 1) of the long axis its head is."""
    end = float(generator.choice((-1, 1)))
    grey = generator.uniform(120, 170)
    _fill(pens, _oval(ellipse, -0.35 * end, 0, 0.65, 0.85), grey)
    _fill(pens, _oval(ellipse, 0.6 * end, 0, 0.4, 0.85), grey * 0.6)
    _line(pens, _oval(ellipse, 0.6 * end, 0, 0.4, 0.85), 230, 3)
    front = -1.0 if up else 1.0
    _fill(pens, _shape(ellipse, np.array([0.5, 0.68, 0.86]) * end, np.array([0.75, 1.3, 0.6]) * front), 235)
    return end


def standard_nt(sketch: Sketch) -> Details:
    """Draw a fetus that lies along the rows, its face up or down, with a dark band behind its neck."""
    face = sketch.details.get("face", "up")
    flat = _lying(sketch.ellipse)
    end = _fetus(sketch.pens, flat, face == "up", sketch.generator)
    back = 1.0 if face == "up" else -1.0
    along = np.array([-0.25, 0.05, 0.35]) * end
    _line(sketch.pens, _shape(flat, along, np.array([0.7, 0.62, 0.7]) * back), 5, 0.22 * flat.b)
    _line(sketch.pens, _shape(flat, along, np.array([0.92, 0.86, 0.92]) * back), 240, 2)
    return _told("face", face, _oval(flat, 0.6 * end, 0, 0.4, 1.1))


def _lying(ellipse: Ellipse) -> Ellipse:
    """Return the same ellipse with its angle within a quarter turn, so that across points down."""
    return Ellipse(ellipse.x, ellipse.y, ellipse.a, ellipse.b, math.remainder(ellipse.angle, math.pi))


def non_standard_nt(sketch: Sketch) -> Details:
    """Draw a fetus at any slant whose neck is seen, or lies in a shadow."""
    end = _fetus(sketch.pens, sketch.ellipse, bool(sketch.generator.random() < 0.5), sketch.generator)
    seen = sketch.details.get("neck", "yes")
    neck = _shape(sketch.ellipse, np.array([0.0, 0.42, 0.42, 0.0]) * end, np.array([-1.1, -1.1, 1.1, 1.1]))
    if seen == "no":
        _fill(sketch.pens, neck, 6)
    return _told("neck", seen, neck)


def cerebellum(sketch: Sketch) -> Details:
    """Draw a skull with the two round lobes of the cerebellum."""
    _ring(sketch.pens, sketch.ellipse, sketch.generator)
    for across in (-0.22, 0.22):
        _fill(sketch.pens, _oval(sketch.ellipse, 0.5, across, 0.14, 0.2), 150)
    return {}


def thalami(sketch: Sketch) -> Details:
    """Draw a skull with the two thalami as dark ovals beside the middle."""
    _ring(sketch.pens, sketch.ellipse, sketch.generator)
    for across in (-0.2, 0.2):
        _fill(sketch.pens, _oval(sketch.ellipse, 0, across, 0.3, 0.15), 105)
    return {}


def ventricles(sketch: Sketch) -> Details:
    """Draw a skull with the two ventricles as lines."""
    _ring(sketch.pens, sketch.ellipse, sketch.generator)
    for across in (-0.35, 0.35):
        _line(sketch.pens, _shape(sketch.ellipse, np.array([-0.6, 0.6]), np.full(2, across)), 190, 2)
    return {}


def cervix(sketch: Sketch) -> Details:
    """Draw two lips with a dark canal between them."""
    _fill(sketch.pens, _oval(sketch.ellipse, 0, 0, 1, 1), 140)
    _line(sketch.pens, _shape(sketch.ellipse, np.array([-1.0, 1.0]), np.zeros(2)), 10, 0.15 * sketch.ellipse.b)
    return {}


DRAWERS: dict[str, Drawer] = {
    "fetal_head": head,
    "abdomen": abdomen,
    "femur": femur,
    "thorax": thorax,
    "standard_nt": standard_nt,
    "non_standard_nt": non_standard_nt,
    "trans_cerebellum": cerebellum,
    "trans_thalamic": thalami,
    "trans_ventricular": ventricles,
    "cervix": cervix,
}
"""By key of the category."""
