"""Where the structure of a phantom lies: drawn by chance so that every answer is equally often true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse, facts

_TRIES = 400
_TILTS = {"horizontal": (-17, 17), "vertical": (73, 107), "oblique": (33, 57)}
_PLACES = {"left": (0.08, 0.43), "right": (0.57, 0.92), "upper": (0.1, 0.43), "lower": (0.57, 0.9)}
_ANYWHERE = (0.1, 0.9)


@dataclass(frozen=True)
class Build:
    """What a kind of structure is like: range of half its long axis in pixels, of long by short axis, how it lies."""

    a: tuple[float, float]
    ratio: tuple[float, float]
    axes: tuple[str, ...] = tuple(_TILTS)


BUILDS: dict[str, Build] = {
    "fetal_head": Build((40, 175), (1.15, 1.4)),
    "abdomen": Build((40, 160), (1.02, 1.11)),
    "femur": Build((40, 120), (5.0, 8.0)),
    "thorax": Build((45, 160), (1.02, 1.11)),
    "standard_nt": Build((60, 120), (1.9, 2.3), ("horizontal",)),
    "non_standard_nt": Build((50, 110), (1.9, 2.3)),
    "trans_cerebellum": Build((60, 150), (1.15, 1.4)),
    "trans_thalamic": Build((60, 150), (1.15, 1.4)),
    "trans_ventricular": Build((60, 150), (1.15, 1.4)),
    "cervix": Build((60, 110), (2.0, 3.0)),
}
"""By key of the category."""


def plan(topics: Mapping[str, Sequence[str]], count: int, generator: np.random.Generator) -> list[dict[str, str]]:
    """Return ``count`` wishes: each choice of each topic as often as the others, in an order by chance."""
    columns = {
        topic: generator.permutation([choices[number % len(choices)] for number in range(count)])
        for topic, choices in topics.items()
    }
    return [{topic: str(column[row]) for topic, column in columns.items()} for row in range(count)]


def pose(build: Build, wish: dict[str, str], generator: np.random.Generator) -> Ellipse:
    """Return an ellipse of which ``wish`` is true.

    A structure that fills the width can hardly lie in one half and be whole: then it may lie anywhere, and is asked
    about what is clear all the same.
    """
    wanted = {topic: wish[topic] for topic in ("whole", "fills") if topic in wish}
    for attempt in range(_TRIES):
        found = _candidate(build, wish, generator, free=attempt >= _TRIES // 2)
        true = facts(found)
        if all(true.get(topic) == choice for topic, choice in wanted.items()):
            break
    return found


def _candidate(build: Build, wish: dict[str, str], generator: np.random.Generator, *, free: bool) -> Ellipse:
    side = wish.get("side") or generator.choice(("left", "right"))
    level = wish.get("level") or generator.choice(("upper", "lower"))
    axis = wish.get("axis") or generator.choice(build.axes)
    tilt = generator.uniform(*_TILTS[axis]) * (1 if axis != "oblique" else generator.choice((-1, 1)))
    a = generator.uniform(*build.a)
    return Ellipse(
        x=generator.uniform(*_ANYWHERE if free else _PLACES[side]) * WIDTH,
        y=generator.uniform(*_ANYWHERE if free else _PLACES[level]) * HEIGHT,
        a=a,
        b=a / generator.uniform(*build.ratio),
        angle=math.radians(tilt),
    )
