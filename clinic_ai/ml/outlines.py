"""What of the engines' masks may be seen, read once for all artefacts of a study version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.domain import Audience, Segment, Segmentation
from clinic_ai.errors import InputError
from clinic_ai.ml.segmentations import MAX_PACKED_BYTES, Packed, packed_bytes, read_masks
from clinic_ai.results.anatomy import table as anatomy
from clinic_ai.results.codes import table as conditions
from clinic_ai.results.overlays import shown_conditions, shown_segments
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
        omissions.extend(_absent(task, outlines))
        for stored in outlines.segmentations:
            allowed = _allowed(task, outlines, stored, omissions)
            if not allowed:
                continue
            if not task.decode:
                omissions.append(NOT_READ)
                return
            allowed = _as_many_as_fit(stored.segmentation, allowed, omissions)
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


def _as_many_as_fit(
    segmentation: Segmentation, allowed: tuple[Segment, ...], omissions: list[str]
) -> tuple[Segment, ...]:
    """Return the segments, without organs if all together are more than can be worked on."""
    if packed_bytes(segmentation, len(allowed)) <= MAX_PACKED_BYTES:
        return allowed
    omissions.append("Masks of organs are not delivered: with them there is more than can be worked on.")
    return tuple(segment for segment in allowed if segment.role == "finding")


def _absent(task: RenderTask, outlines: Outlines) -> Iterator[str]:
    """Yield that a mask shows something whose finding is called absent: it is not drawn, and nobody should wonder."""
    if task.verdict.audience is not Audience.CLINICIAN:
        return
    released = {said.statement_id for said in task.verdict.released}
    said = {task.findings[place].condition for place in outlines.findings if f"f_{place + 1}" in released}
    shown = shown_conditions(task.findings, task.verdict, task.sign_off, outlines.findings)
    drawn = (mask.name for mask in outlines.masks if mask.role == "finding" and mask.count)
    for name in dict.fromkeys(drawn):
        if name in said - shown and name in conditions():
            label = conditions()[name].label.lower()
            yield f"The mask of {label} is not delivered: the finding is called absent."


def has_code(segment: Segment) -> bool:
    """Return whether a table has a code for what a segment shows."""
    return segment.name in (conditions() if segment.role == "finding" else anatomy())
