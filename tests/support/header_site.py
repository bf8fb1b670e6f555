"""A site whose files hold nothing but a header: all of ingest is real, SQLite and disk too, only no parser is needed.

It files hundreds of instances in the time that a parser child takes to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from intake_site import Site

from clinic_ai.domain import FileKind, InstanceHeader, PatientIdentity, Study
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings
from clinic_ai.tasks import ParsedFile


class PlainReader(HeaderReader):
    """Takes the content of a file for its header."""

    def read(self, paths: Sequence[Path], settings: IngestSettings, *, digest: bool = False) -> list[ParsedFile]:
        return [
            ParsedFile(path=str(path), header=InstanceHeader.model_validate_json(path.read_bytes())) for path in paths
        ]


class HeaderSite(Site):
    """A site that files headers."""

    def __init__(self, path: Path, **ingest: object) -> None:
        super().__init__(path, Crew(), **ingest)
        self.intake._filing._reader = PlainReader(self.crew)

    def drop(self, header: InstanceHeader, name: str) -> None:
        """Put a file with this header into the inbox; where two have the same name the later one is taken."""
        aside = self.home.path / "aside"
        aside.write_text(header.model_dump_json())
        aside.rename(self.home.inbox / name)

    def put(self, *numbers: int, study: str = "1.2.3", **fields: Any) -> None:
        """Drop slices of a study, with fields of their headers."""
        for number in numbers:
            self.drop(slice_header(study, number, **fields), f"{study}-{number}.dcm")

    def take(self, count: int) -> None:
        """Make passes until so many files have their fate."""
        self.cycle_until(lambda: len(self.files()) >= count)

    def newest(self) -> Study:
        """Return the newest version of the only study there is."""
        found = self.studies()
        assert len({study.study_id for study in found}) == 1
        return max(found, key=lambda study: study.version)

    def until_closed(self) -> Study:
        """Make passes until no study is open; return the newest version of the only one there is."""
        self.cycle_until(lambda: bool(self.studies()) and not self.receiving())
        return self.newest()

    def reload(self, **ingest: object) -> None:
        """Go on by other settings, as after a reload."""
        fresh = self.settings.ingest.model_copy(update=ingest)
        self.settings = self.settings.model_copy(update={"ingest": fresh})


def slice_header(study: str, number: int, **fields: Any) -> InstanceHeader:
    """Return the header of a slice; its series is number 1 unless said otherwise."""
    values: dict[str, Any] = {
        "kind": FileKind.DICOM,
        "modality": "CT",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "sop_instance_uid": f"{study}.1.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "series_number": 1,
        "instance_number": number,
        "rows": 8,
        "columns": 8,
        "frames": 1,
        "identity": PatientIdentity(patient_id=f"PH-{study}"),
    }
    return InstanceHeader.model_validate({**values, **fields})
