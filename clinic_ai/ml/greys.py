"""Arithmetic on images as arrays: averaging, resampling, ranges, luminance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinic_ai.errors import InputError

Float = npt.NDArray[np.float32]

MAX_FRAME_PIXELS = 120_000_000
"""Largest Rows × Columns of one frame that is decoded; a mammogram has about 27 million."""


def resize(pixels: Float, shape: tuple[int, int]) -> Float:
    """Return ``pixels`` (rows, columns) resampled to ``shape``, averaging over area where it shrinks."""
    if pixels.shape == shape:
        return pixels
    # Pillow's bilinear filter widens with the reduction, so that every source pixel counts.
    image = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def average_blocks(values: npt.NDArray[Any], factor: int) -> Float:
    """Return float32 means over ``factor`` × ``factor`` blocks of (rows, columns); what is left over is dropped."""
    if factor == 1:
        return values.astype(np.float32)
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    blocks = values[: rows * factor, : columns * factor].reshape(rows, factor, columns * factor)
    total = blocks[:, 0].astype(np.float32)
    for row in range(1, factor):  # whole rows at a time: several times faster than a reduction over two axes
        total += blocks[:, row]
    cells = total.reshape(rows, columns, factor)
    means = cells[:, :, 0].copy()
    for column in range(1, factor):
        means += cells[:, :, column]
    means /= factor * factor
    return means


def robust_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of ``values``, from at most about 100,000 of them."""
    flat = values.reshape(-1)
    low, high = np.percentile(flat[:: max(1, flat.size // 100_000)], (0.5, 99.5))
    return float(low), float(high)


def colourfulness(rgb: npt.NDArray[Any], white: float) -> float:
    """Return the mean distance between the largest and smallest channel of (rows, columns, 3), in 0..1."""
    sample = rgb[:: max(1, rgb.shape[0] // 256), :: max(1, rgb.shape[1] // 256)].astype(np.float32)
    return float((sample.max(axis=2) - sample.min(axis=2)).mean() / white)


def luminance(rgb: npt.NDArray[Any]) -> Float:
    """Return the grey of (rows, columns, 3) by the weights of ITU-R BT.601, in the same unit."""
    return rgb[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def check_frame_size(rows: int, columns: int) -> None:
    """Raise InputError if a frame of this size is empty or will not be decoded."""
    if rows < 1 or columns < 1:
        raise InputError("no_pixels", "The file holds no image.", remedy="Nothing is needed; it is kept as it is.")
    if rows * columns > MAX_FRAME_PIXELS:
        raise InputError(
            "image_too_large",
            f"The image has {rows} x {columns} pixels; at most {MAX_FRAME_PIXELS} in one frame are decoded.",
            remedy="Export it at a smaller size.",
        )
