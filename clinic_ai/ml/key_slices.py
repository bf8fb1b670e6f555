"""Pictures of what masks show: the slice with most of each finding, outlined, and all of them in a coronal projection.

Only what ``read_outlines`` let through is drawn. A letter stands beside each colour, for prints in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from clinic_ai.domain import Cosines, Mask, SliceRef
from clinic_ai.errors import InputError
from clinic_ai.ml import dicom_pixels as dicom
from clinic_ai.ml import report_text as words
from clinic_ai.ml.contours import COLOURS, grown, stretched
from clinic_ai.ml.greys import Float, average_blocks, check_frame_size
from clinic_ai.ml.outlines import Drawn
from clinic_ai.ml.pictures import Picture
from clinic_ai.ml.segmentations import Bits, Packed, unpacked
from clinic_ai.results.codes import finding_code
from clinic_ai.results.orientation import edges_of
from clinic_ai.results.overlays import shown_masks
from clinic_ai.tasks import RenderImage, RenderTask

MAX_KEY_SLICES = 5
MAX_PROJECTED = 160
"""Slices that a projection is made of; of a longer stack they are taken at even distances."""
WIDTH = 720
"""Width of a key slice in pixels: about 300 dpi at the size it has in the report."""
LUNG = dicom.Window(-600, 1500)
SOFT_TISSUE = dicom.Window(40, 400)
BONE = dicom.Window(400, 1800)
_IN_LUNG = frozenset(
    [
        "atelectasis",
        "bronchiectasis",
        "consolidation",
        "emphysema",
        "fibrotic_sequela",
        "ground_glass_opacity",
        "interlobular_septal_thickening",
        "lung_mass",
        "lung_nodule",
        "lung_opacity",
        "mosaic_attenuation",
        "pneumonia",
        "pneumothorax",
        "pulmonary_edema",
    ]
)
"""Conditions that are looked at in the lung window."""
_EDGE = (200, 200, 200)
_AIR_HU = -500.0
_MARGIN = 0.03


@dataclass(frozen=True)
class KeySlice:
    """A picture in the report and what stands below it; ``colour`` is ``#rrggbb``, empty for the projection."""

    picture: Picture
    title: str
    lines: tuple[str, ...] = ()
    letter: str = ""
    colour: str = ""


@dataclass(frozen=True)
class _Found:
    """A finding with its mask over a stack of slices."""

    drawn: Drawn
    name: str
    packed: Packed
    letter: str
    colour: tuple[int, int, int]

    @property
    def key_slice(self) -> int:
        """Return the slice, counted from 0, that has most of the mask."""
        return int(np.bitwise_count(self.packed).sum(axis=(1, 2), dtype=np.int64).argmax())

    def bits(self, place: int) -> Bits:
        """Return the mask on one slice, bool (row, column)."""
        return unpacked(self.packed[place], self.drawn.segmentation.columns)


def draw_key_slices(
    task: RenderTask, outlined: Sequence[Drawn], directory: Path, omissions: list[str]
) -> list[KeySlice]:
    """Return the key slices of the findings with the most voxels, and a projection of the stack of the first.

    What cannot be drawn goes to ``omissions``.
    """
    found = list(_found(outlined))
    files = _Files()
    pictures = []
    for one in found[:MAX_KEY_SLICES]:
        label = finding_code(one.name).label
        try:
            pictures.append(_key_slice(task, files, one, directory))
        except InputError as error:
            omissions.append(f"No slice is shown for {label.lower()}: {error.message}")
    if left := [finding_code(one.name).label.lower() for one in found[MAX_KEY_SLICES:]]:
        omissions.append(f"No slice is shown for {', '.join(left)}: the page has no room. Their masks are delivered.")
    if pictures:
        try:
            pictures.extend(_projection(task, files, found[:MAX_KEY_SLICES], directory))
        except InputError as error:
            omissions.append(f"No projection of the stack is shown: {error.message}")
    return pictures


def _found(outlined: Sequence[Drawn]) -> Iterator[_Found]:
    """Yield each finding once, the largest first."""
    masks = [(int(np.bitwise_count(packed).sum(dtype=np.int64)), drawn, segment.name, packed)
             for drawn in outlined for segment, packed in drawn.segments if segment.role == "finding"]  # fmt: skip
    masks.sort(key=lambda mask: -mask[0])
    for place, (_, drawn, name, packed) in enumerate(masks):
        yield _Found(drawn, name, packed, chr(ord("A") + place), COLOURS[place % len(COLOURS)])


# ---------------------------------------------------------------- one slice


def _key_slice(task: RenderTask, files: _Files, one: _Found, directory: Path) -> KeySlice:
    place = one.key_slice
    ref = one.drawn.segmentation.slices[place]
    image, number = _image_of(task, ref)
    values, spacing, shown = _values(files, image, ref.frame)
    mask = one.bits(place)
    if mask.shape != values.shape:
        raise InputError("other_size", "its mask has another size than the image.")
    is_ct = image.header.modality == "CT"
    lung = one.name in _IN_LUNG
    grey = (LUNG if lung else SOFT_TISSUE).apply(values) if is_ct else shown()
    top, bottom, left, right = _frame(values, mask, is_ct=is_ct)
    grey, mask = grey[top:bottom, left:right], mask[top:bottom, left:right]
    aspect = spacing[0] / spacing[1] if spacing else 1.0
    size = (max(1, round(WIDTH * grey.shape[0] * aspect / grey.shape[1])), WIDTH)
    name = f"key-slice-{one.letter.lower()}.png"
    drawn = _outlined(_enlarged(grey, size), [(stretched(mask, size), one.colour)])
    _write_edges(drawn, _orientation(image, ref.frame))
    picture = _save(drawn, directory, name)
    window = ("lung window" if lung else "soft-tissue window") if is_ct else ""
    where = f"Image {number}" + (f", frame {ref.frame + 1}" if image.header.frames > 1 else "")
    measured = [text[:1].upper() + text[1:] for text in map(words.measures, _masks_of(task, one))]
    return KeySlice(
        picture,
        finding_code(one.name).label,
        (", ".join(filter(None, (where, window))), *filter(None, measured)),
        one.letter,
        _hex(one.colour),
    )


def _image_of(task: RenderTask, ref: SliceRef) -> tuple[RenderImage, int]:
    numbers = task.image_numbers()
    image = next((image for image in task.images if image.sha256 == ref.sha256), None)
    if image is None or image.sha256 not in numbers:
        raise InputError("no_such_image", "its mask lies on an image that is not in the study.")
    return image, numbers[image.sha256]


class _Files:
    """Reads frames, and keeps the last file: the next slice may be of the same."""

    def __init__(self) -> None:
        self._last: tuple[str, Dataset] | None = None

    def open(self, path: str) -> Dataset:
        """Return a file as read. Raise InputError if it cannot be."""
        if self._last is None or self._last[0] != path:
            self._last = None
            self._last = (path, dicom.read_dataset(Path(path)))
        return self._last[1]


def _values(
    files: _Files, image: RenderImage, frame: int
) -> tuple[Float, tuple[float, float] | None, Callable[[], Float]]:
    """Return the values of a frame such as HU, its pixel spacing in mm, and how to show them with its own window.

    Raise InputError if there is no such frame or it cannot be decoded.
    """
    dataset = files.open(image.path)
    check_frame_size(dicom.number_of(dataset, "Rows"), dicom.number_of(dataset, "Columns"))
    if not frame < max(1, dicom.number_of(dataset, "NumberOfFrames")):
        raise InputError("no_such_frame", "the file has no such frame.")
    stored = dicom.decode_frame(dataset, frame)
    if stored.ndim != 2:
        raise InputError("in_colour", "the image is in colour.")
    pipeline = dicom.Pipeline(dataset, frame)
    values = pipeline.values(stored, 1)
    return values.pixels, dicom.spacing_of(dataset, frame), lambda: pipeline.shown(values)


def _masks_of(task: RenderTask, one: _Found) -> Iterator[Mask]:
    for outlines in task.outlines:
        if outlines.plugin == one.drawn.plugin:
            shown = shown_masks(outlines, task.findings, task.verdict, task.sign_off)
            yield from (mask for mask in shown if mask.name == one.name)


def _frame(values: Float, mask: Bits, *, is_ct: bool) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of what is worth showing: of CT the body, for the rest is air and table."""
    rows, columns = values.shape
    if not is_ct:
        return 0, rows, 0, columns
    # Lines of pixels of which a fair part is no air: the table is thin.
    dense = values > _AIR_HU
    across, along = dense.mean(axis=1) > 0.15, dense.mean(axis=0) > 0.1
    top, bottom = _ends(across | mask.any(axis=1), rows)
    left, right = _ends(along | mask.any(axis=0), columns)
    return top, bottom, left, right


def _ends(wanted: npt.NDArray[np.bool_], length: int) -> tuple[int, int]:
    places = np.flatnonzero(wanted)
    if places.size == 0:
        return 0, length
    margin = max(1, round(_MARGIN * length))
    return max(0, int(places[0]) - margin), min(length, int(places[-1]) + 1 + margin)


# ---------------------------------------------------------------- all of it


def _projection(task: RenderTask, files: _Files, found: Sequence[_Found], directory: Path) -> Iterator[KeySlice]:
    """Yield a maximum-intensity projection from the front, if the stack is an axial one of CT that is placed."""
    first = found[0].drawn
    refs = first.segmentation.slices
    height_mm, upwards = _axial(task, refs)
    if height_mm is None:
        return
    step = -(-len(refs) // MAX_PROJECTED)
    taken = list(range(0, len(refs), step))
    lines, width_mm = [], 0.0
    for place in taken:
        image, _ = _image_of(task, refs[place])
        values, spacing, _ = _values(files, image, refs[place].frame)
        if spacing is None or values.shape != (first.segmentation.rows, first.segmentation.columns):
            return
        width_mm = spacing[1] * values.shape[1]
        lines.append(values.max(axis=0))
    order = slice(None, None, -1) if upwards else slice(None)
    grey = BONE.apply(np.array(lines, dtype=np.float32)[order])
    size = (max(1, round(WIDTH * height_mm / width_mm)), WIDTH)
    marks = []
    for one in found:
        if one.drawn.segmentation.slices == refs:
            flat = np.array([one.bits(place).any(axis=0) for place in range(len(refs))])
            marks.append((stretched(flat[order], size), one.colour, one.letter))
    shown = _outlined(_enlarged(grey, size), [(mask, colour) for mask, colour, _ in marks])
    _write_letters(shown, marks)
    _write_edges(shown, (1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    every = "" if step == 1 else f", one in {step} of them"
    yield KeySlice(
        _save(shown, directory, "projection.png"),
        "Overview from the front",
        (f"Maximum-intensity projection of {len(refs)} slices{every}", "bone window"),
    )


def _axial(task: RenderTask, refs: Sequence[SliceRef]) -> tuple[float | None, bool]:
    """Return how high the stack is in mm and whether it goes to the head; None where it is no axial stack of CT."""
    first, last = (_place(task, ref) for ref in (refs[0], refs[-1]))
    if first is None or last is None or len(refs) < 3:
        return None, False
    image, _ = _image_of(task, refs[0])
    orientation = _orientation(image, refs[0].frame)
    if orientation is None or image.header.modality != "CT" or orientation[0] < 0.9 or orientation[4] < 0.9:
        return None, False
    height = last[2] - first[2]
    return (abs(height) * len(refs) / (len(refs) - 1) or None), height > 0


def _orientation(image: RenderImage, frame: int) -> Cosines | None:
    geometry = image.header.geometry
    if geometry is None:
        return None
    own = geometry.frames[frame].image_orientation_patient if frame < len(geometry.frames) else None
    return own or geometry.image_orientation_patient


def _place(task: RenderTask, ref: SliceRef) -> tuple[float, ...] | None:
    image, _ = _image_of(task, ref)
    geometry = image.header.geometry
    if geometry is None:
        return None
    if geometry.frames:
        return geometry.frames[ref.frame].image_position_patient if ref.frame < len(geometry.frames) else None
    return geometry.image_position_patient


# ---------------------------------------------------------------- drawing


def _enlarged(grey: Float, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return grey levels in 0..1 as 8 bits of (rows, columns)."""
    if grey.shape[1] > size[1]:
        grey = average_blocks(grey, max(1, grey.shape[1] // (2 * size[1])))
    image = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
    eight_bits: npt.NDArray[np.uint8] = np.rint(np.clip(np.asarray(image), 0.0, 1.0) * 255).astype(np.uint8)
    return eight_bits


def _outlined(grey: npt.NDArray[np.uint8], masks: Sequence[tuple[Bits, tuple[int, int, int]]]) -> Image.Image:
    """Return the picture with the outline of each mask, lines as wide as can be seen in print."""
    rgb = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    width = max(2, WIDTH // 240)
    for mask, colour in masks:
        rgb[grown(mask, width + 1) & ~grown(mask, 1)] = 0  # a dark rim keeps the line visible over bone
        rgb[grown(mask, width) & ~mask] = colour
    return Image.fromarray(rgb)


def _write_letters(picture: Image.Image, marks: Sequence[tuple[Bits, tuple[int, int, int], str]]) -> None:
    """Write the letter of each mask beside it."""
    draw = ImageDraw.Draw(picture)
    size = WIDTH // 20
    font = ImageFont.load_default(size)
    for mask, colour, letter in marks:
        rows, columns = np.nonzero(mask)
        if rows.size == 0:
            continue
        right = int(columns.max()) + size // 2
        x = right if right + size < picture.width else int(columns.min()) - size
        at = (x, int(rows.mean()))
        draw.text(at, letter, fill=colour, font=font, anchor="lm", stroke_width=max(2, size // 10), stroke_fill="black")


def _write_edges(picture: Image.Image, orientation: Cosines | None) -> None:
    """Write at the left and right edge where in the patient they lie, if that is known."""
    _, right, _, left = edges_of(orientation)
    size = WIDTH // 22
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    middle, inset = picture.height // 2, size // 2
    for text, x, anchor in ((left, inset, "lm"), (right, picture.width - inset, "rm")):
        draw.text((x, middle), text, fill=_EDGE, font=font, anchor=anchor, stroke_width=2, stroke_fill="black")


def _save(image: Image.Image, directory: Path, name: str) -> Picture:
    image.save(directory / name, format="PNG", compress_level=4)
    return Picture(name, image.width, image.height)


def _hex(colour: tuple[Any, ...]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
