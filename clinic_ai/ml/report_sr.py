"""The report for systems: a Comprehensive SR after TID 1500 (PS3.16), preliminary and unverified.

Each released finding is a measurement group (TID 1501): its code, whether it is present, the calibrated
probability, the model, the image, and the released words. Everything else that was released, the marks of the
guard, the policy and the software stand as text.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from clinic_ai.domain import Released, ReportSection
from clinic_ai.domain.reviews import SignOff
from clinic_ai.errors import InputError
from clinic_ai.ml import report_text as words
from clinic_ai.ml.dicom_common import CHARACTER_SET, MANUFACTURER, name_value, short_text, stamp
from clinic_ai.ml.report_seg import Written
from clinic_ai.ml.sr_groups import CONTAINS, Judged, container, groups, is_image, text_item
from clinic_ai.ml.uids import derived_uid, is_uid
from clinic_ai.results.statements import parted
from clinic_ai.tasks import RenderImage, RenderTask

SERIES_NUMBER = 9901
SERIES_DESCRIPTION = "AI result, preliminary"
SIGNED_SERIES_NUMBER = 9902
SIGNED_SERIES_DESCRIPTION = "AI result, reviewed and signed"

_ENGLISH = sr.CodedConcept("en-US", "RFC5646", "English (United States)")
_SOURCE = Code("260753009", "SCT", "Source")
_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
_IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_SECTIONS: dict[ReportSection, tuple[Code, Code]] = {
    "findings": (Code("121070", "DCM", "Findings"), Code("121071", "DCM", "Finding")),
    "impression": (Code("121072", "DCM", "Impressions"), Code("121073", "DCM", "Impression")),
    "recommendations": (Code("121074", "DCM", "Recommendations"), Code("121075", "DCM", "Recommendation")),
}
"""Codes of the heading and of each sentence of a section."""


class _Report(sr.ComprehensiveSR):
    """highdicom knows which attributes to copy from the SOP classes of today; we bring them along instead.

    A source of a retired or private SOP class must not cost the report.
    """

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Leave patient and study as they are; ``write_sr`` sets them."""


def evidence_of(image: RenderImage, study: Dataset) -> Dataset | None:
    """Return a source image as an SR may refer to it, or None if its UIDs do not allow that."""
    header = image.header
    uids = (header.sop_class_uid, header.sop_instance_uid, header.series_instance_uid)
    if header.study_instance_uid != study.StudyInstanceUID or not all(map(is_uid, uids)):
        return None
    result = deepcopy(study)
    result.PatientName = ""  # highdicom warns on standard error, in full, about names with one component
    result.SOPClassUID, result.SOPInstanceUID, result.SeriesInstanceUID = uids
    result.Modality = short_text(header.modality, 16) or "OT"
    result.Rows, result.Columns = header.rows, header.columns
    return result


def write_sr(
    task: RenderTask,
    study: Dataset,
    evidence: dict[str, Dataset],
    directory: Path,
    written: Sequence[Written] = (),
) -> None:
    """Write ``report.sr.dcm`` into the patient and study of ``study``.

    ``evidence`` maps an image's SHA-256 to the object the SR refers to; the reference counts, not its pixels. What was
    ``written`` of segmentation objects the measurements refer to.

    Raise InputError if there is nothing to refer to: an SR without evidence belongs to no study.
    """
    if not evidence:
        raise InputError("no_evidence", "No image of the study has UIDs that a structured report could refer to.")
    sign = task.sign_off
    series, instance = sr_uids(task, 0 if sign is None else sign.revision)
    document = _Report(
        evidence=[*evidence.values(), *(made.evidence for made in written)],
        content=_content(task, evidence, written),
        series_instance_uid=series,
        series_number=SERIES_NUMBER if sign is None else SIGNED_SERIES_NUMBER,
        sop_instance_uid=instance,
        instance_number=task.version if sign is None else sign.revision,
        manufacturer=MANUFACTURER,
        is_complete=sign is not None,
        is_final=sign is not None,
        is_verified=False,  # set below, with the moment of the signature and not the rendering's
        specific_character_set=CHARACTER_SET,
    )
    document.update(study)
    if sign is None:
        stamp(document, task, SERIES_DESCRIPTION)
    else:
        stamp(document, task, SIGNED_SERIES_DESCRIPTION, at=sign.at)
        _verify(document, task, sign)
    document.CompletionFlagDescription = short_text(words.status_line(sign).replace("–", "-"), 64)
    document.save_as(directory / "report.sr.dcm", enforce_file_format=True)


def sr_uids(task: RenderTask, revision: int) -> tuple[str, str]:
    """Return the UIDs of series and report of a revision of the task's study version; 0 is the software's own."""
    role = f"-signed-{revision}" if revision else ""
    series = "-signed" if revision else ""
    return (
        derived_uid(task.study_id, task.version, f"sr{series}-series"),
        derived_uid(task.study_id, task.version, f"sr{role}"),
    )


def _verify(document: Dataset, task: RenderTask, sign: SignOff) -> None:
    """Name who verified it and when, and the report it takes the place of (PS3.3 C.17.2)."""
    observer = Dataset()
    observer.VerifyingObserverName = name_value(sign.name)
    observer.VerifyingOrganization = short_text(task.institution, 64) or "Institution not set"
    observer.VerificationDateTime = time.strftime("%Y%m%d%H%M%S", time.localtime(sign.at))
    observer.VerifyingObserverIdentificationCodeSequence = []
    document.VerificationFlag = "VERIFIED"
    document.VerifyingObserverSequence = [observer]
    if sign.replaces is None:
        return
    series, instance = sr_uids(task, sign.replaces)
    referenced, in_series, in_study = Dataset(), Dataset(), Dataset()
    referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID = document.SOPClassUID, instance
    in_series.SeriesInstanceUID, in_series.ReferencedSOPSequence = series, [referenced]
    in_study.StudyInstanceUID, in_study.ReferencedSeriesSequence = document.StudyInstanceUID, [in_series]
    document.PredecessorDocumentsSequence = [in_study]


# ---------------------------------------------------------------- the content tree


def _content(task: RenderTask, evidence: dict[str, Dataset], written: Sequence[Written]) -> Dataset:
    # Built here and not by highdicom.sr.MeasurementReport, which refuses a report without measurements.
    root = sr.ContainerContentItem(name=codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = sr.ContentSequence()
    parts = root.ContentSequence
    parts.extend(sr.LanguageOfContentItemAndDescendants(_ENGLISH))
    parts.extend(_observer(task))
    parts.append(
        sr.CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=_IMAGING_PROCEDURE,
            relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    images = [item for item in evidence.values() if is_image(item)]
    if images:
        parts.append(_image_library(images))
    released = parted(task.findings, task.verdict).findings if words.shows_numbers(task.verdict) else ()
    if released:
        measurements = container(codes.DCM.ImagingMeasurements)
        places = {id(finding): place for place, finding in enumerate(task.findings)}
        for number, (finding, said) in enumerate(released, start=1):
            judged = Judged(number, places[id(finding)], finding, said)
            measurements.ContentSequence.extend(groups(task, judged, evidence, written))
        parts.append(measurements)
    parts.extend(_written(section, said) for section, said in parted(task.findings, task.verdict).report)
    texts = container(_EVALUATIONS)
    texts.ContentSequence.extend(text_item(line) for line in _lines(task))
    parts.append(texts)
    return root


def _written(section: ReportSection, said: Sequence[Released]) -> sr.ContainerContentItem:
    """Return a section of the written report, a sentence an item (CID 7001, CID 7002)."""
    heading, each = _SECTIONS[section]
    result = container(heading)
    for sentence in said:
        result.ContentSequence.append(text_item(words.printable(sentence.text, 4000), each))
        result.ContentSequence.extend(text_item(words.printable(note, 4000)) for note in sentence.annotations)
    return result


def _observer(task: RenderTask) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", 1, task.software),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=short_text(task.software, 64) or MANUFACTURER,
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _image_library(evidence: Sequence[Dataset]) -> sr.ContainerContentItem:
    """Return TID 1600 with plain references: what the images are is in the images."""
    library, group = container(codes.DCM.ImageLibrary), container(codes.DCM.ImageLibraryGroup)
    group.ContentSequence.extend(
        sr.ImageContentItem(
            name=_SOURCE,
            referenced_sop_class_uid=item.SOPClassUID,
            referenced_sop_instance_uid=item.SOPInstanceUID,
            relationship_type=CONTAINS,
        )
        for item in evidence
    )
    library.ContentSequence.append(group)
    return library


def _lines(task: RenderTask) -> Iterator[str]:
    verdict = task.verdict
    yield words.status_line(task.sign_off)
    yield words.origin_line(task.sign_off)
    yield from (words.printable(mark, 500) for mark in verdict.marks)
    released = parted(task.findings, verdict)
    findings = () if words.shows_numbers(verdict) else released.findings
    for said in (*(worded for _, worded in findings), *released.others):
        yield from (words.printable(line, 4000) for line in (said.text, *said.annotations))
    yield from words.guard_lines(verdict)
    yield from (words.model_line(model) for model in task.models)
    yield from (words.printable(label) for label in task.plugin_labels)
    yield f"Policy {words.printable(verdict.policy_name)}, sha256 {verdict.policy_hash}"
    yield f"Study {task.study_id}, version {task.version}"
    yield from (words.printable(remark, 500) for remark in task.remarks)
    yield words.printable(task.software)
