"""Which frames of a cine loop are asked about: sharp ones that differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clinic_ai.ml.greys import Float, resize

KEPT = 3
"""Frames of one loop that the standard questions are asked about at most."""
CANDIDATES = 32
"""Frames of one loop that are looked at at most, evenly spread: each costs reading the file again."""
SIDE = 128
"""Pixels of the longer side that sharpness is measured at: averaged to this, speckle no longer counts as sharp."""
_THUMBNAIL = (16, 16)
_SAME = 0.01
"""Root mean square of the difference of two thumbnails, in grey levels of 0..1, below which they show the same."""


def representative(read: Callable[[int], Float], frames: int, keep: int = KEPT) -> list[int]:
    """Return at most ``keep`` frames of a loop of ``frames``, counted from 0, in order of time.

    ``read`` returns the grey levels (rows, columns) of one frame; one frame is in memory at a time. The sharpest
    frame is taken first, then, among the sharper half, always the one that differs most from those taken.
    """
    if frames <= 1:
        return [0]
    candidates = np.unique(np.linspace(0, frames - 1, min(frames, CANDIDATES)).round().astype(int))
    sharp, thumbnails = np.empty(len(candidates)), np.empty((len(candidates), *_THUMBNAIL), dtype=np.float32)
    for place, frame in enumerate(candidates):
        pixels = read(int(frame))
        sharp[place] = sharpness(pixels)
        thumbnails[place] = resize(pixels, _THUMBNAIL)
    eligible = np.flatnonzero(sharp >= np.median(sharp))
    taken = [int(eligible[sharp[eligible].argmax()])]
    while len(taken) < keep:
        apart = np.sqrt(((thumbnails[eligible, None] - thumbnails[None, taken]) ** 2).mean(axis=(2, 3))).min(axis=1)
        if apart.max() < _SAME:
            break
        taken.append(int(eligible[apart.argmax()]))
    return sorted(int(candidates[place]) for place in taken)


def sharpness(pixels: Float) -> float:
    """Return the variance of the Laplacian of (rows, columns): large where edges are sharp, 0 in a uniform image."""
    if min(pixels.shape) < 3:
        return 0.0
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * pixels[1:-1, 1:-1]).var())
