"""UIDs for what came without: a study, series or object is then known by UIDs of the appliance's own (PS3.5 B.2).

They follow from what the object is, so that a resend, another order of arrival or another try gives the same ones.
The stored bytes are never changed; only the header as the appliance knows it has them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from clinic_ai.domain import FileKind, Instance, InstanceHeader, OwnUid

_NAMESPACE = uuid.UUID("0d8b7c1e-4f3a-5b62-8a90-6a5f0c2d9e41")
_ORIENTATION_DIGITS = 1
"""Cosines told apart within one folder: 0.1, or six degrees. Stacks of one series are sorted more finely later."""
_PATIENT = ":patient:"


def own_uid(kind: str, *parts: str) -> str:
    """Return the UID under 2.25 that follows from these parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, repr((kind, *parts))).int}"


def study_uid(header: InstanceHeader, key: str) -> str:
    """Return the Study Instance UID of the study with this grouping key: the object's own, or one of ours."""
    return header.study_instance_uid if key == f"dicom:{header.study_instance_uid}" else own_uid("study", key)


def key_for_patient(key: str, patient_id: str) -> str:
    """Return the grouping key of a study that a person took apart from the one with ``key``, by its patient.

    The number is hashed: no key may hold it.
    """
    return f"{key}{_PATIENT}{hashlib.sha256(patient_id.encode()).hexdigest()}"


def with_own_uids(header: InstanceHeader, key: str, sha256: str) -> InstanceHeader:
    """Return the header with UIDs of our own where it has none, or where its study is not the one it names.

    ``key`` is the grouping key of its study, ``sha256`` the hash of its bytes. A PNG or JPEG needs no UIDs.
    """
    if header.kind is not FileKind.DICOM:
        return header
    changes: dict[str, str] = {}
    why: list[OwnUid] = []
    if (uid := study_uid(header, key)) != header.study_instance_uid:
        changes["study_instance_uid"] = uid
        why.append("study_of_other_patient" if _PATIENT in key and header.study_instance_uid else "no_study_uid")
    if not header.series_instance_uid:
        changes["series_instance_uid"] = own_uid("series", key, repr(_likeness(header)))
        why.append("no_series_uid")
    if not header.sop_instance_uid:
        changes["sop_instance_uid"] = own_uid("object", sha256)
        why.append("no_object_uid")
    return header.model_copy(update={**changes, "own_uids": (*header.own_uids, *why)}) if why else header


def beside_another(header: InstanceHeader, sha256: str) -> InstanceHeader:
    """Return the header of an object that a person kept beside another one with its SOP Instance UID."""
    return header.model_copy(
        update={
            "sop_instance_uid": own_uid("object", sha256),
            "own_uids": (*header.own_uids, "uid_of_other_object"),
        }
    )


def _likeness(header: InstanceHeader) -> tuple[object, ...]:
    """Return what images of one series have in common, where no UID says which series it is.

    Of the plane its direction, pixel spacing and thickness; not its position, in which slices differ.
    """
    plane = header.geometry
    orientation = plane.image_orientation_patient if plane else None
    return (
        header.modality,
        header.series_number,
        header.series_description,
        header.rows,
        header.columns,
        # + 0.0 turns -0.0 into 0.0
        None if orientation is None else tuple(round(cosine, _ORIENTATION_DIGITS) + 0.0 for cosine in orientation),
        plane.pixel_spacing if plane else None,
        plane.slice_thickness if plane else None,
        plane.image_type if plane else (),
    )


# ---------------------------------------------------------------- in words


def remarks_of(instances: Sequence[Instance], replaced: int) -> tuple[str, ...]:
    """Return what has to be said of a study version whose UIDs are not all the sender's, in sentences for its report.

    ``replaced`` counts the objects that a person replaced for this version. No sentence holds a header's value.
    """
    counts = Counter(why for instance in instances for why in instance.header.own_uids)
    series = {i.header.series_instance_uid for i in instances if "no_series_uid" in i.header.own_uids}
    sentences = [_SENTENCES[why].format(_images(counts[why]), len(series)) for why in get_args(OwnUid) if counts[why]]
    if replaced:
        by = "another one" if replaced == 1 else "others"
        sentences.append(f"{_images(replaced)} replaced by {by} with the same SOP Instance UID; a person decided so.")
    return tuple(sentences)


def _images(count: int) -> str:
    return "1 object was" if count == 1 else f"{count} objects were"


_SENTENCES: dict[OwnUid, str] = {
    "no_study_uid": "{0} sent without a Study Instance UID and put together by series, or by folder, patient and day.",
    "no_series_uid": "{0} sent without a Series Instance UID and sorted into series ({1}) by number, description, size "
    "and orientation.",
    "no_object_uid": "{0} sent without a SOP Instance UID; references to them use a UID of this appliance.",
    "uid_of_other_object": "{0} sent with the SOP Instance UID of another one; a person kept both, and references "
    "use a UID of this appliance.",
    "study_of_other_patient": "{0} sent with the Study Instance UID of another patient's study; a person decided "
    "that this is a study of its own.",
}
