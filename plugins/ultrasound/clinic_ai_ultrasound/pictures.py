"""From a file to the picture the network is shown; the one way to pixels, for serving and for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clinic_ai.ml.images import GreyImage, load_grey

MAX_SIDE = 1024
"""Pixels of the longer side at most. The networks take 224 to 384; more is only carried about."""


def read(path: Path | str, frame: int = 0) -> GreyImage:
    """Return the grey levels of one frame, counted from 0, reduced to ``MAX_SIDE``. Raise InputError as load_grey."""
    return load_grey(path, frame=frame, max_side=MAX_SIDE)


def as_picture(image: GreyImage) -> Image.Image:
    """Return grey levels as the RGB picture of 8 bits that the processor of a model takes.

    The colours of Doppler are lost: they stand for speed, and a model that was trained on grey images would take
    them for brightness.
    """
    return Image.fromarray(np.rint(image.pixels * 255).astype(np.uint8)).convert("RGB")


def picture(path: Path | str, frame: int = 0) -> Image.Image:
    """Return one frame of a DICOM, PNG or JPEG file as an RGB picture of 8 bits.

    Raise InputError if the file holds no image, has no such frame, or cannot be decoded.
    """
    return as_picture(read(path, frame))
