"""A quarantined file beside the object that it contradicts: what differs, so that a person can decide.

Both are read by a parser child of its own, as any file is; pixels are compared as bytes and never decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from clinic_ai.domain import Fate, Instance, InstanceHeader, PatientIdentity
from clinic_ai.errors import Conflict, InputError
from clinic_ai.ingest import undecided
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings
from clinic_ai.store import groups, ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import ParsedFile

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
"""Transfer syntaxes that write the same pixels as the same bytes: little endian, implicit and explicit VR."""

_COMPARED = {
    "sop_class_uid": "SOPClassUID",
    "transfer_syntax_uid": "TransferSyntaxUID",
    "series_instance_uid": "SeriesInstanceUID",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "view_position": "ViewPosition",
    "laterality": "Laterality",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "study_date": "StudyDate",
    "station_name": "StationName",
    "manufacturer": "Manufacturer",
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "rows": "Rows",
    "columns": "Columns",
    "frames": "NumberOfFrames",
    "bits_stored": "BitsStored",
    "photometric": "PhotometricInterpretation",
}
_IDENTITY = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "accession_number": "AccessionNumber",
}


class Pixels(StrEnum):
    """Whether the image data of two objects are the same."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """Compressed differently, or there is nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    """What differs between a quarantined file and what it contradicts; ``differing`` are DICOM keywords.

    ``stored`` is None if it contradicts the study and no single object of it.
    """

    arrived: Instance
    stored: Instance | None
    differing: tuple[str, ...]
    pixels: Pixels

    @property
    def sentence(self) -> str:
        """What a person has to know first."""
        if self.stored is None:
            return f"It is not of the patient of its study: {', '.join(self.differing)} differ."
        header = ", ".join(self.differing) or "nothing that is shown here"
        match self.pixels:
            case Pixels.SAME:
                return f"The pixels are the same, byte by byte; of the header differs: {header}."
            case Pixels.DIFFERENT:
                return f"The pixels differ; of the header differs: {header}."
            case _:
                return f"Whether the pixels differ only decoding could tell; of the header differs: {header}."


class Comparer:
    """Compares quarantined files with what they contradict, one at a time."""

    def __init__(
        self,
        *,
        crew: Crew,
        database: Database,
        objects: ObjectStore,
        quarantine: Quarantine,
        settings: Callable[[], IngestSettings],
    ) -> None:
        self._crew = crew
        self._database = database
        self._objects = objects
        self._quarantine = quarantine
        self._settings = settings
        self._one = threading.Lock()

    def compare(self, file_id: int) -> Comparison:
        """Return how a quarantined file differs from what it contradicts.

        Raise NotFound if there is no such file, Conflict if it contradicts nothing, InputError if it cannot be
        read, ChildError if no parser can be started.
        """
        with self._database.read() as connection:
            entry = ledger.get_file(connection, file_id)
        held = entry.fate is Fate.QUARANTINED and self._quarantine.holds(file_id, entry.seen_at)
        if entry.study_id is None or entry.reason_code not in undecided.CONFLICTS or not held:
            raise Conflict(
                f"File {file_id} does not contradict a study, or it is not in quarantine.",
                remedy=f"`clinic-ai file show {file_id}` says where it stands.",
            )
        with self._one:
            reader = HeaderReader(self._crew)
            try:
                arrived = self._read(reader, file_id, entry.seen_at)
                header = _header(arrived)
                with self._database.read() as connection:
                    whose = studies.get_study(connection, entry.study_id).identity
                    stored = groups.instance_by_uid(connection, entry.study_id, header.sop_instance_uid)
                kept = None
                if stored is not None and self._objects.has(stored.sha256):
                    path = self._objects.path(stored.sha256)
                    kept = reader.read([path], self._settings(), digest=True)[0]
            finally:
                reader.close()
        instance = Instance(sha256=entry.sha256 or "", size_bytes=entry.size_bytes, header=header)
        if stored is None:
            return Comparison(instance, None, _different_people(header.identity, whose), Pixels.UNKNOWN)
        differing = (
            *(word for field, word in _COMPARED.items() if getattr(header, field) != getattr(stored.header, field)),
            *_different_people(header.identity, stored.header.identity),
        )
        return Comparison(instance, stored, differing, _pixels(arrived, kept))

    def _read(self, reader: HeaderReader, file_id: int, seen_at: float) -> ParsedFile:
        return reader.read([self._quarantine.file(file_id, seen_at)], self._settings(), digest=True)[0]


def _header(parsed: ParsedFile) -> InstanceHeader:
    if parsed.header is None:
        problem = parsed.problem
        raise InputError(
            problem.code if problem else "unreadable",
            f"It cannot be compared: {problem.sentence if problem else 'its header could not be read.'}",
            remedy="Discard it, or accept it to have it judged again.",
        )
    return parsed.header


def _different_people(one: PatientIdentity, other: PatientIdentity) -> tuple[str, ...]:
    """Return the keywords in which two identities differ; never the values, which not everybody may see."""
    return tuple(word for field, word in _IDENTITY.items() if getattr(one, field) != getattr(other, field))


def _pixels(one: ParsedFile, other: ParsedFile | None) -> Pixels:
    if other is None or one.header is None or other.header is None or not one.pixels or not other.pixels:
        return Pixels.UNKNOWN
    syntaxes = {one.header.transfer_syntax_uid, other.header.transfer_syntax_uid}
    native = syntaxes <= _NATIVE
    if one.pixels == other.pixels and (native or len(syntaxes) == 1):
        return Pixels.SAME
    return Pixels.DIFFERENT if native else Pixels.UNKNOWN
