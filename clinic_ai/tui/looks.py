"""How the screens look: four themes, and none of any colour where ``NO_COLOR`` is set.

Views name colours as ANSI does (``red``) or as Textual does (``$error``); what these look like is said here alone.
The first pair keeps good and bad apart for people who do not tell red from green: blue against orange, after the
palette of Okabe and Ito.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

Rgb = tuple[int, int, int]
_ORDER = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


@dataclass(frozen=True)
class Look:
    """A theme, what the ANSI names look like in it, and what it is for."""

    theme: Theme
    names: TerminalTheme
    purpose: str


def _names(background: Rgb, foreground: Rgb, grey: Rgb, colours: Mapping[str, Rgb]) -> TerminalTheme:
    normal = [colours.get(name, foreground if name == "white" else background) for name in _ORDER]
    return TerminalTheme(background, foreground, normal, [grey, *normal[1:]])


_SAFE_DARK = Look(
    Theme(
        name="safe-dark",
        primary="#3d8fc9",
        secondary="#6fa8d6",
        accent="#f0a832",
        warning="#f0e442",
        error="#e8743b",
        success="#56b4e9",
        foreground="#e4e4e4",
        background="#121416",
        surface="#1b1e22",
        panel="#24282d",
    ),
    _names(
        (18, 20, 22),
        (228, 228, 228),
        (158, 163, 170),
        {
            "red": (240, 125, 70),
            "green": (86, 180, 233),
            "yellow": (240, 228, 66),
            "blue": (150, 160, 255),
            "magenta": (224, 160, 200),
            "cyan": (170, 226, 236),
        },
    ),
    "dark; blue and orange, for every eye",
)
_SAFE_LIGHT = Look(
    Theme(
        name="safe-light",
        primary="#0068a6",
        secondary="#35618a",
        accent="#b35c00",
        warning="#8a6600",
        error="#b04a00",
        success="#005c9e",
        foreground="#1c1c1c",
        background="#fafaf7",
        surface="#f0f0ec",
        panel="#e0e2e4",
        dark=False,
    ),
    _names(
        (250, 250, 247),
        (28, 28, 28),
        (92, 92, 92),
        {
            "red": (168, 66, 0),
            "green": (0, 92, 158),
            "yellow": (122, 90, 0),
            "blue": (66, 60, 170),
            "magenta": (140, 60, 110),
            "cyan": (0, 104, 122),
        },
    ),
    "light; blue and orange, for every eye",
)
_DARK = Look(
    Theme(
        name="dark",
        primary="#3d8fc9",
        secondary="#6fa8d6",
        accent="#f0a832",
        warning="#f2c744",
        error="#e5534b",
        success="#57ab5a",
        foreground="#e4e4e4",
        background="#121416",
        surface="#1b1e22",
        panel="#24282d",
    ),
    _names(
        (18, 20, 22),
        (228, 228, 228),
        (158, 163, 170),
        {
            "red": (244, 112, 103),
            "green": (107, 196, 110),
            "yellow": (242, 199, 68),
            "blue": (108, 182, 255),
            "magenta": (220, 150, 230),
            "cyan": (120, 214, 220),
        },
    ),
    "dark; red and green",
)
_LIGHT = Look(
    Theme(
        name="light",
        primary="#0068a6",
        secondary="#35618a",
        accent="#b35c00",
        warning="#8a6600",
        error="#b3261e",
        success="#1a7f37",
        foreground="#1c1c1c",
        background="#fafaf7",
        surface="#f0f0ec",
        panel="#e0e2e4",
        dark=False,
    ),
    _names(
        (250, 250, 247),
        (28, 28, 28),
        (92, 92, 92),
        {
            "red": (170, 30, 24),
            "green": (20, 110, 44),
            "yellow": (122, 90, 0),
            "blue": (20, 80, 180),
            "magenta": (130, 60, 150),
            "cyan": (0, 104, 122),
        },
    ),
    "light; red and green",
)
LOOKS: Mapping[str, Look] = {look.theme.name: look for look in (_SAFE_DARK, _SAFE_LIGHT, _DARK, _LIGHT)}
"""By the name that a person writes into ``terminal.toml``."""
DEFAULT = "safe-dark"

_STANDS_OUT = 1.8
"""Contrast from which a background says something, as that of the row under the cursor does."""


class NoColour(LineFilter):
    """Takes every colour away; what stood on a background that stands out is shown in reverse."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments without colour."""
        return [
            Segment(text, None if style is None else _plain(style, background), control)
            for text, style, control in segments
        ]


@lru_cache(1024)
def _plain(style: Style, background: Color) -> Style:
    behind = style.bgcolor
    marked = (
        behind is not None and behind.triplet is not None and contrast(behind.triplet, background.rgb) >= _STANDS_OUT
    )
    return Style(
        bold=style.bold,
        dim=style.dim,
        italic=style.italic,
        underline=style.underline,
        strike=style.strike,
        reverse=marked != bool(style.reverse),
        meta=style.meta or None,
    )


def contrast(one: Rgb, other: Rgb) -> float:
    """Return the contrast of two colours as WCAG 2 counts it, 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Rgb) -> float:
    red, green, blue = (
        part / 255 / 12.92 if part / 255 <= 0.03928 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
