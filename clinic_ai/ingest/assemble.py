"""Instances become studies: what belongs together, what was there already, what contradicts what was there.

Everything here is a pure function of what arrived and what is known; ``intake`` does the reading and writing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from clinic_ai.domain import FileDecision, FileKind, InstanceHeader, PatientIdentity
from clinic_ai.ingest.identifiers import beside_another
from clinic_ai.tasks import Problem

_GENERAL = {
    "CR",
    "CT",
    "DX",
    "ES",
    "GM",
    "IO",
    "IVUS",
    "MG",
    "MR",
    "NM",
    "OT",
    "PT",
    "PX",
    "RF",
    "RG",
    "SM",
    "TG",
    "US",
}
_HEART_AND_VESSELS = {"ECG", "EPS", "HD", "IVOCT", "XA"}
_EYE = {"AR", "LEN", "OAM", "OCT", "OP", "OPM", "OPT", "OPV"}
_OTHER = {"AU", "BDUS", "BI", "BMD", "DG", "LS", "VA", "XC"}
MODALITIES = frozenset(_GENERAL | _HEART_AND_VESSELS | _EYE | _OTHER)
"""Defined terms of Modality (0008,0060) that a folder may be named after."""

SAME_UID = "same_uid_other_bytes"
OTHER_PATIENT = "other_patient"
"""Codes of the contradictions that a person decides."""
SAME_OBJECT = "same_object"
IN_QUARANTINE = "in_quarantine"
NOT_KEPT = frozenset({SAME_OBJECT, IN_QUARANTINE})
"""Codes of duplicates whose own bytes are kept nowhere: the study has their data set, the quarantine the bytes."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}")


@dataclass(frozen=True)
class Arrival:
    """A file that was read. ``folder`` is the one it lay in below its inbox, for people and for grouping."""

    file_id: int
    sha256: str
    size_bytes: int
    source: str
    folder: str
    header: InstanceHeader
    priority: int = 0
    decision: FileDecision | None = None
    """What a person decided about it, if it comes out of the quarantine."""


@dataclass(frozen=True)
class Known:
    """What the store has of one study already, as far as it concerns the arrivals.

    ``hashes`` are of all objects it ever had, ``uids`` of those it has now.
    """

    hashes: frozenset[str] = frozenset()
    uids: frozenset[str] = frozenset()
    identity: PatientIdentity = field(default_factory=PatientIdentity)


@dataclass(frozen=True)
class Sorted:
    """What becomes of the arrivals of one study."""

    new: list[Arrival] = field(default_factory=list)
    duplicates: list[Arrival] = field(default_factory=list)
    conflicts: list[tuple[Arrival, Problem]] = field(default_factory=list)
    replacing: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the new object that takes the place of the one with this SOP Instance UID."""


def with_folder_hints(header: InstanceHeader, folder: str, modality: str, body_part: str) -> InstanceHeader:
    """Complete the header of a PNG or JPEG from its folders, ``…/<MODALITY>/<BODY_PART>/…``, else from its inbox."""
    if header.kind is FileKind.DICOM:
        return header
    parts = [part.upper() for part in folder.split("/")]
    at = next((index for index, part in enumerate(parts) if part in MODALITIES), None)
    if at is not None:
        modality = parts[at]
        if at + 1 < len(parts) and _CODE.fullmatch(parts[at + 1]):
            body_part = parts[at + 1]
    return header.model_copy(update={"modality": modality, "body_part": body_part})


def grouping_key(arrival: Arrival) -> str:
    """Return the key that all instances of one study share."""
    header = arrival.header
    if header.kind is not FileKind.DICOM:
        return f"image:{arrival.source}:{header.modality}:{header.body_part}:{arrival.sha256}"
    if header.study_instance_uid:
        return f"dicom:{header.study_instance_uid}"
    # Without a UID never two patients or days together: by series, of which one is of one study, else by folder.
    # Hashed, as it holds what names a patient.
    who = header.identity.model_dump(exclude={"sex"})
    if header.series_instance_uid:
        return f"series:{_hashed(header.series_instance_uid, who['patient_id'], header.study_date)}"
    return f"folder:{_hashed(arrival.source, arrival.folder, header.study_date, *who.values())}"


def nameless(header: InstanceHeader) -> bool:
    """Return whether an object names neither study nor series nor patient nor day: only its folder says anything."""
    said = (header.study_instance_uid, header.series_instance_uid, header.study_date)
    return header.kind is FileKind.DICOM and not any((*said, *header.identity.model_dump(exclude={"sex"}).values()))


def _hashed(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


ONE_IMAGE = "one image file is one study"
"""Why the study of a PNG or JPEG is complete at once."""


def group(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    """Return the arrivals by grouping key, in the order they came."""
    groups: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        groups.setdefault(grouping_key(arrival), []).append(arrival)
    return groups


def sort_out(arrivals: Sequence[Arrival], known: Known) -> Sorted:
    """Say what becomes of each arrival of one study: new, the same bytes again, or a contradiction."""
    result = Sorted()
    hashes, uids, identity = set(known.hashes), set(known.uids), known.identity
    for arrival in arrivals:
        header = arrival.header
        if arrival.sha256 in hashes:
            result.duplicates.append(arrival)
            continue
        # The patient first: whatever a person decides about a UID, two patients are never put into one study.
        if other_patient(identity, header.identity):
            result.conflicts.append((arrival, _OTHER_PATIENT))
            continue
        uid = header.sop_instance_uid
        if uid and uid in uids:
            if arrival.decision is FileDecision.REPLACE:
                result.replacing[uid] = arrival.sha256
            elif arrival.decision is FileDecision.BOTH:
                arrival = replace(arrival, header=beside_another(header, arrival.sha256))  # noqa: PLW2901
            else:
                result.conflicts.append((arrival, _SAME_UID))
                continue
        result.new.append(arrival)
        hashes.add(arrival.sha256)
        uids.add(uid)
        identity = merged_identity(identity, [arrival])
    return result


def other_patient(one: PatientIdentity, other: PatientIdentity) -> bool:
    """Return whether two headers of one study are of different patients.

    A Patient ID decides where both have one: names are spelt in many ways. Where one has none, another birth date,
    another sex or a name without a part in common is another patient; nothing said contradicts nothing.
    """
    if one.patient_id and other.patient_id:
        return one.patient_id != other.patient_id
    names = _parts(one.patient_name), _parts(other.patient_name)
    return (
        (one.birth_date != other.birth_date and bool(one.birth_date and other.birth_date))
        or {one.sex.upper(), other.sex.upper()} == {"F", "M"}
        or (all(names) and names[0].isdisjoint(names[1]))
    )


def _parts(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[\^=\s,]+", name.casefold())) - {""}


def merged_identity(identity: PatientIdentity, arrivals: Iterable[Arrival]) -> PatientIdentity:
    """Return the identity with what it left empty filled from the arrivals.

    Where headers differ, as in the spelling of a name, the alphabetically first counts: the same whatever came first.
    """
    every = [identity, *(arrival.header.identity for arrival in arrivals)]
    values = {field: [getattr(one, field) for one in every] for field in PatientIdentity.model_fields}
    return PatientIdentity(**{field: min(filter(None, found), default="") for field, found in values.items()})


_SAME_UID = Problem(
    code=SAME_UID,
    sentence="The study has an object with this SOP Instance UID already, and its bytes are different.",
    remedy="Compare the two with `clinic-ai file show`; then a clinician accepts this one (--replace or --both) "
    "or discards it.",
)
_OTHER_PATIENT = Problem(
    code=OTHER_PATIENT,
    sentence="It names another patient (Patient ID, or where one has none: name, birth date or sex) than the other "
    "objects with its Study Instance UID.",
    remedy="Find out at the sender whose images these are; then a clinician accepts it (--own-study) or discards it "
    "and the study is sent again.",
)
