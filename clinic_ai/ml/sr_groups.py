"""Measurement groups of the structured report: what was judged, and what was measured on its mask.

A finding without a mask is a group after TID 1501. Where a segmentation object holds its mask, the group is one after
TID 1411 and refers to the segment; longest diameter, volume, site and side are those of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from clinic_ai.domain import Finding, Mask, ModelRef, Presence, Released
from clinic_ai.ml import report_text as words
from clinic_ai.ml.report_seg import LATERALITY, SOP_CLASS_UID, Written
from clinic_ai.ml.uids import derived_uid
from clinic_ai.results.anatomy import place_code
from clinic_ai.results.codes import finding_code
from clinic_ai.results.overlays import shown_masks
from clinic_ai.tasks import Outlines, RenderTask

CONTAINS = sr.RelationshipTypeValues.CONTAINS
_PROBABILITY = Code("122157", "DCM", "Probability")
_NO_UNITS = Code("1", "UCUM", "no units")
_PRESENCE = Code("121052", "DCM", "Presence of property")
_PRESENCE_VALUES = {
    Presence.PRESENT: Code("52101004", "SCT", "Present"),
    Presence.ABSENT: Code("272519000", "SCT", "Absent"),
    Presence.UNCERTAIN: Code("82334004", "SCT", "Indeterminate"),
}


class Judged(NamedTuple):
    """A finding with its released words: its number among those released, its place among those of the task."""

    number: int
    place: int
    finding: Finding
    said: Released


def groups(
    task: RenderTask, judged: Judged, evidence: Mapping[str, Dataset], written: Sequence[Written]
) -> Iterator[Dataset]:
    """Yield the group of a finding, and one for each further mask of it."""
    outlines = next((o for o in task.outlines if judged.place in o.findings), None)
    masks = _masks(task, judged, outlines)
    segment = _segment(judged, outlines, written) if outlines and _first(task, judged, outlines) else None
    for count, mask in enumerate(masks or [None], start=1):
        yield _group(task, judged, evidence, mask, segment, count)


def _masks(task: RenderTask, judged: Judged, outlines: Outlines | None) -> list[Mask]:
    """Return the masks of a finding; of several findings of one condition the first has them."""
    if outlines is None or not _first(task, judged, outlines):
        return []
    shown = shown_masks(outlines, task.findings, task.verdict, task.sign_off)
    return [mask for mask in shown if mask.name == judged.finding.condition]


def _first(task: RenderTask, judged: Judged, outlines: Outlines) -> bool:
    released = {said.statement_id for said in task.verdict.released}
    alike = (
        place
        for place in outlines.findings
        if task.findings[place].condition == judged.finding.condition and f"f_{place + 1}" in released
    )
    return next(alike, None) == judged.place


def _segment(judged: Judged, outlines: Outlines, written: Sequence[Written]) -> sr.ReferencedSegment | None:
    for made in written:
        number = made.numbers.get((outlines.plugin, judged.finding.condition))
        if number is not None:
            return sr.ReferencedSegment(
                sop_class_uid=SOP_CLASS_UID,
                sop_instance_uid=made.evidence.SOPInstanceUID,
                segment_number=number,
                source_series=sr.SourceSeriesForSegmentation(made.source_series_uid),
            )
    return None


def _group(
    task: RenderTask,
    judged: Judged,
    evidence: Mapping[str, Dataset],
    mask: Mask | None,
    segment: sr.ReferencedSegment | None,
    count: int,
) -> Dataset:
    finding = judged.finding
    entry = finding_code(finding.condition)
    corrected = None if task.sign_off is None else task.sign_off.correction_of(finding)
    role, name = f"finding-{judged.number}", f"{entry.label} {judged.number}"
    own = count == 1  # probability, words and presence stand once
    measurements = [*(_judgement(finding) if own else ()), *(_measured(mask) if mask is not None else ())]
    evaluations = [sr.QualitativeEvaluation(_PRESENCE, _PRESENCE_VALUES[corrected or finding.presence])]
    site = place_code(mask.level) if mask is not None and mask.level else None
    side = mask.side if mask is not None else ""
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(
            uid=derived_uid(task.study_id, task.version, role if own else f"{role}-mask-{count}"),
            identifier=name if own else f"{name}.{count}",
        ),
        "finding_type": Code(entry.code, entry.scheme, entry.meaning),
        "algorithm_id": _algorithm(task, finding),
        "measurements": measurements or None,
        "qualitative_evaluations": evaluations,
    }
    if site is not None:
        laterality = LATERALITY.get(site.laterality or side)
        common["finding_sites"] = [sr.FindingSite(Code(site.code, "SCT", site.meaning), laterality=laterality)]
    elif side:
        evaluations.append(sr.QualitativeEvaluation(codes.SCT.Laterality, LATERALITY[side]))
    group: sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    if segment is not None:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    else:
        source = evidence.get(finding.instance_sha256)
        images = None
        if source is not None and is_image(source):
            images = [sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)]
        group = sr.MeasurementsAndQualitativeEvaluations(source_images=images, **common)
    lines = [judged.said.text, *judged.said.annotations] if own else []
    if own and corrected is not None:
        lines.append(f"Presence {words.correction(finding, task.sign_off)}; the software: {finding.presence}.")
    if mask is not None:
        lines.append(f"Measured on the mask: {words.measures(mask)}")
    group[0].ContentSequence.extend(text_item(words.printable(line, 4000)) for line in lines if line.strip())
    item: Dataset = group[0]
    return item


def _judgement(finding: Finding) -> Iterator[sr.Measurement]:
    yield sr.Measurement(name=_PROBABILITY, value=round(finding.probability, 4), unit=_NO_UNITS, derivation=None)


def _measured(mask: Mask) -> Iterator[sr.Measurement]:
    """Yield what was measured on a mask: longest diameter or depth of its largest piece in mm, volume in mm³."""
    if mask.size_mm is not None:
        yield sr.Measurement(
            name=codes.SCT.Depth if mask.size_is == "depth" else codes.SCT.LongAxis,
            value=round(mask.size_mm, 1),
            unit=codes.UCUM.Millimeter,
            derivation=codes.SCT.Maximum,
        )
    if mask.volume_mm3 is not None:
        yield sr.Measurement(name=codes.SCT.Volume, value=round(mask.volume_mm3, 1), unit=codes.UCUM.CubicMillimeter)


def _algorithm(task: RenderTask, finding: Finding) -> sr.AlgorithmIdentification | None:
    model = _model_of(task.models, finding.model)
    if model is None:
        return None
    parameters = [f"manifest sha256 {model.digest}", f"threshold {finding.threshold:.4f}"]
    if model.adapter is not None:
        parameters.append(f"adapter {model.adapter.name} {model.adapter.version} sha256 {model.adapter.digest}")
    return sr.AlgorithmIdentification(name=f"{model.plugin}/{model.name}", version=model.version, parameters=parameters)


def _model_of(models: Sequence[ModelRef], slot: str) -> ModelRef | None:
    """Return the model of a slot, or the only one there is; a wrong attribution is worse than none."""
    named = [model for model in models if model.slot == slot]
    if len(named) == 1:
        return named[0]
    return models[0] if len(models) == 1 and not slot else None


# ---------------------------------------------------------------- items of the content tree


def is_image(item: Dataset) -> bool:
    """Return whether an item of type IMAGE may refer to it; plans, doses and reports stand in the evidence only."""
    return "Image Storage" in UID(item.SOPClassUID).name


def container(name: Code) -> sr.ContainerContentItem:
    """Return an empty container."""
    result = sr.ContainerContentItem(name=name, relationship_type=CONTAINS)
    result.ContentSequence = sr.ContentSequence()
    return result


def text_item(value: str, name: Code | None = None) -> sr.TextContentItem:
    """Return a text; a comment if nothing else is said."""
    return sr.TextContentItem(name=name or codes.DCM.Comment, value=value or "–", relationship_type=CONTAINS)
