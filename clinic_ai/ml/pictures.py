"""Pictures for people: the scan as a viewer would show it, and a heat map laid over it with its legend."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from clinic_ai.errors import InputError
from clinic_ai.ml.greys import resize
from clinic_ai.ml.images import GreyImage, load_grey
from clinic_ai.tasks import RenderImage

MAX_SIDE = 1400
"""Longer side of a picture in pixels: about 300 dpi at the size it has in the report."""
_MAX_HEATMAP_PIXELS = 16_000_000

# Anchors of matplotlib's "plasma": lightness rises evenly, so that order and value are seen with any kind of
# colour vision and in a grey print; none of its colours is a grey of the scan.
_ANCHORS = np.array(
    [(13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)],
    dtype=np.float32,
)
_STRONGEST = 0.6
"""Opacity at heat 1; the anatomy below must stay visible."""

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A picture file in the output directory; its size in pixels."""

    name: str
    width: int
    height: int


def draw_scan(grey: GreyImage, directory: Path, name: str) -> Picture:
    """Write the scan as an 8-bit grey PNG."""
    return _save(Image.fromarray(_bytes(grey.pixels)), directory, name)


def draw_overlay(grey: GreyImage, image: RenderImage, directory: Path, name: str) -> Picture:
    """Write the scan with the heat map of ``image`` over it and a legend at its right side.

    Raise InputError if the heat map cannot be used.
    """
    heat = place(load_heatmap(Path(image.heatmap_path or "")), image.extent, grey.pixels.shape)
    return _save(_with_legend(blend(grey.pixels, heat)), directory, name)


def open_scan(image: RenderImage) -> GreyImage:
    """Return the grey levels of the first frame, at most ``MAX_SIDE`` long. Raise InputError if it has none to show."""
    return load_grey(image.path, max_side=MAX_SIDE)


def load_heatmap(path: Path) -> Float:
    """Return a grey PNG as heat, (rows, columns) in 0..1. Raise InputError if it is not a picture of sane size."""
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG",)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if image.width * image.height > _MAX_HEATMAP_PIXELS:
                raise InputError("heatmap_too_large", "The heat map has too many pixels to be drawn.")
            deep = image.mode.startswith("I")
            values = np.asarray(image if deep else image.convert("L"), dtype=np.float32)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError("heatmap_unreadable", "The heat map cannot be read as a PNG picture.") from error
    heat: Float = np.clip(values / np.float32(65535 if deep else 255), 0.0, 1.0)
    return heat


def place(heat: Float, extent: tuple[float, float, float, float], shape: tuple[int, ...]) -> Float:
    """Return ``heat`` laid into an image of ``shape`` (rows, columns), 0 outside ``extent``.

    ``extent`` is (top, left, bottom, right) in 0..1 of the image. Raise InputError if it covers no pixel.
    """
    rows, columns = shape[0], shape[1]
    top, bottom = round(extent[0] * rows), round(extent[2] * rows)
    left, right = round(extent[1] * columns), round(extent[3] * columns)
    if bottom <= top or right <= left:
        raise InputError("heatmap_misplaced", "The heat map covers no part of the image.")
    canvas = np.zeros((rows, columns), dtype=np.float32)
    canvas[top:bottom, left:right] = resize(heat, (bottom - top, right - left))
    return canvas


def blend(grey: Float, heat: Float) -> npt.NDArray[np.uint8]:
    """Return uint8 (rows, columns, 3): the colour of the heat over the scan, the more opaque the hotter."""
    opacity = (_STRONGEST * heat)[..., np.newaxis]
    mixed = (1 - opacity) * grey[..., np.newaxis] * 255 + opacity * _colours(heat)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _colours(heat: Float) -> Float:
    steps = np.linspace(0.0, 1.0, len(_ANCHORS))
    channels = [np.interp(heat, steps, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _with_legend(overlay: npt.NDArray[np.uint8]) -> Image.Image:
    """Add a strip at the right: the colours as they look over mid-grey, marked 0 to 1."""
    rows, columns = overlay.shape[:2]
    size = max(10, max(rows, columns) // 38)
    font = ImageFont.load_default(size)
    strip = 4 * size
    page = Image.new("RGB", (columns + strip, rows), "white")
    page.paste(Image.fromarray(overlay), (0, 0))
    heat = np.linspace(1.0, 0.0, max(2, rows - 4 * size), dtype=np.float32)[:, np.newaxis].repeat(size, axis=1)
    bar = Image.fromarray(blend(np.full_like(heat, 0.5), heat))
    page.paste(bar, (columns + size, 2 * size))
    draw = ImageDraw.Draw(page)
    draw.rectangle((columns + size, 2 * size, columns + 2 * size - 1, 2 * size + bar.height - 1), outline="black")
    middle, bottom = 2 * size + bar.height // 2, 2 * size + bar.height
    for text, y in (("1.0", 2 * size), ("0.5", middle), ("0", bottom)):
        draw.text((columns + 2.3 * size, y), text, fill="black", font=font, anchor="lm")
    return page


def _bytes(grey: Float) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(grey, 0.0, 1.0) * 255).astype(np.uint8)


def _save(image: Image.Image, directory: Path, name: str) -> Picture:
    image.save(directory / name, format="PNG", compress_level=4)
    return Picture(name, image.width, image.height)
