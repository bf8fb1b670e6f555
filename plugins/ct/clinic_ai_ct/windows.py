"""Windows on Hounsfield units, as channels for a network: 0 below, 1 above, straight between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai_ct.volume import HU, OUTSIDE_HU

Channels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """A window by its centre and width in HU. Raise ValueError unless both are finite and the width is above 0."""

    centre: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.width) and self.width > 0):
            raise ValueError("a window has a finite centre, and a width above 0")

    @property
    def low(self) -> float:
        """The HU that are shown black."""
        return self.centre - self.width / 2


LUNG = Window(-600.0, 1500.0)
SOFT_TISSUE = Window(40.0, 400.0)
BONE = Window(400.0, 1800.0)
DEFAULT = (LUNG, SOFT_TISSUE, BONE)
"""The usual three of chest CT. 40/400 is at times called a lung window; lungs are black in it."""


def windowed(hu: HU, windows: Sequence[Window] = DEFAULT) -> Channels:
    """Return HU (D, H, W) through each window, as float32 (C, D, H, W) in 0..1."""
    channels = np.empty((len(windows), *hu.shape), dtype=np.float32)
    for channel, window in zip(channels, windows, strict=True):
        np.subtract(hu, np.float32(window.low), out=channel)
        np.multiply(channel, np.float32(1.0 / window.width), out=channel)
        np.clip(channel, 0.0, 1.0, out=channel)
    return channels


def outside_in(windows: Sequence[Window]) -> tuple[float, ...]:
    """Return what lies outside a volume as each window shows it: not black where a window reaches below it."""
    return tuple(windowed(np.full((1, 1, 1), OUTSIDE_HU, dtype=np.int16), windows)[:, 0, 0, 0].tolist())


def from_grey(grey: npt.NDArray[np.uint8], window: Window = SOFT_TISSUE) -> HU:
    """Return the HU that 8-bit grey levels (0 to 255) of one window stand for; what lay beyond its ends is lost."""
    values: HU = np.rint(grey * np.float32(window.width / 255.0) + np.float32(window.low)).astype(np.int16)
    return values
