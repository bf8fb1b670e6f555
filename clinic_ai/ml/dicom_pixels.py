"""Pixels of a DICOM file through the greyscale pipeline of PS3.3 C.11: modality LUT, VOI LUT, polarity."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGExtended12Bit, JPEGLSLossless, JPEGLSNearLossless

from clinic_ai.errors import InputError
from clinic_ai.ml.greys import Float, average_blocks, check_frame_size, colourfulness, luminance, robust_range

_UNDECODABLE = "Export the study again uncompressed, or as lossless JPEG, JPEG 2000, JPEG-LS or RLE."
_READ_ERRORS = (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError)
# pydicom's decoders and the codecs behind them raise all of these for streams that are damaged or unknown.
_DECODE_ERRORS = (*_READ_ERRORS, RuntimeError, IndexError, EOFError, struct.error)
_DECODERS = {
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}
"""Who decodes what, where pydicom would ask GDCM first: it hands pixels over as text, which takes as long as decoding
JPEG-LS, and a damaged JPEG-LS stream makes it end the process."""

Decoded = tuple[Float, tuple[int, int], tuple[float, float] | None, tuple[str, ...], float]
"""Grey levels in 0..1 (reduced by whole blocks), shape in the file, spacing in the file, remarks, colourfulness."""


def read_levels(path: Path, frame: int, reduction: Callable[[int, int], int]) -> Decoded:
    """Return the grey levels of one frame. ``reduction`` maps (rows, columns) to the block size to average over.

    Raise InputError if the file is no DICOM image, has no such frame, or cannot be decoded.
    """
    dataset = read_dataset(path)
    rows, columns = number_of(dataset, "Rows"), number_of(dataset, "Columns")
    check_frame_size(rows, columns)
    frames = max(1, number_of(dataset, "NumberOfFrames"))
    if not 0 <= frame < frames:
        raise InputError("no_such_frame", f"Frame {frame + 1} was asked for; the file has {frames}.")
    stored = decode_frame(dataset, frame)
    factor = reduction(rows, columns)
    spacing = spacing_of(dataset, frame)
    if stored.ndim == 3:
        white = float(2 ** max(1, number_of(dataset, "BitsStored")) - 1)
        if "palette" in str(dataset.get("PhotometricInterpretation", "")).lower():
            white = float(np.iinfo(stored.dtype).max)
        grey = np.clip(average_blocks(luminance(stored), factor) / white, 0.0, 1.0)
        return grey, (rows, columns), spacing, (), colourfulness(stored, white)
    pipeline = Pipeline(dataset, frame)
    return pipeline.levels(stored, factor), (rows, columns), spacing, tuple(pipeline.remarks), 0.0


class _Whole(io.BufferedReader):
    """A file of which no more is asked than there is: for a value that claims gigabytes, room would be made."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file)
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes, or what is left of the file."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_dataset(path: Path) -> Dataset:
    """Return a file as pydicom reads it, whole. Raise InputError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are the parser's business and were remarked there
            with _Whole(io.FileIO(path)) as file:
                return pydicom.dcmread(file, force=True)
    except (*_READ_ERRORS, RecursionError) as error:
        raise InputError(
            "not_an_image", "The file is no DICOM, PNG or JPEG image that can be read.", remedy="Export it again."
        ) from error


def decode_frame(dataset: Dataset, frame: int) -> npt.NDArray[Any]:
    """Return one frame as stored: (rows, columns), or (rows, columns, 3) in red, green, blue. Raise InputError."""
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError("no_pixels", "The file holds no image.", remedy="Nothing is needed; it is kept as it is.")
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        raise InputError(
            "no_transfer_syntax",
            "The file does not say how its pixels are encoded (no transfer syntax).",
            remedy="Export it again as a DICOM file with its header (Part 10).",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pixel_array(dataset, index=frame, decoding_plugin=_DECODERS.get(syntax, ""), view_only=True)
            if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
            return pixels
    except _DECODE_ERRORS as error:
        if syntax == JPEGExtended12Bit and number_of(dataset, "BitsStored") > 8:
            raise InputError(
                "jpeg_extended_12_bit",
                "The image is compressed as 12-bit JPEG Extended, which this appliance cannot decode.",
                remedy=_UNDECODABLE,
            ) from error
        raise InputError(
            "cannot_decode",
            f"The pixels cannot be decoded; they are encoded as {getattr(syntax, 'name', 'an unknown syntax')}.",
            remedy=_UNDECODABLE,
        ) from error


@dataclass(frozen=True)
class Window:
    """A window as C.11.2 has it, in units after the modality LUT."""

    centre: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: Float) -> Float:
        """Return ``values`` mapped to 0..1."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (values - self.centre) / self.width, -60.0, 60.0)
            curve: Float = np.asarray(1.0 / (1.0 + np.exp(exponent)), dtype=np.float32)
            return curve
        if self.function == "LINEAR_EXACT":
            low, span = self.centre - self.width / 2, self.width
        else:
            low, span = self.centre - 0.5 - (self.width - 1) / 2, self.width - 1
        if span <= 0:  # a width of 1: a threshold
            return (values > low).astype(np.float32)
        scale = 1.0 / span
        shown: Float = np.clip(values * np.float32(scale) - np.float32(low * scale), 0.0, 1.0)
        return shown


def spanning(low: float, high: float) -> Window:
    """Return the window from ``low``, which it shows black, to ``high``."""
    return Window((low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


@dataclass(frozen=True)
class Values:
    """Values after the modality LUT, such as Hounsfield units, and which of them are inside the image (None: all)."""

    pixels: Float
    inside: npt.NDArray[np.bool_] | None


class Pipeline:
    """What is to be done with the stored values of one greyscale frame.

    ``window`` is the one that ``shown`` took, None before that and if a lookup table of the file was taken.
    """

    def __init__(self, dataset: Dataset, frame: int) -> None:
        self._dataset = dataset
        self._frame = frame
        self.window: Window | None = None
        self.remarks: list[str] = []

    def levels(self, stored: npt.NDArray[Any], factor: int) -> Float:
        """Return grey levels in 0..1, means over blocks of ``factor`` × ``factor`` pixels.

        Stored values are averaged first: the lookups then run over few pixels. Blocks are at most half the
        size of a pixel that is delivered, so a curved lookup changes nothing one can see.
        """
        return self.shown(self.values(stored, factor))

    def values(self, stored: npt.NDArray[Any], factor: int) -> Values:
        """Return the values after the modality LUT, means over blocks. Raise InputError if some are no numbers."""
        padding = self._padding(stored)
        if padding is None or not padding.any():
            values = average_blocks(stored, factor)
            inside: npt.NDArray[np.bool_] | None = None
        else:
            shown = ~padding
            share = average_blocks(shown, factor)
            values = average_blocks(stored * shown, factor)
            inside = share > 0
            np.divide(values, share, out=values, where=inside)
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._modality(values)
        _require_numbers(values)
        return Values(values, inside)

    def shown(self, values: Values, window: Window | None = None, *, own_range: bool = False) -> Float:
        """Return grey levels in 0..1 through ``window``, or that of the file, or with ``own_range`` the values' range.

        Raise InputError if some are no numbers.
        """
        visible = values.pixels if values.inside is None else values.pixels[values.inside]
        if own_range and visible.size:
            window = spanning(*robust_range(visible))
        if window is not None:
            self.window = window
            grey = window.apply(values.pixels)
        else:
            grey = self._voi(values.pixels, visible)
        _require_numbers(grey)
        if self._inverted():
            np.subtract(1.0, grey, out=grey)
        if values.inside is not None:
            grey[~values.inside] = 0.0
        return grey

    def _padding(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Return which pixels are outside the image, if the file names a padding value."""
        first = self._dataset.get("PixelPaddingValue")
        if first is None or isinstance(first, MultiValue | bytes) or not np.issubdtype(stored.dtype, np.integer):
            return None
        last = self._dataset.get("PixelPaddingRangeLimit")
        last = first if last is None or isinstance(last, MultiValue | bytes) else last
        low, high = sorted((self._signed(int(first)), self._signed(int(last))))
        limits = np.iinfo(stored.dtype)
        if high < limits.min or low > limits.max:
            return None
        low, high = max(low, limits.min), min(high, limits.max)
        return stored == low if low == high else (stored >= low) & (stored <= high)

    def _signed(self, value: int) -> int:
        """Return ``value`` as PixelRepresentation has it; writers often mistake US for SS."""
        bits = number_of(self._dataset, "BitsAllocated") or 16
        if number_of(self._dataset, "PixelRepresentation") == 1 and value >= 1 << (bits - 1):
            return value - (1 << bits)
        return value

    def _modality(self, values: Float) -> Float:
        table = _sequence_item(self._dataset.get("ModalityLUTSequence"))
        if table is not None:
            looked_up = _look_up(table, values, number_of(self._dataset, "PixelRepresentation") == 1)
            if looked_up is not None:
                return looked_up[0]
            self.remarks.append("The modality LUT of the file is damaged and was ignored.")
        source = _functional(self._dataset, self._frame, "PixelValueTransformationSequence") or self._dataset
        slope, intercept = _real(source.get("RescaleSlope")), _real(source.get("RescaleIntercept"))
        if slope not in (None, 0.0, 1.0):
            values = values * np.float32(slope)
        if intercept not in (None, 0.0):
            values = values + np.float32(intercept)
        return values

    def _voi(self, values: Float, visible: Float) -> Float:
        """Return ``values`` through the VOI LUT, the first window, or else their own range."""
        table = _sequence_item(self._dataset.get("VOILUTSequence"))
        if table is not None:
            looked_up = _look_up(table, values, bool(visible.size) and float(visible.min()) < 0)
            if looked_up is not None:
                return looked_up[0] / np.float32(looked_up[1])
            self.remarks.append("The VOI LUT of the file is damaged and was ignored.")
        self.window = self._window() or spanning(*self._range(visible))
        return self.window.apply(values)

    def _window(self) -> Window | None:
        source = _functional(self._dataset, self._frame, "FrameVOILUTSequence") or self._dataset
        centre, width = _real(source.get("WindowCenter")), _real(source.get("WindowWidth"))
        if centre is None or width is None:
            return None
        function = str(source.get("VOILUTFunction") or "LINEAR").upper()
        if width < 1 if function == "LINEAR" else width <= 0:
            self.remarks.append("The window of the file has no width; the range of the image was taken instead.")
            return None
        return Window(centre, width, function)

    def _range(self, visible: Float) -> tuple[float, float]:
        """Return the range to show when the file names no window: all of 8 bits, else the percentiles."""
        bits = number_of(self._dataset, "BitsStored")
        if 0 < bits <= 8:
            signed = number_of(self._dataset, "PixelRepresentation") == 1
            ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float32)
            low, high = sorted(float(end) for end in self._modality(ends))
            return low, high
        if visible.size == 0:
            return 0.0, 1.0
        self.remarks.append("The file names no window; the range of its values without the extremes was taken.")
        return robust_range(visible)

    def _inverted(self) -> bool:
        photometric = str(self._dataset.get("PhotometricInterpretation", "")).strip()
        shape = str(self._dataset.get("PresentationLUTShape", "") or "").strip()
        if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
            self.remarks.append(f"The file calls itself {photometric} and its presentation {shape}, which disagree.")
        return photometric == "MONOCHROME1" or shape == "INVERSE"


def _require_numbers(levels: Float) -> None:
    """Raise InputError for NaN and infinity: of floating-point pixels, or of a rescale or window beyond all bounds."""
    if not np.isfinite(levels).all():
        raise InputError(
            "not_a_number",
            "The values of some pixels are infinite or not numbers, so the image cannot be shown as it was meant.",
            remedy="Export the study again with whole numbers as pixels, and look at its rescale and window values.",
        )


def _look_up(item: Dataset, values: Float, signed: bool) -> tuple[Float, float] | None:
    """Return ``values`` through a lookup table and the table's white, or None if the table is damaged.

    ``signed`` says whether the first mapped value is to be read as two's complement.
    """
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if not isinstance(descriptor, MultiValue | list) or len(descriptor) != 3 or data is None:
        return None
    count, first, bits = (int(number) for number in descriptor)
    count = count or 65536
    if isinstance(data, bytes):
        entries = np.frombuffer(data, dtype="<u2" if len(data) >= 2 * count else "u1")
    else:
        entries = np.asarray(data).reshape(-1)
    if entries.size < count or not 1 <= bits <= 16:
        return None
    if signed and first > 32767:
        first -= 65536
    table = (entries[:count].astype(np.int64) & 0xFFFF).astype(np.float32)
    index = np.clip(np.rint(values - np.float32(first)), 0, count - 1).astype(np.int32)
    return table[index], float(max(2**bits - 1, table.max()))


def _functional(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return the first item of a functional group of an enhanced object: the frame's own, else the shared one."""
    for group in _groups(dataset, frame):
        item = _sequence_item(group.get(keyword))
        if item is not None:
            return item
    return None


def _groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    own = dataset.get("PerFrameFunctionalGroupsSequence")
    if own is not None and frame < len(own):
        yield own[frame]
    shared = _sequence_item(dataset.get("SharedFunctionalGroupsSequence"))
    if shared is not None:
        yield shared


def _sequence_item(sequence: Any) -> Dataset | None:
    return sequence[0] if isinstance(sequence, pydicom.Sequence) and len(sequence) else None


def spacing_of(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Return (between rows, between columns) in mm: at the patient if known, else at the detector."""
    measures = _functional(dataset, frame, "PixelMeasuresSequence")
    for source in (measures, dataset):
        for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
            pair = source.get(keyword) if source is not None else None
            if isinstance(pair, MultiValue) and len(pair) == 2 and all((_real(value) or 0) > 0 for value in pair):
                return float(pair[0]), float(pair[1])
    return None


def number_of(dataset: Dataset, keyword: str) -> int:
    """Return an integer attribute, 0 if it is absent or not one."""
    try:
        return int(dataset.get(keyword) or 0)
    except (TypeError, ValueError):
        return 0


def _real(value: Any) -> float | None:
    """Return the first value of a decimal attribute, None if it is absent, not a number or not finite."""
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
