"""Where the edges of a picture lie in the patient, in the letters that viewers show."""

from __future__ import annotations

from clinic_ai.domain import Cosines

_AXES = (("L", "R"), ("P", "A"), ("H", "F"))
"""Letters of the directions in which x, y and z count up, and of those against them (PS3.3 C.7.6.1.1.1)."""
_OPPOSITE = str.maketrans("LRPAHF", "RLAPFH")
_LEAST = 0.2
"""A direction is named by every axis that it follows by so much, the most first: ``LP``."""


def edges_of(orientation: Cosines | None, right: str = "", bottom: str = "") -> tuple[str, str, str, str]:
    """Return the letters at the top, right, bottom and left edge; empty if neither cosines nor letters are known."""
    if orientation is not None:
        right, bottom = _letters(orientation[:3]), _letters(orientation[3:])
    return bottom.translate(_OPPOSITE), right, bottom, right.translate(_OPPOSITE)


def _letters(direction: tuple[float, ...]) -> str:
    parts = [(abs(part), pair[part < 0]) for part, pair in zip(direction, _AXES, strict=True) if abs(part) >= _LEAST]
    return "".join(letter for _, letter in sorted(parts, reverse=True))
