"""What arrived: a file, what its header says, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from clinic_ai.domain.questions import Code
from clinic_ai.domain.words import Sha256, Word


class FileKind(StrEnum):
    """What the bytes of a file are, by content and not by name."""

    DICOM = "dicom"
    PNG = "png"
    JPEG = "jpeg"


class PatientIdentity(Word):
    """Who the study is about, as the scanner wrote it. Kept in the database, never in a log."""

    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""


Finite = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]
"""(x, y, z) in the patient's coordinates of PS3.3 C.7.6.2.1.1: x to the left, y to the back, z to the head."""
Cosines = tuple[Finite, Finite, Finite, Finite, Finite, Finite]
"""Direction in which the columns count up (along a row), then the one in which the rows do (down a column)."""


class FramePlane(Word):
    """Where one frame of a multi-frame object lies; None where it is not said, or said for all frames at once."""

    image_position_patient: Vector | None = None
    image_orientation_patient: Cosines | None = None


class PlaneGeometry(Word):
    """Where an image lies in the patient, as its header says; None is what it does not say or says wrongly.

    Positions are of the centre of the first pixel, in mm; ``pixel_spacing`` is (between rows, between columns)
    in mm; cosines are orthonormal to within 0.001.
    """

    image_position_patient: Vector | None = None
    image_orientation_patient: Cosines | None = None
    pixel_spacing: tuple[Finite, Finite] | None = None
    slice_thickness: Finite | None = None
    gantry_detector_tilt: Finite | None = None
    """Degrees; nominal (PS3.3 C.8.2.1), so the positions are what counts."""
    frame_of_reference_uid: str = ""
    image_type: tuple[str, ...] = ()
    frames: tuple[FramePlane, ...] = ()
    """One for each frame of an enhanced object; empty for others."""
    frames_placed: Literal["", "each", "not_said", "too_many"] = ""
    """Of a multi-frame object, whether ``frames`` is there, and if not, why. Empty for one frame."""


OwnUid = Literal["no_study_uid", "no_series_uid", "no_object_uid", "uid_of_other_object", "study_of_other_patient"]
"""Why the appliance knows an object by a UID of its own and not by the one it was sent with."""


class InstanceHeader(Word):
    """What the parser child tells of one file; every text is stripped of control characters and capped.

    ``rows``, ``columns`` and ``frames`` count pixels and frames (0 where the object has no pixels).
    """

    kind: FileKind
    sop_class_uid: str = ""
    sop_class_name: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    modality: str = ""
    body_part: str = ""
    view_position: str = ""
    laterality: str = ""
    study_description: str = ""
    series_description: str = ""
    study_date: str = ""
    station_name: str = ""
    manufacturer: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 0
    bits_stored: int = 0
    photometric: str = ""
    burned_in_annotation: str = ""
    acquisition_number: int | None = None
    images_in_acquisition: int | None = None
    number_of_study_related_instances: int | None = None
    number_of_series_related_instances: int | None = None
    number_of_study_related_series: int | None = None
    """What the sender says there is in all, None if it says nothing that can be true; nothing relies on it alone."""
    requested_procedure_priority: str = ""
    study_priority_id: str = ""
    view_name: str = ""
    protocol_name: str = ""
    view_codes: tuple[Code, ...] = ()
    """Which view it is (View Code Sequence)."""
    anatomy_codes: tuple[Code, ...] = ()
    """Which part of the body it shows (Anatomic Region Sequence, Primary Anatomic Structure Sequence)."""
    geometry: PlaneGeometry | None = None
    """None for a PNG or JPEG, for an object that says nothing of the kind, and for what an older version stored."""
    identity: PatientIdentity = PatientIdentity()
    own_uids: tuple[OwnUid, ...] = ()
    """Why UIDs above are the appliance's own; ingest fills it, the bytes of the file stay as they are."""
    remarks: tuple[str, ...] = ()
    """What was odd yet survivable, in words for people."""

    @property
    def is_picture(self) -> bool:
        """Whether it has pixels; what a structured report or a waveform holds is no picture."""
        return self.kind is not FileKind.DICOM or bool(self.rows and self.columns)


class Instance(Word):
    """One stored object of a study: its bytes are the object ``sha256``."""

    sha256: Sha256
    size_bytes: int
    header: InstanceHeader
    first_version: int = 1


class Fate(StrEnum):
    """What became of a file that was seen; see ``states.FILE``. The first two are on the way."""

    CLAIMING = "CLAIMING"
    """Written before the file is moved: its bytes lie in the inbox or in the spool."""
    CLAIMED = "CLAIMED"
    """Its bytes lie in the spool, synced and hashed; or a person let it out of the quarantine, and they soon do."""
    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    """It was there already: the same bytes of the same study, the same data set, or what waits for a decision."""
    QUARANTINED = "QUARANTINED"
    DISCARDED = "DISCARDED"
    """It was quarantined, and a person decided that it is not wanted."""
    IGNORED = "IGNORED"
    """Never opened, and left where it lies: a link, a device, or a file that cannot be taken away."""
    VANISHED = "VANISHED"
    """It was seen, and not there any more when it should be taken."""

    @property
    def pending(self) -> bool:
        """Whether it is on its way."""
        return self in {Fate.CLAIMING, Fate.CLAIMED}


class FileDecision(StrEnum):
    """What a person decided about a quarantined file; all but the last let it out."""

    AGAIN = "again"
    """Judge it again: a limit was raised, or the reading got better."""
    REPLACE = "replace"
    """It takes the place of the stored object with its SOP Instance UID, in a new version of the study."""
    BOTH = "both"
    """It belongs to the study beside that object, under a SOP Instance UID of the appliance's own."""
    OWN_STUDY = "own_study"
    """It is of another patient than the study whose Study Instance UID it has: a study of its own."""
    DISCARD = "discard"
    """It is not wanted; its bytes are removed."""
