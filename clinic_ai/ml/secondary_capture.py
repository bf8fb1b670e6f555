"""A picture (PNG, JPEG) as a DICOM Secondary Capture object, so that a structured report can refer to it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom.dataset import Dataset

from clinic_ai.errors import InputError
from clinic_ai.ml.dicom_common import MANUFACTURER, short_text, stamp
from clinic_ai.ml.uids import derived_uid
from clinic_ai.tasks import RenderImage, RenderTask

SERIES_NUMBER = 9900
SERIES_DESCRIPTION = "Picture as it arrived"
_UNPAIRED = """
    ABDOMEN BLADDER BRAIN CHEST COCCYX CSPINE HEAD HEADNECK HEART LIVER LSPINE LSSPINE NECK PANCREAS PELVIS SKULL
    SPINE SPLEEN SSPINE STERNUM STOMACH THYROID TLSPINE TSPINE UTERUS WHOLEBODY
"""
UNPAIRED = frozenset(_UNPAIRED.split())
"""Body parts (PS3.16 annex L) that have no left and right."""
_MAX_PIXELS = 120_000_000


def write_capture(
    task: RenderTask, image: RenderImage, number: int, study: Dataset, directory: Path, name: str
) -> Dataset:
    """Write the ``number``-th picture of the study, all its pixels, and return the object.

    Raise InputError if the picture cannot be decoded or is too large.
    """
    pixels = _pixels(Path(image.path))
    capture = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB" if pixels.ndim == 3 else "MONOCHROME2",
        bits_allocated=pixels.dtype.itemsize * 8,
        coordinate_system="PATIENT",
        study_instance_uid=study.StudyInstanceUID,
        series_instance_uid=derived_uid(task.study_id, task.version, "capture-series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived_uid(task.study_id, task.version, f"capture-{image.sha256}"),
        instance_number=number,
        manufacturer=MANUFACTURER,
        patient_orientation=("L", "F"),
    )
    # Type 2C: present, and empty where the picture does not tell; highdicom takes no "unknown".
    capture.PatientOrientation = []
    part = short_text(image.header.body_part, 16).upper()
    if part in UNPAIRED:
        capture.pop("Laterality", None)  # for a part without sides it must be absent
    else:
        capture.Laterality = image.header.laterality if image.header.laterality in {"L", "R"} else ""
    capture.update(study)
    stamp(capture, task, SERIES_DESCRIPTION)
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = capture.ContentDate, capture.ContentTime
    if part:
        capture.BodyPartExamined = part
    capture.save_as(directory / name, enforce_file_format=True)
    return capture


def _pixels(path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return (rows, columns) of 8 or 16 bits, or (rows, columns, 3) of 8 bits, upright."""
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if image.width * image.height > _MAX_PIXELS:
                raise InputError("image_too_large", "The picture has too many pixels to be made into a DICOM object.")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                return np.asarray(upright).astype(np.uint16)
            grey = upright.mode in {"1", "L", "LA"}
            return np.asarray(upright.convert("L" if grey else "RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError("cannot_decode", "The picture cannot be decoded.", remedy="Export it again.") from error
