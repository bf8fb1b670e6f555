"""Outlines of masks in pictures, and their colours: of Okabe and Ito (2008), told apart with any colour vision."""

from __future__ import annotations

import numpy as np
from PIL import Image

from clinic_ai.ml.segmentations import Bits

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167))


def stretched(mask: Bits, size: tuple[int, int]) -> Bits:
    """Return a mask stretched with smooth edges; whatever is there stays visible."""
    soft = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.uint8
    )
    inside: Bits = soft > 127
    return inside if inside.any() else soft > 0


def grown(mask: Bits, pixels: int) -> Bits:
    """Return a mask with so many pixels more on all sides."""
    padded = np.pad(mask, pixels)
    result = np.zeros_like(mask)
    rows, columns = mask.shape
    for down in range(2 * pixels + 1):
        reach = int((pixels**2 - (down - pixels) ** 2) ** 0.5)
        for across in range(pixels - reach, pixels + reach + 1):
            result |= padded[down : down + rows, across : across + columns]
    return result
