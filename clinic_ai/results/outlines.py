"""Which outlines may be laid over an image in the terminal: those whose findings were released, as in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clinic_ai.domain import Analysis, GuardVerdict, SliceRef, StoredFile
from clinic_ai.domain.reviews import SignOff
from clinic_ai.previewing import PreviewOutline
from clinic_ai.results.codes import table
from clinic_ai.results.overlays import shown_segments
from clinic_ai.results.statements import findings_of


def is_outlined(analyses: Sequence[Analysis], ref: SliceRef) -> bool:
    """Return whether any segmentation lies on a slice."""
    return any(ref in segmentation.slices for analysis in analyses for segmentation in analysis.segmentations)


def outlines_on(
    ref: SliceRef,
    analyses: Sequence[Analysis],
    made: Mapping[tuple[str, str], StoredFile],
    verdict: GuardVerdict,
    sign_off: SignOff | None,
    path: Callable[[str], str | None],
) -> tuple[tuple[PreviewOutline, ...], str]:
    """Return the outlines of findings on a slice, and what they show in words; empty if there are none to be seen.

    ``made`` is by plugin and name of the file; ``path`` returns where an object lies, None if it is gone.
    """
    findings = findings_of(analyses)
    outlines, labels, first = [], [], 0
    for analysis in analyses:
        places = range(first, first + len(analysis.findings))
        first += len(analysis.findings)
        for segmentation in analysis.segmentations:
            shown = shown_segments(segmentation, findings, verdict, sign_off, places)
            own = [segment for segment in shown if segment.role == "finding" and segment.name in table()]
            file = made.get((analysis.plugin, segmentation.file))
            stored = path(file.sha256) if file is not None else None
            if ref in segmentation.slices and own and stored is not None:
                labels += [table()[segment.name].label for segment in own]
                outlines.append(
                    PreviewOutline(
                        path=stored,
                        segmentation=segmentation,
                        place=segmentation.slices.index(ref),
                        numbers=tuple(segment.number for segment in own),
                    )
                )
    return tuple(outlines), f"outlines: {', '.join(dict.fromkeys(labels))}" if outlines else ""
