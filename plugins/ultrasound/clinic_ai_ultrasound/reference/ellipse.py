"""Where a structure lies in an image, as an ellipse, and what can be said of that without doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 400, 270
"""Columns and rows of every image the reference models are made of."""

_MIDDLE = (0.44, 0.56)
"""Between these fractions of width or height it is anybody's guess in which half a centre lies."""
_HALF = (0.45, 0.55)
_CUT = 0.85
_MARGIN = 0.01
_ROUND = 1.12
"""From this ratio of its axes on an ellipse has a long one."""
_RINGS, _SPOKES = 6, 24


def _disc() -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of points that each stand for the same area of the unit disc."""
    radius = np.sqrt((np.arange(_RINGS) + 0.5) / _RINGS)
    turn = np.arange(_SPOKES) * (2 * math.pi / _SPOKES)
    return (radius[:, None] * np.cos(turn)).ravel(), (radius[:, None] * np.sin(turn)).ravel()


_DISC = _disc()


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in an image of ``WIDTH`` x ``HEIGHT`` pixels.

    ``x`` and ``y`` are the column and row of its centre, ``a`` and ``b`` half its long and short axis, all in
    pixels; ``angle`` is that of the long axis to the rows in radians, positive towards the bottom.
    """

    x: float
    y: float
    a: float
    b: float
    angle: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far it reaches from its centre along columns and rows, in pixels."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return math.hypot(self.a * cos, self.b * sin), math.hypot(self.a * sin, self.b * cos)

    def points(self, along: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of points given in half axes: (1, 0) is an end of the long axis."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = along * self.a, across * self.b
        return self.x + u * cos - v * sin, self.y + u * sin + v * cos

    def inside(self) -> float:
        """Return which fraction of its area lies in the image, to about a hundredth."""
        x, y = self.points(*_DISC)
        return float(np.mean((x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= HEIGHT)))

    def mirrored(self) -> Ellipse:
        """Return it as it lies when left and right of the image are exchanged."""
        return Ellipse(WIDTH - self.x, self.y, self.a, self.b, -self.angle)


def facts(ellipse: Ellipse) -> dict[str, str]:
    """Return by topic what is true of ``ellipse``; a topic is left out where two people might not agree.

    ``side`` is left or right, ``level`` upper or lower, ``fills`` (half the width) and ``whole`` (in view) are yes
    or no, ``axis`` is horizontal, vertical or oblique.
    """
    found = {
        "side": _half(ellipse.x / WIDTH, "left", "right"),
        "level": _half(ellipse.y / HEIGHT, "upper", "lower"),
        "fills": _fills(ellipse),
        "whole": _whole(ellipse),
        "axis": _axis(ellipse),
    }
    return {topic: choice for topic, choice in found.items() if choice}


def _half(place: float, low: str, high: str) -> str:
    if place <= _MIDDLE[0]:
        return low
    return high if place >= _MIDDLE[1] else ""


def _fills(ellipse: Ellipse) -> str:
    reach, _ = ellipse.reach
    seen = (min(ellipse.x + reach, WIDTH) - max(ellipse.x - reach, 0.0)) / WIDTH
    if seen <= _HALF[0]:
        return "no"
    return "yes" if seen >= _HALF[1] else ""


def _whole(ellipse: Ellipse) -> str:
    across, down = ellipse.reach
    edge = _MARGIN * WIDTH
    if min(ellipse.x - across, WIDTH - ellipse.x - across, ellipse.y - down, HEIGHT - ellipse.y - down) >= edge:
        return "yes"
    return "no" if ellipse.inside() <= _CUT else ""


def _axis(ellipse: Ellipse) -> str:
    if ellipse.a < _ROUND * ellipse.b:
        return ""
    degrees = abs(math.degrees(math.atan2(math.sin(ellipse.angle), math.cos(ellipse.angle))))
    tilt = min(degrees, 180 - degrees)
    if tilt <= 20:
        return "horizontal"
    if tilt >= 70:
        return "vertical"
    return "oblique" if 30 <= tilt <= 60 else ""
