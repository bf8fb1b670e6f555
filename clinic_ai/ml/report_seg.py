"""Masks for systems: DICOM Segmentation objects (PS3.3 A.51, binary), voxel for voxel on the images as they arrived.

Only segments whose findings the guard released are in them. What the source images are is taken from their parsed
headers; no other element of them is copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as SegmentationObject
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from clinic_ai.domain import ModelRef, PlaneGeometry, Segmentation
from clinic_ai.errors import InputError
from clinic_ai.ml import report_text as words
from clinic_ai.ml.dicom_common import MANUFACTURER, short_text, stamp
from clinic_ai.ml.outlines import Drawn
from clinic_ai.ml.segmentations import unpacked
from clinic_ai.ml.uids import derived_uid, is_uid
from clinic_ai.results.anatomy import table as anatomy
from clinic_ai.results.codes import table as conditions
from clinic_ai.tasks import RenderImage, RenderTask

SERIES_NUMBER = 9903
SIGNED_SERIES_NUMBER = 9904
SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.66.4"
MAX_VOXELS = 450_000_000
"""Most voxels, segments times slices times rows times columns, of one object: highdicom takes ten bytes for each."""
LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right, "bilateral": codes.SCT.Bilateral}
_ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure


@dataclass(frozen=True)
class Written:
    """A segmentation object that was written: what others need to refer to its segments."""

    name: str
    evidence: Dataset
    numbers: Mapping[tuple[str, str], int]
    """Numbers of its segments, by plugin and name of the finding."""
    source_series_uid: str
    """Series of the images it lies on."""


def portions(drawn: Drawn) -> list[Drawn]:
    """Return the segments parted into as many objects as they need, none of them too large to be made."""
    voxels = len(drawn.segmentation.slices) * drawn.segmentation.rows * drawn.segmentation.columns
    most = max(1, MAX_VOXELS // voxels)
    parts = range(0, len(drawn.segments), most)
    return [Drawn(drawn.segmentation, drawn.segments[at : at + most], drawn.plugin) for at in parts]


def _shown_slices(drawn: Drawn) -> Drawn:
    """Return the same without slices that show nothing: they need be neither held in memory nor referred to."""
    used = np.zeros(len(drawn.segmentation.slices), dtype=bool)
    for _, packed in drawn.segments:
        used |= packed.any(axis=(1, 2))
    places = np.flatnonzero(used)
    kept = drawn.segmentation.model_copy(update={"slices": tuple(drawn.segmentation.slices[at] for at in places)})
    return Drawn(kept, tuple((segment, packed[places]) for segment, packed in drawn.segments), drawn.plugin)


def write_seg(task: RenderTask, drawn: Drawn, number: int, study: Dataset, directory: Path, name: str) -> Written:
    """Write the ``number``-th segmentation object of the task into the patient and study of ``study``.

    Raise InputError if the images it lies on cannot be referred to.
    """
    drawn = _shown_slices(drawn)
    sources = _sources(task, drawn.segmentation, study)
    sign = task.sign_off
    revision = 0 if sign is None else sign.revision
    signed = f"-signed-{revision}" if revision else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom names values of the source, and positions that are not regular
        made = SegmentationObject(
            source_images=sources,
            pixel_array=_stacked(task, drawn),
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(task, drawn, at) for at in range(len(drawn.segments))],
            series_instance_uid=derived_uid(task.study_id, task.version, f"seg{signed}-series"),
            series_number=SERIES_NUMBER if sign is None else SIGNED_SERIES_NUMBER,
            sop_instance_uid=derived_uid(task.study_id, task.version, f"seg-{number}{signed}"),
            instance_number=number,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=short_text(task.software, 64),
            device_serial_number="1",
            content_description=_standing(task),
            content_label="SEGMENTATION",
        )
    made.update(study)
    stamp(made, task, short_text(f"AI segmentation{_caution(task)}", 64), at=None if sign is None else sign.at)
    made.ImageComments = "\n".join([words.status_line(sign), *task.verdict.marks])[:10_000].replace("\\", "/")
    _settle(made, derived_uid(task.study_id, task.version, f"seg-{number}{signed}-dimensions"))
    made.save_as(directory / name, enforce_file_format=True)
    evidence = deepcopy(study)
    evidence.PatientName = ""
    evidence.SOPClassUID, evidence.SOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    evidence.SeriesInstanceUID, evidence.Modality = made.SeriesInstanceUID, "SEG"
    evidence.Rows, evidence.Columns = made.Rows, made.Columns
    return Written(
        name=name,
        evidence=evidence,
        numbers={
            (drawn.plugin, segment.name): at
            for at, (segment, _) in enumerate(drawn.segments, start=1)
            if segment.role == "finding"
        },
        source_series_uid=sources[0].SeriesInstanceUID,
    )


def _settle(made: Dataset, uid: str) -> None:
    """Give the dimensions a UID that is the same when the object is made again; highdicom draws one."""
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in made.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid


def _standing(task: RenderTask) -> str:
    """Return how far it may be trusted; nothing but a signed report of validated models has no mark."""
    if any(model.reference for model in task.models):
        return "Investigational: by a reference model, not for diagnosis"
    return f"Made by software{_caution(task)}"


def _caution(task: RenderTask) -> str:
    return ", not for diagnosis" if task.verdict.marks else ""


# ---------------------------------------------------------------- the images it lies on


def _sources(task: RenderTask, segmentation: Segmentation, study: Dataset) -> list[Dataset]:
    """Return what the object says of its source: one data set for each slice, or one for all frames of an object.

    Raise InputError if the slices are neither, or an image says not enough of where it lies.
    """
    images = {image.sha256: image for image in task.images}
    files = dict.fromkeys(ref.sha256 for ref in segmentation.slices)
    if any(sha256 not in images for sha256 in files):
        raise InputError("no_such_image", "It is about images that are not in the study.")
    first = images[next(iter(files))].header
    for sha256 in files:
        header = images[sha256].header
        if (header.rows, header.columns) != (segmentation.rows, segmentation.columns):
            raise InputError("other_size", "Its masks have another size than the images.")
        if header.series_instance_uid != first.series_instance_uid:
            raise InputError("several_series", "It is about images of several series.")
    if len(files) == 1 and first.frames > 1:
        return [_enhanced(images[next(iter(files))], study)]
    if len(files) != len(segmentation.slices) or any(images[sha256].header.frames > 1 for sha256 in files):
        raise InputError("several_files", "It is about several files with several frames each.")
    return [_single(images[sha256], study) for sha256 in files]


def _base(image: RenderImage, study: Dataset) -> tuple[Dataset, PlaneGeometry]:
    header = image.header
    geometry = header.geometry
    uids = (header.sop_class_uid, header.sop_instance_uid, header.series_instance_uid)
    if header.study_instance_uid != study.StudyInstanceUID or not all(map(is_uid, uids)):
        raise InputError("no_uids", "An image it is about has no valid UIDs.")
    if geometry is None or geometry.pixel_spacing is None or not is_uid(geometry.frame_of_reference_uid):
        raise InputError("no_geometry", "An image it is about does not say where it lies in the patient.")
    result = deepcopy(study)
    result.PatientName = ""  # set in the object afterwards; highdicom warns about names with one component
    result.SOPClassUID, result.SOPInstanceUID, result.SeriesInstanceUID = uids
    result.Modality = short_text(header.modality, 16) or "OT"
    result.Rows, result.Columns = header.rows, header.columns
    result.FrameOfReferenceUID = geometry.frame_of_reference_uid
    result.PositionReferenceIndicator = ""
    return result, geometry


def _single(image: RenderImage, study: Dataset) -> Dataset:
    result, geometry = _base(image, study)
    if geometry.image_position_patient is None or geometry.image_orientation_patient is None:
        raise InputError("no_geometry", "An image it is about does not say where it lies in the patient.")
    result.ImagePositionPatient = _decimals(geometry.image_position_patient)
    result.ImageOrientationPatient = _decimals(geometry.image_orientation_patient)
    result.PixelSpacing = _decimals(geometry.pixel_spacing or ())
    result.SliceThickness = _decimals((geometry.slice_thickness,))[0] if geometry.slice_thickness else None
    return result


def _enhanced(image: RenderImage, study: Dataset) -> Dataset:
    result, geometry = _base(image, study)
    if geometry.frames_placed != "each" or len(geometry.frames) != image.header.frames:
        raise InputError("no_geometry", "An image it is about does not say where its frames lie in the patient.")
    result.NumberOfFrames = image.header.frames
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = _decimals(geometry.pixel_spacing or ())
    if geometry.slice_thickness:
        measures.SliceThickness = _decimals((geometry.slice_thickness,))[0]
    shared.PixelMeasuresSequence = [measures]
    frames = []
    for frame in geometry.frames:
        where, which, groups = Dataset(), Dataset(), Dataset()
        position = frame.image_position_patient or geometry.image_position_patient
        orientation = frame.image_orientation_patient or geometry.image_orientation_patient
        if position is None or orientation is None or orientation != _one_orientation(geometry):
            raise InputError("no_geometry", "The frames of the image it is about do not lie side by side.")
        where.ImagePositionPatient = _decimals(position)
        which.ImageOrientationPatient = _decimals(orientation)
        groups.PlanePositionSequence = [where]
        shared.PlaneOrientationSequence = [which]
        frames.append(groups)
    result.SharedFunctionalGroupsSequence = [shared]
    result.PerFrameFunctionalGroupsSequence = frames
    return result


def _one_orientation(geometry: PlaneGeometry) -> tuple[float, ...] | None:
    return geometry.frames[0].image_orientation_patient or geometry.image_orientation_patient


def _decimals(numbers: Sequence[float]) -> list[str]:
    """Return numbers as decimal strings (DS) of at most 16 characters."""
    return [f"{number:.9f}"[:16] if abs(number) < 1 else f"{number:.6f}"[:16] for number in numbers]


# ---------------------------------------------------------------- what it shows


def _stacked(task: RenderTask, drawn: Drawn) -> np.ndarray:
    """Return the masks as highdicom takes them: uint8 (slice, row, column, segment), a slice for each frame."""
    segmentation = drawn.segmentation
    refs = segmentation.slices
    frames = max(1, next(i.header.frames for i in task.images if i.sha256 == refs[0].sha256))
    places = [ref.frame for ref in refs] if frames > 1 else list(range(len(refs)))
    shape = (frames if frames > 1 else len(refs), segmentation.rows, segmentation.columns, len(drawn.segments))
    result = np.zeros(shape, dtype=np.uint8)
    for at, (_, packed) in enumerate(drawn.segments):
        for place, plane in zip(places, packed, strict=True):
            if plane.any():
                result[place, :, :, at] = unpacked(plane, segmentation.columns)
    return result


def _description(task: RenderTask, drawn: Drawn, at: int) -> SegmentDescription:
    """Return the description of a segment; label and codes are of the tables, not of the plugin."""
    segment, _ = drawn.segments[at]
    model = _model_of(task, drawn.plugin, segment.model)
    if segment.role == "finding":
        entry = conditions()[segment.name]
        label, kind, category = entry.label, Code(entry.code, entry.scheme, entry.meaning), _ABNORMAL
        side = ""
    else:
        place = anatomy()[segment.name]
        label, kind, category = place.label, Code(place.code, "SCT", place.meaning), codes.SCT.AnatomicalStructure
        side = place.laterality
    result = SegmentDescription(
        segment_number=at + 1,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=short_text(model.label() if model else f"{drawn.plugin} plugin", 64),
            family=codes.DCM.ArtificialIntelligence,
            version=short_text(model.version if model else task.software, 64),
        ),
        tracking_uid=derived_uid(task.study_id, task.version, f"segment-{drawn.plugin}-{segment.name}"),
        tracking_id=label,
    )
    result.SegmentDescription = _standing(task)
    if side:
        kinds = result.SegmentedPropertyTypeCodeSequence[0]
        modifier = Dataset()
        laterality = LATERALITY[side]
        modifier.CodeValue, modifier.CodingSchemeDesignator = laterality.value, laterality.scheme_designator
        modifier.CodeMeaning = laterality.meaning
        kinds.SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return result


def _model_of(task: RenderTask, plugin: str, slot: str) -> ModelRef | None:
    """Return the model that made a segment, or the plugin's only one; a wrong attribution is worse than none."""
    own = [model for model in task.models if model.plugin == plugin]
    named = [model for model in own if model.slot == slot]
    if len(named) == 1:
        return named[0]
    return own[0] if len(own) == 1 and not slot else None
