"""Makes all artefacts of one study version. The PDF always comes out; what else could not be made is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from clinic_ai.domain import FileKind
from clinic_ai.errors import InputError
from clinic_ai.ml import report_text as words
from clinic_ai.ml.dicom_common import subject
from clinic_ai.ml.key_slices import KeySlice, draw_key_slices
from clinic_ai.ml.outlines import Drawn, read_outlines
from clinic_ai.ml.pictures import draw_overlay, draw_scan, open_scan
from clinic_ai.ml.report_pdf import Panel, Pictures, write_pdf
from clinic_ai.ml.report_seg import Written, portions, write_seg
from clinic_ai.ml.report_sr import evidence_of, write_sr
from clinic_ai.ml.secondary_capture import write_capture
from clinic_ai.results.overlays import overlay_title
from clinic_ai.tasks import RenderedFile, RenderImage, RenderResult, RenderTask

MAX_WITH_OVERLAY = 2
MAX_WITHOUT_OVERLAY = 4
_MANY = 12
"""Of more images than these some from all over are shown, not the first."""
_PNG, _PDF, _DICOM = "image/png", "application/pdf", "application/dicom"


@dataclass
class _Made:
    directory: Path
    files: list[RenderedFile] = field(default_factory=list)
    omissions: list[str] = field(default_factory=list)

    def add(self, name: str, media_type: str) -> None:
        self.files.append(RenderedFile(name=name, media_type=media_type))


def render(task: RenderTask) -> RenderResult:
    """Write the artefacts into ``task.output_directory`` and return their names with what is missing and why."""
    made = _Made(Path(task.output_directory))
    shown = choose_images(task)
    numbers = task.image_numbers()
    outlined = read_outlines(task, made.omissions)
    key_slices = _key_slices(task, outlined, made)
    if key_slices:
        shown = [image for image in shown if heatmap_title(task, image) is not None]
    panels = [_panel(task, image, numbers[image.sha256], made) for image in shown]
    _write_dicom(task, outlined, made)
    more = 0 if key_slices else len(_showable(task)) - len(shown)
    write_pdf(task, Pictures(tuple(panels), more, tuple(key_slices)), made.directory)
    made.add("report.pdf", _PDF)
    return RenderResult(files=tuple(made.files), omissions=tuple(dict.fromkeys(made.omissions)))


# ---------------------------------------------------------------- pictures


def choose_images(task: RenderTask) -> list[RenderImage]:
    """Return the images the report shows: those with a heat map first, then in their order, as many as fit a page."""
    images = _showable(task)
    mapped = [image for image in images if heatmap_title(task, image) is not None]
    if mapped:
        others = [image for image in images if image not in mapped]
        return (mapped + others)[:MAX_WITH_OVERLAY]
    if len(images) <= _MANY:
        return images[:MAX_WITHOUT_OVERLAY]
    # A stack: its first slices show the least.
    return [images[(2 * part + 1) * len(images) // (2 * MAX_WITHOUT_OVERLAY)] for part in range(MAX_WITHOUT_OVERLAY)]


def _showable(task: RenderTask) -> list[RenderImage]:
    """Return the images with pixels; by their numbers in this order people name them."""
    return [image for image in task.images if image.header.is_picture]


def heatmap_title(task: RenderTask, image: RenderImage) -> str | None:
    """Return what the heat map of ``image`` shows, in words, or None if it has none that may be shown."""
    return None if image.heatmap_path is None else overlay_title(task.findings, task.verdict, image.sha256)


def _key_slices(task: RenderTask, outlined: list[Drawn], made: _Made) -> list[KeySlice]:
    pictures = draw_key_slices(task, outlined, made.directory, made.omissions)
    for one in pictures:
        made.add(one.picture.name, _PNG)
    return pictures


def _panel(task: RenderTask, image: RenderImage, number: int, made: _Made) -> Panel:
    title = f"Image {number}"
    if not task.decode:
        made.omissions.append(
            f"Image {number} is not shown: reading pixels of this study ended the process that tried."
        )
        return Panel(title, None, sentence=words.NO_PICTURE)
    try:
        grey = open_scan(image)
        scan = draw_scan(grey, made.directory, f"scan-{number}.png")
    except InputError as error:
        made.omissions.append(f"Image {number} is not shown: {error.message}")
        return Panel(title, None, sentence=words.NO_PICTURE)
    made.add(scan.name, _PNG)
    mapped = heatmap_title(task, image)
    if mapped is None:
        return Panel(title, scan)
    try:
        overlay = draw_overlay(grey, image, made.directory, f"overlay-{number}.png")
    except InputError as error:
        made.omissions.append(f"The heat map of image {number} is not shown: {error.message}")
        return Panel(title, scan)
    made.add(overlay.name, _PNG)
    return Panel(title, scan, overlay, f"Image {number}, {mapped}")


# ---------------------------------------------------------------- DICOM objects


def _write_dicom(task: RenderTask, outlined: list[Drawn], made: _Made) -> None:
    study, lost = subject(task)
    made.omissions.extend(lost)
    evidence = dict(_evidence(task, study, made))
    written = list(_segmentations(task, outlined, study, made))
    try:
        write_sr(task, study, evidence, made.directory, written)
    except InputError as error:
        made.omissions.append(f"No structured report was made: {error.message}")
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # What highdicom and pydicom raise for values no rule here foresaw; the PDF must not be lost over it.
        (made.directory / "report.sr.dcm").unlink(missing_ok=True)
        made.omissions.append(f"No structured report was made: it would not be valid DICOM ({type(error).__name__}).")
    else:
        made.add("report.sr.dcm", _DICOM)


def _segmentations(task: RenderTask, outlined: list[Drawn], study: Dataset, made: _Made) -> Iterator[Written]:
    """Write the segmentation objects and yield each."""
    for number, drawn in enumerate((part for whole in outlined for part in portions(whole)), start=1):
        name = "segmentation.seg.dcm" if number == 1 else f"segmentation-{number}.seg.dcm"
        labels = ", ".join(segment.name for segment, _ in drawn.segments)
        try:
            written = write_seg(task, drawn, number, study, made.directory, name)
        except InputError as error:
            made.omissions.append(f"No segmentation object was made of {labels}: {error.message}")
            continue
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # As below: what libraries raise for values no rule here foresaw.
            (made.directory / name).unlink(missing_ok=True)
            made.omissions.append(
                f"No segmentation object was made of {labels}: it would not be valid DICOM ({type(error).__name__})."
            )
            continue
        made.add(name, _DICOM)
        yield written


def _evidence(task: RenderTask, study: Dataset, made: _Made) -> Iterator[tuple[str, Dataset]]:
    captures = 0
    for image in task.images:
        if image.header.kind is FileKind.DICOM:
            reference = evidence_of(image, study)
            if reference is None:
                made.omissions.append("The structured report does not refer to images without valid UIDs.")
            else:
                yield image.sha256, reference
            continue
        captures += 1
        if not task.decode:
            made.omissions.append(f"No DICOM object was made of picture {captures}, which is not decoded again.")
            continue
        name = "scan.sc.dcm" if captures == 1 else f"scan-{captures}.sc.dcm"
        try:
            capture = write_capture(task, image, captures, study, made.directory, name)
        except InputError as error:
            made.omissions.append(f"No DICOM object was made of picture {captures}: {error.message}")
            continue
        made.add(name, _DICOM)
        yield image.sha256, capture
