"""Originals that go out to a person: which there are, under names of ours, and who asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clinic_ai.control.folder_views import ExportView, OriginalRow
from clinic_ai.control.people import Person
from clinic_ai.control.services import Services
from clinic_ai.domain import FileKind, Instance
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.store import audit, originals, studies

_SUFFIX = {FileKind.DICOM: ".dcm", FileKind.PNG: ".png", FileKind.JPEG: ".jpg"}


def export(services: Services, study_id: str, person: Person) -> ExportView:
    """Return the originals of the newest version, and note who asked. Raise NotFound, or Conflict if they are gone."""
    with services.database.write() as connection:
        study = studies.get_study(connection, study_id)
        if originals.removed_at(connection, study_id) is not None:
            raise Conflict(
                f"The originals of {study_id} were removed to make room; its results and headers are there.",
                remedy="Send the study again from where it came; it is then kept anew.",
            )
        instances = studies.instances_of(connection, study_id, study.version)
        details = {"version": study.version, "files": len(instances)}
        audit.record(connection, actor=person.name, action="study.exported", subject=study_id, details=details)
    rows = tuple(
        OriginalRow(place=place, sha256=instance.sha256, size_bytes=instance.size_bytes)
        for place, instance in placed(instances)
    )
    return ExportView(study_id=study_id, version=study.version, originals=rows)


def original_size(services: Services, study_id: str, sha256: str) -> int:
    """Return the size in bytes of an original of the newest version of a study. Raise NotFound if it has none such."""
    with services.database.read() as connection:
        study = studies.get_study(connection, study_id)
        for instance in studies.instances_of(connection, study_id, study.version):
            if instance.sha256 == sha256:
                return instance.size_bytes
    raise NotFound(f"{study_id} has no original {sha256[:12]}.", remedy="Export the study again.")


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


def _first(members: Sequence[Instance]) -> tuple[int, str]:
    header = members[0].header
    return _number(header.series_number), header.series_instance_uid


def _order(instance: Instance) -> tuple[int, str]:
    return _number(instance.header.instance_number), instance.sha256


def _number(number: int | None) -> int:
    return 1 << 62 if number is None else number
