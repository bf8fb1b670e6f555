"""Small pictures for the terminal: one frame through a window, in just as many pixels as the terminal has room for."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from clinic_ai.errors import InputError
from clinic_ai.ml import dicom_pixels as dicom
from clinic_ai.ml.contours import COLOURS, grown, stretched
from clinic_ai.ml.greys import Float, average_blocks, check_frame_size, colourfulness, luminance, resize
from clinic_ai.ml.images import load_colours, load_grey
from clinic_ai.ml.pictures import blend, load_heatmap, place
from clinic_ai.ml.segmentations import Packed, read_masks, unpacked
from clinic_ai.previewing import MAX_COLUMNS, MAX_LEVEL, PreviewOutline, PreviewResult, PreviewTask, Window

COLOURFUL = 0.004
"""Mean distance between the colours, 0..1, from which a picture is shown in colour: a Doppler's bar is enough."""
_EDGE = re.compile(r"[LRAPHF]{1,3}")

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Frame:
    """A decoded frame, reduced to not much more than a picture needs.

    ``values`` and ``pipeline`` are there for a grey DICOM image, ``levels`` (0..1) for another grey picture, ``rgb``
    (0..255) for one in colour. ``aspect`` is the height of a pixel of the file over its width.
    """

    shape: tuple[int, int]
    aspect: float
    values: dicom.Values | None = None
    pipeline: dicom.Pipeline | None = None
    levels: Float | None = None
    rgb: Float | None = None
    right: str = ""
    bottom: str = ""
    remarks: tuple[str, ...] = ()


class Previewer:
    """Makes pictures, and keeps the last file and the last frame, for the next window or slice is of the same."""

    def __init__(self) -> None:
        self._file: tuple[str, Dataset] | None = None
        self._frame: tuple[tuple[str, int, int, int], _Frame] | None = None
        self._masks: tuple[tuple[str, tuple[int, ...]], dict[int, Packed]] | None = None

    def make(self, task: PreviewTask) -> PreviewResult:
        """Return the picture. Raise InputError if the file holds no image, or none that can be decoded."""
        frame = self._open(task)
        size = fitting(frame.shape, frame.aspect, (task.rows, task.columns))
        window: Window | None = None
        remarks = list(frame.remarks)
        if frame.rgb is not None:
            shown = np.stack([resize(frame.rgb[..., channel], size) for channel in range(3)], axis=-1)
            grey = luminance(shown) / np.float32(255)
        else:
            grey, window = _grey(frame, task, remarks)
            grey = np.clip(resize(grey, size), 0.0, 1.0)
            shown = np.repeat(grey[..., np.newaxis] * 255, 3, axis=-1)
        overlaid = False
        if task.heatmap_path is not None:
            try:
                shown = blend(grey, place(load_heatmap(Path(task.heatmap_path)), task.extent, size)).astype(np.float32)
                overlaid = True
            except InputError as error:
                remarks.append(f"The heat map is not shown: {error.message}")
        for outline in task.outlines:
            try:
                overlaid |= self._draw(shown, outline)
            except InputError as error:
                remarks.append(f"The outlines are not shown: {error.message}")
        page = _on_black(np.rint(np.clip(shown, 0, 255)).astype(np.uint8), (task.rows, task.columns))
        return PreviewResult(
            pixels=base64.b64encode(page.tobytes()).decode(),
            window=window,
            colour=frame.rgb is not None,
            right=frame.right,
            bottom=frame.bottom,
            overlaid=overlaid,
            remarks=tuple(dict.fromkeys(remarks))[:8],
        )

    def _draw(self, shown: Float, outline: PreviewOutline) -> bool:
        """Draw outlines into a picture, (rows, columns, 3) in 0..255; return whether there is any. Raise InputError."""
        key = (outline.path, outline.numbers)
        if self._masks is None or self._masks[0] != key:
            self._masks = None
            self._masks = (key, read_masks(Path(outline.path), outline.segmentation, outline.numbers))
        drawn = False
        for number, packed in self._masks[1].items():
            mask = unpacked(packed[outline.place], outline.segmentation.columns)
            if mask.any():
                inside = stretched(mask, shown.shape[:2])
                shown[grown(inside, 1) & ~inside] = COLOURS[outline.numbers.index(number) % len(COLOURS)]
                drawn = True
        return drawn

    def _open(self, task: PreviewTask) -> _Frame:
        key = (task.path, task.frame, task.columns, task.rows)
        if self._frame is None or self._frame[0] != key:
            self._frame = None  # before the next is read: both may be large
            self._frame = (key, self._read(task))
        return self._frame[1]

    def _read(self, task: PreviewTask) -> _Frame:
        if _is_picture(task.path):
            return _picture(task.path)
        if self._file is None or self._file[0] != task.path:
            self._file = None
            self._file = (task.path, dicom.read_dataset(Path(task.path)))
        return _dicom(self._file[1], task)


def fitting(shape: tuple[int, int], aspect: float, room: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the largest picture of an image in this room; ``aspect`` is a pixel's height : width.

    The pixels of the picture are square.
    """
    height, width = shape[0] * aspect, float(shape[1])
    scale = min(room[0] / height, room[1] / width)
    return (
        min(room[0], max(1, round(height * scale))),
        min(room[1], max(1, round(width * scale))),
    )


def _on_black(rgb: Rgb, room: tuple[int, int]) -> Rgb:
    page = np.zeros((*room, 3), dtype=np.uint8)
    top, left = (room[0] - rgb.shape[0]) // 2, (room[1] - rgb.shape[1]) // 2
    page[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
    return page


def _grey(frame: _Frame, task: PreviewTask, remarks: list[str]) -> tuple[Float, Window | None]:
    """Return grey levels in 0..1 and the window that was used."""
    wanted = None if task.window is None else _exact(task.window)
    if frame.values is not None and frame.pipeline is not None:
        pipeline = frame.pipeline
        pipeline.window, pipeline.remarks = None, []
        grey = pipeline.shown(frame.values, wanted, own_range=task.own_range)
        remarks.extend(pipeline.remarks)
        return grey, _told(pipeline.window)
    levels = frame.levels if frame.levels is not None else np.zeros(frame.shape, dtype=np.float32)
    if wanted is None:
        wanted = dicom.spanning(float(levels.min()) * 255, float(levels.max()) * 255) if task.own_range else None
    return (levels, Window(centre=127.5, width=255)) if wanted is None else (wanted.apply(levels * 255), _told(wanted))


def _exact(window: Window) -> dicom.Window:
    return dicom.Window(window.centre, window.width, "LINEAR" if window.width > 1 else "LINEAR_EXACT")


def _told(window: dicom.Window | None) -> Window | None:
    """Return a window to tell, None if the file's own is beyond all bounds."""
    if window is None or not (abs(window.centre) <= MAX_LEVEL and 1e-6 <= window.width <= 2 * MAX_LEVEL):
        return None
    return Window(centre=round(window.centre, 3), width=max(round(window.width, 3), 1e-3))


# ---------------------------------------------------------------- DICOM


def _dicom(dataset: Dataset, task: PreviewTask) -> _Frame:
    rows, columns = dicom.number_of(dataset, "Rows"), dicom.number_of(dataset, "Columns")
    check_frame_size(rows, columns)
    frames = max(1, dicom.number_of(dataset, "NumberOfFrames"))
    if not 0 <= task.frame < frames:
        raise InputError("no_such_frame", f"Frame {task.frame + 1} was asked for; the file has {frames}.")
    aspect = _aspect(dataset, task.frame)
    wanted = fitting((rows, columns), aspect, (task.rows, task.columns))
    factor = max(1, min(rows // (2 * wanted[0]), columns // (2 * wanted[1])))
    stored = dicom.decode_frame(dataset, task.frame)
    right, bottom = _letters(dataset)
    if stored.ndim != 3:
        pipeline = dicom.Pipeline(dataset, task.frame)
        values = pipeline.values(stored, factor)
        return _Frame((rows, columns), aspect, values=values, pipeline=pipeline, right=right, bottom=bottom)
    white = float(2 ** max(1, dicom.number_of(dataset, "BitsStored")) - 1)
    if "palette" in str(dataset.get("PhotometricInterpretation", "")).lower():
        white = float(np.iinfo(stored.dtype).max)
    channels = [average_blocks(stored[..., channel], factor) for channel in range(3)]
    rgb = np.stack(channels, axis=-1) * np.float32(255 / white)
    return _coloured(rgb, colourfulness(stored, white), (rows, columns), aspect, right, bottom)


def _coloured(
    rgb: Float, colour: float, shape: tuple[int, int], aspect: float, right: str = "", bottom: str = ""
) -> _Frame:
    """Return a frame in colour, or in grey if it has none: then a window can be laid on it."""
    if colour >= COLOURFUL:
        return _Frame(shape, aspect, rgb=rgb, right=right, bottom=bottom)
    return _Frame(shape, aspect, levels=rgb.mean(axis=-1) / np.float32(255), right=right, bottom=bottom)


def _aspect(dataset: Dataset, frame: int) -> float:
    """Return the height of a pixel over its width, 1 if the file does not say."""
    spacing = dicom.spacing_of(dataset, frame) or _ratio(dataset)
    return min(max(spacing[0] / spacing[1], 0.05), 20.0)


def _ratio(dataset: Dataset) -> tuple[float, float]:
    try:
        vertical, horizontal = (float(number) for number in dataset.get("PixelAspectRatio") or (1, 1))
    except (ValueError, TypeError):
        return 1.0, 1.0
    return (vertical, horizontal) if min(vertical, horizontal) > 0 else (1.0, 1.0)


def _letters(dataset: Dataset) -> tuple[str, str]:
    """Return where the right and the bottom edge lie in the patient, if the file says it in letters."""
    said = dataset.get("PatientOrientation")
    if not isinstance(said, MultiValue) or len(said) != 2:
        return "", ""
    right, bottom = (str(letters).strip() for letters in said)
    return (right, bottom) if _EDGE.fullmatch(right) and _EDGE.fullmatch(bottom) else ("", "")


# ---------------------------------------------------------------- PNG and JPEG


def _is_picture(path: str) -> bool:
    try:
        with Path(path).open("rb") as stream:
            return stream.read(8).startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    except OSError as error:
        raise InputError("unreadable_file", f"The file cannot be read: {error.strerror}.") from error


def _picture(path: str) -> _Frame:
    grey = load_grey(path, max_side=2 * MAX_COLUMNS)
    if grey.colour < COLOURFUL:
        return _Frame(grey.source_shape, 1.0, levels=grey.pixels, remarks=grey.remarks)
    rows, columns = grey.pixels.shape
    rgb = load_colours(path, (rows, columns))
    return _Frame(grey.source_shape, 1.0, rgb=rgb)
