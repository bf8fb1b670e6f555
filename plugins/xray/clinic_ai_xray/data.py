"""From a file to the network's input: the same pixels in training and in serving."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clinic_ai.ml.greys import Float
from clinic_ai.ml.images import GreyImage, load_grey

Item = TypeVar("Item")
Result = TypeVar("Result")

PREPROCESSING_VERSION = 1
"""Raised whenever ``network_input`` would give other numbers; a model refuses to load under another version."""


def network_input(image: GreyImage) -> Float:
    """Return the pixels of ``image`` stretched between their 1st and 99th percentile, float32 (rows, columns) in 0..1.

    The stretch makes the window that a scanner happened to write matter less.
    """
    low, high = np.percentile(image.pixels, (1.0, 99.0))
    span = max(float(high - low), 1.0 / 255.0)
    stretched: Float = np.clip((image.pixels - np.float32(low)) / np.float32(span), 0.0, 1.0)
    return stretched


def read_input(path: Path | str, side: int) -> Float:
    """Return the network's input for one file, float32 (side, side). Raise InputError if it cannot be read."""
    return network_input(load_grey(path, size=(side, side)))


def stack(images: list[Float]) -> Float:
    """Return a batch, float32 (images, 1, rows, columns)."""
    batch: npt.NDArray[np.float32] = np.stack(images)[:, None]
    return batch


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return ``work`` of each item, in order; ``threads`` of them at a time, or one if memory is short.

    What ``work`` raises is raised. Reading, Pillow, zlib, numpy and ONNX Runtime let go of Python's lock, so that
    several cores are used.
    """
    if min(threads, len(items)) < 2:
        return [work(item) for item in items]
    with warnings.catch_warnings():
        # The readers silence warnings, which quote files; filters belong to the process, and threads undo each other's.
        warnings.simplefilter("ignore")
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
                return list(pool.map(work, items))
        except MemoryError:
            pass  # what does not fit beside another may fit alone
    return [work(item) for item in items]
