"""What of the engines' masks may be seen, read once for all artefacts of a study version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.domain import Segment, Segmentation
from clinic_ai.errors import InputError
from clinic_ai.ml.segmentations import Packed, read_masks
from clinic_ai.results.anatomy import table as anatomy
from clinic_ai.results.codes import table as conditions
from clinic_ai.results.overlays import shown_segments
from clinic_ai.tasks import Outlines, RenderTask, StoredSegmentation

NOT_READ = "Masks are not delivered: reading files of this study ended the process that tried."


@dataclass(frozen=True)
class Drawn:
    """Segments of one segmentation that may be seen and show anything, each with its bits as of ``read_masks``."""

    segmentation: Segmentation
    segments: tuple[tuple[Segment, Packed], ...]
    plugin: str


def read_outlines(task: RenderTask, omissions: list[str]) -> list[Drawn]:
    """Return what may be drawn. What cannot be read is no fault of the report and goes to ``omissions``."""
    return list(_read(task, omissions))


def _read(task: RenderTask, omissions: list[str]) -> Iterator[Drawn]:
    for outlines in task.outlines:
        for stored in outlines.segmentations:
            allowed = _allowed(task, outlines, stored, omissions)
            if not allowed:
                continue
            if not task.decode:
                omissions.append(NOT_READ)
                return
            wanted = {segment.number: segment for segment in allowed}
            try:
                found = read_masks(Path(stored.path), stored.segmentation, wanted)
            except InputError as error:
                omissions.append(f"Masks of {outlines.plugin} are not delivered: {error.message}")
                continue
            segments = tuple((wanted[number], packed) for number, packed in found.items())
            if segments:
                yield Drawn(stored.segmentation, segments, outlines.plugin)


def _allowed(
    task: RenderTask, outlines: Outlines, stored: StoredSegmentation, omissions: list[str]
) -> tuple[Segment, ...]:
    shown = shown_segments(stored.segmentation, task.findings, task.verdict, task.sign_off, outlines.findings)
    coded = tuple(segment for segment in shown if has_code(segment))
    for segment in shown:
        if segment not in coded:
            omissions.append(f"The mask {segment.name} of {outlines.plugin} is not delivered: no code is known for it.")
    return coded


def has_code(segment: Segment) -> bool:
    """Return whether a table has a code for what a segment shows."""
    return segment.name in (conditions() if segment.role == "finding" else anatomy())
