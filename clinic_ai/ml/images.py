"""Files to grey levels: what a viewer would show, as numbers.

``load_grey`` reads DICOM, PNG and JPEG and returns grey levels for display, 0 black and 1 white, bright
where the object is dense (as in MONOCHROME2). It is the only way from a file to pixels for renderer, engines
and trainers, so a model is served with the pixels it was trained on.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from clinic_ai.errors import InputError
from clinic_ai.ml.dicom_pixels import read_levels
from clinic_ai.ml.greys import Float, average_blocks, check_frame_size, colourfulness, resize, robust_range

__all__ = ["GreyImage", "load_colours", "load_grey", "resize"]

_MAX_FILE_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class GreyImage:
    """An image as it is displayed.

    ``pixels`` is float32 (rows, columns) in 0..1. ``pixel_spacing_mm`` is (between rows, between columns) of
    ``pixels`` as returned, after any reduction; None if the file does not say. ``source_shape`` is (rows,
    columns) in the file. ``colour`` is the mean distance between the strongest and the weakest of red, green and
    blue, 0..1: 0 for a grey image. ``remarks`` are sentences on what had to be assumed.
    """

    pixels: Float
    pixel_spacing_mm: tuple[float, float] | None
    remarks: tuple[str, ...]
    source_shape: tuple[int, int]
    colour: float = 0.0


@dataclass(frozen=True)
class _Levels:
    """Grey levels of one frame before reduction to the size asked for, and what is known of them."""

    pixels: Float
    source_shape: tuple[int, int]
    spacing: tuple[float, float] | None
    remarks: tuple[str, ...]
    colour: float


def load_grey(
    path: Path | str, *, frame: int = 0, max_side: int | None = None, size: tuple[int, int] | None = None
) -> GreyImage:
    """Return the grey levels of one frame of a DICOM, PNG or JPEG file.

    ``max_side`` bounds the longer side in pixels and keeps the aspect ratio; ``size`` asks for exactly (rows,
    columns) and stretches; with neither the image keeps its size. Nothing is ever enlarged by ``max_side``.
    Raise InputError if the file holds no image, is larger than the caps or cannot be decoded.
    """
    path = Path(path)
    wanted = _Wanted(max_side, size)
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError("file_too_large", f"The file is larger than {_MAX_FILE_BYTES >> 30} GiB.")
    except OSError as error:
        raise InputError("unreadable_file", f"The file cannot be read: {error.strerror}.") from error
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        levels = _from_picture(path, wanted)
    else:
        levels = _Levels(*read_levels(path, frame, wanted.reduction))
    return _finish(levels, wanted)


def load_colours(path: Path | str, shape: tuple[int, int]) -> Float:
    """Return a PNG or JPEG upright as (rows, columns, 3) of red, green and blue in 0..255, stretched to ``shape``.

    Raise InputError if it is no such picture, is larger than the caps or cannot be decoded.
    """
    with _opened(Path(path)) as image:
        image.draft("RGB", shape[::-1])
        upright = _flatten(ImageOps.exif_transpose(image)).convert("RGB").resize(shape[::-1])
        return np.asarray(upright, dtype=np.float32)


@dataclass(frozen=True)
class _Wanted:
    max_side: int | None
    size: tuple[int, int] | None

    def shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Return (rows, columns) to deliver for a source of this shape."""
        if self.size is not None:
            return self.size
        longest = max(rows, columns)
        if self.max_side is None or longest <= self.max_side:
            return rows, columns
        scale = self.max_side / longest
        return max(1, round(rows * scale)), max(1, round(columns * scale))

    def reduction(self, rows: int, columns: int) -> int:
        """Return the whole factor by which blocks may be averaged first and still leave twice the wanted size."""
        wanted_rows, wanted_columns = self.shape(rows, columns)
        return max(1, min(rows // (2 * wanted_rows), columns // (2 * wanted_columns)))


def _finish(levels: _Levels, wanted: _Wanted) -> GreyImage:
    shape = wanted.shape(*levels.source_shape)
    spacing = levels.spacing
    if spacing is not None:
        spacing = (
            spacing[0] * levels.source_shape[0] / shape[0],
            spacing[1] * levels.source_shape[1] / shape[1],
        )
    pixels = resize(levels.pixels, shape)
    return GreyImage(pixels, spacing, levels.remarks, levels.source_shape, levels.colour)


# ---------------------------------------------------------------- PNG and JPEG


def _from_picture(path: Path, wanted: _Wanted) -> _Levels:
    with _opened(path) as image:
        return _picture_levels(image, wanted)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give a picture of sane size; what goes wrong while it is decoded is an InputError."""
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own cap follows
            columns, rows = image.size
            check_frame_size(rows, columns)
            yield image
    except Image.DecompressionBombError as error:
        raise InputError("image_too_large", "The picture is too large to be decoded safely.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(
            "cannot_decode", "The picture is damaged or cut short and cannot be decoded.", remedy="Export it again."
        ) from error


def _picture_levels(image: Image.Image, wanted: _Wanted) -> _Levels:
    columns, rows = image.size
    deep = image.mode.startswith("I")
    if image.format == "JPEG":
        factor = wanted.reduction(rows, columns)
        image.draft(image.mode, (columns // factor, rows // factor))  # decodes at 1/2, 1/4 or 1/8 for free
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    if orientation in (5, 6, 7, 8):  # a quarter turn
        rows, columns = columns, rows
    if deep:
        return _deep_levels(np.asarray(upright), (rows, columns), wanted)
    colour = 0.0
    if upright.mode not in ("1", "L"):
        rgb = _flatten(upright)
        colour = colourfulness(np.asarray(rgb.reduce(max(1, min(rgb.size) // 256))), 255.0)
        upright = rgb
    grey = upright if upright.mode == "L" else upright.convert("L")
    factor = max(1, wanted.reduction(*grey.size[::-1]))
    pixels = np.asarray(grey.reduce(factor) if factor > 1 else grey, dtype=np.float32) / np.float32(255)
    return _Levels(pixels, (rows, columns), None, (), colour)


def _flatten(image: Image.Image) -> Image.Image:
    """Return ``image`` as RGB, whatever is transparent laid over black."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    return image.convert("RGB")


def _deep_levels(values: npt.NDArray[Any], shape: tuple[int, int], wanted: _Wanted) -> _Levels:
    """Return the levels of a 16-bit picture; 12-bit data in 16-bit samples is stretched to its own range."""
    stored = average_blocks(values, wanted.reduction(*shape))
    low, high = 0.0, 65535.0
    remarks: tuple[str, ...] = ()
    darkest, brightest = robust_range(values)
    if brightest < 32768.0:
        low, high = darkest, brightest
        remarks = ("The 16-bit picture uses the lower half of its range only; its own range was taken as the window.",)
    span = max(high - low, 1.0)
    return _Levels(np.clip((stored - low) / span, 0.0, 1.0).astype(np.float32), shape, None, remarks, 0.0)
