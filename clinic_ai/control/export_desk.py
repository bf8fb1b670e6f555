"""What goes out of a study to a person: originals or de-identified copies, under names of ours, and who asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from clinic_ai.control.folder_views import CopiesView, CopyRow, ExportView, NoteRow, OriginalRow
from clinic_ai.control.people import Person
from clinic_ai.control.services import Services
from clinic_ai.deidentification import BURNED_IN
from clinic_ai.domain import FileKind, Instance
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.store import audit, groups, originals, studies
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import DeidentifiedFile, Problem

_SUFFIX = {FileKind.DICOM: ".dcm", FileKind.PNG: ".png", FileKind.JPEG: ".jpg"}
_LOOK = "Look at it before it leaves the house; its pixels are as they were."


def export(services: Services, study_id: str, person: Person) -> ExportView:
    """Return the originals of the newest version, and note who asked. Raise NotFound, or Conflict if they are gone."""
    with services.database.write() as connection:
        study = studies.get_study(connection, study_id)
        _refuse_removed(study_id, originals.removed_at(connection, study_id))
        instances = studies.instances_of(connection, study_id, study.version)
        details = {"version": study.version, "files": len(instances)}
        audit.record(connection, actor=person.name, action="study.exported", subject=study_id, details=details)
    rows = tuple(
        OriginalRow(place=place, sha256=instance.sha256, size_bytes=instance.size_bytes)
        for place, instance in placed(instances)
    )
    return ExportView(study_id=study_id, version=study.version, originals=rows)


def deidentify(services: Services, study_id: str, person: Person) -> CopiesView:
    """Make de-identified copies of the newest version, and note who asked.

    Files have the places they have among the originals. Raise NotFound; Conflict if the originals are gone or none of
    them has a copy that may leave; ChildError or HomeError if copies cannot be made just now.
    """
    with services.database.read() as connection:
        study = studies.get_study(connection, study_id)
        _refuse_removed(study_id, originals.removed_at(connection, study_id))
        instances = studies.instances_of(connection, study_id, study.version)
    store = ObjectStore(services.home.objects)
    made = services.deidentifier.copies({i.sha256: store.path(i.sha256) for i in instances})
    rows, hashes, left_out, look_at = [], [], _Notes(), _Notes()
    for place, instance in placed(instances):
        copy = made[instance.sha256]
        problem = _hindrance(copy)
        if problem is not None or copy.sha256 is None:
            left_out.add(problem or _NO_COPY, place)
            continue
        size = store.path(copy.sha256).stat().st_size
        rows.append(CopyRow(place=place, sha256=instance.sha256, size_bytes=size))
        hashes.append(copy.sha256)
        for flag in copy.flags:
            look_at.add(Problem(code=flag.code, sentence=flag.sentence, remedy=_LOOK), place)
    if not rows:
        reasons = left_out.rows()
        why = reasons[0] if reasons else _NO_COPY
        raise Conflict(f"Nothing of {study_id} can be de-identified: {why.sentence}", remedy=why.remedy)
    folder = _folder(made, hashes, rows)
    details = {
        "version": study.version,
        "files": len(rows),
        "left_out": len(instances) - len(rows),
        "to_look_at": len({place for note in look_at.rows() for place in note.places}),
        "folder": folder,
    }
    with services.database.write() as connection:
        audit.record(
            connection, actor=person.name, action="study.exported_deidentified", subject=study_id, details=details
        )
    return CopiesView(
        study_id=study_id,
        version=study.version,
        folder=folder,
        copies=tuple(rows),
        left_out=left_out.rows(),
        look_at=look_at.rows(),
    )


def copy_of(services: Services, study_id: str, sha256: str) -> tuple[str, int]:
    """Return SHA-256 and size in bytes of the de-identified copy of an original of a study.

    Raise NotFound if the study has no such original, Conflict if it has no copy that may leave.
    """
    with services.database.read() as connection:
        known = groups.known_hashes(connection, study_id, [sha256])
    if not known:
        raise _no_original(study_id, sha256)
    store = ObjectStore(services.home.objects)
    copy = services.deidentifier.copies({sha256: store.path(sha256)})[sha256]
    problem = _hindrance(copy)
    if problem is not None or copy.sha256 is None:
        problem = problem or _NO_COPY
        raise Conflict(f"An image of {study_id} has no copy that may leave: {problem.sentence}", remedy=problem.remedy)
    return copy.sha256, store.path(copy.sha256).stat().st_size


def original_size(services: Services, study_id: str, sha256: str) -> int:
    """Return the size in bytes of an original of the newest version of a study. Raise NotFound if it has none such."""
    with services.database.read() as connection:
        study = studies.get_study(connection, study_id)
        size = originals.size_of(connection, study_id, study.version, sha256)
    if size is None:
        raise _no_original(study_id, sha256)
    return size


def placed(instances: Iterable[Instance]) -> list[tuple[str, Instance]]:
    """Return each instance with its place below a folder, such as ``series-02/0007.dcm``.

    Numbers count series and the images in them in the order of the scanner; no text of the files is in a name.
    """
    series: dict[str, list[Instance]] = {}
    for instance in instances:
        series.setdefault(instance.header.series_instance_uid, []).append(instance)
    return [
        (f"series-{number:02}/{count:04}{_SUFFIX[instance.header.kind]}", instance)
        for number, members in enumerate(sorted(series.values(), key=_first), start=1)
        for count, instance in enumerate(sorted(members, key=_order), start=1)
    ]


class _Notes:
    """What is said of files, each sentence once with the places of all files it is about."""

    def __init__(self) -> None:
        self._places: dict[Problem, list[str]] = {}

    def add(self, problem: Problem, place: str) -> None:
        self._places.setdefault(problem, []).append(place)

    def rows(self) -> tuple[NoteRow, ...]:
        return tuple(
            NoteRow(code=said.code, sentence=said.sentence, remedy=said.remedy, places=tuple(places))
            for said, places in self._places.items()
        )


_NO_COPY = Problem(code="not_deidentified", sentence="It has no de-identified copy.", remedy="")


def _hindrance(copy: DeidentifiedFile) -> Problem | None:
    """Return why a copy may not leave, None if it may."""
    if copy.sha256 is None or copy.header is None:
        return copy.problem or _NO_COPY
    burned_in = next((flag for flag in copy.flags if flag.code == BURNED_IN), None)
    if burned_in is None:
        return None
    remedy = "Have it exported without text where it was made, and send it again."
    return Problem(code=burned_in.code, sentence=burned_in.sentence, remedy=remedy)


def _folder(made: dict[str, DeidentifiedFile], hashes: Sequence[str], rows: Sequence[CopyRow]) -> str:
    """Return a name that says what the copies say, and nothing more.

    Not the id of the study: the day in it would tell by how many days the dates of the copies were moved.
    """
    headers = (made[row.sha256].header for row in rows)
    patients = (header.identity.patient_id for header in headers if header is not None)
    pseudonym = next(filter(None, patients), "images")  # a PNG or JPEG has none
    return f"{pseudonym}-{hashlib.sha256(''.join(sorted(hashes)).encode()).hexdigest()[:8]}"


def _refuse_removed(study_id: str, removed_at: float | None) -> None:
    if removed_at is not None:
        raise Conflict(
            f"The originals of {study_id} were removed to make room; its results and headers are there.",
            remedy="Send the study again from where it came; it is then kept anew.",
        )


def _no_original(study_id: str, sha256: str) -> NotFound:
    return NotFound(f"{study_id} has no original {sha256[:12]}.", remedy="Export the study again.")


def _first(members: Sequence[Instance]) -> tuple[int, str]:
    header = members[0].header
    return _number(header.series_number), header.series_instance_uid


def _order(instance: Instance) -> tuple[int, str]:
    return _number(instance.header.instance_number), instance.sha256


def _number(number: int | None) -> int:
    return 1 << 62 if number is None else number
