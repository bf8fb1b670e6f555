"""Two objects that contradict each other, side by side: both read by the real parser child, no pixel decoded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from intake_site import Site
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from scans import write_ct_slice

from clinic_ai.errors import Conflict, InputError, NotFound
from clinic_ai.ingest.comparison import Comparer, Comparison, Pixels
from clinic_ai.ingest.quarantine import Quarantine


class Pair:
    """A stored slice, and whatever is quarantined because it contradicts it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = 1
        self.number = 0
        self.site = Site(path / "h")
        self.quarantine = Quarantine(self.site.home.quarantine)
        self.comparer = Comparer(
            crew=self.site.crew,
            database=self.site.database,
            objects=self.site.objects,
            quarantine=self.quarantine,
            settings=lambda: self.site.settings.ingest,
        )

    def store(self, path: Path) -> None:
        shutil.copy(path, self.site.home.inbox / "stored.dcm")
        self.site.settle(1)

    def compare(self, change: Callable[[Dataset], None], **options: object) -> Comparison:
        """Quarantine a changed copy of the stored slice, and compare the two."""
        scan = pydicom.dcmread(self.path / "a.dcm")
        change(scan)
        self.files += 1
        name = f"{self.files}.dcm"
        scan.save_as(self.site.home.inbox / name, **options)
        self.number = self.site.settle(self.files)[name].file_id
        return self.comparer.compare(self.number)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    path = tmp_path_factory.mktemp("pair")
    write_ct_slice(path / "a.dcm", seed=1, study="1.2.3", side=16)
    pair = Pair(path)
    pair.store(path / "a.dcm")
    yield pair
    pair.site.close()


def corrected(scan: Dataset) -> None:
    scan.StudyDescription, scan.SeriesNumber = "corrected", 7


def other_pixels(scan: Dataset) -> None:
    scan.PixelData = bytes(len(scan.PixelData))


def implicit(scan: Dataset) -> None:
    scan.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def run_length(scan: Dataset) -> None:
    scan.compress(RLELossless, generate_instance_uid=False)


def unsigned(scan: Dataset) -> None:
    scan.PixelRepresentation = 0


@pytest.mark.parametrize(
    ("change", "pixels", "differing"),
    [
        (corrected, Pixels.SAME, ("StudyDescription", "SeriesNumber")),
        (other_pixels, Pixels.DIFFERENT, ()),
        (implicit, Pixels.SAME, ("TransferSyntaxUID",)),
        (run_length, Pixels.UNKNOWN, ("TransferSyntaxUID",)),
        (unsigned, Pixels.DIFFERENT, ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_header_and_pixels_are_told_apart(
    pair: Pair, change: Callable[[Dataset], None], pixels: Pixels, differing: tuple[str, ...]
) -> None:
    found = pair.compare(change, **({"implicit_vr": True} if change is implicit else {}))
    assert (found.pixels, found.differing) == (pixels, differing)
    assert found.stored is not None
    assert found.arrived.sha256 != found.stored.sha256
    assert found.arrived.header.rows == found.stored.header.rows == 16


def test_two_that_are_compressed_alike_are_compared_as_they_lie(tmp_path: Path) -> None:
    write_ct_slice(tmp_path / "a.dcm", seed=1, study="1.2.3", side=16)
    scan = pydicom.dcmread(tmp_path / "a.dcm")
    run_length(scan)
    scan.save_as(tmp_path / "a.dcm")
    pair = Pair(tmp_path)
    pair.store(tmp_path / "a.dcm")
    assert pair.compare(corrected).pixels is Pixels.SAME
    pair.site.close()


def test_of_another_patient_only_the_keywords_are_told(pair: Pair) -> None:
    def stranger(scan: Dataset) -> None:
        scan.PatientID, scan.PatientName, scan.SOPInstanceUID = "PH-2", "Other^One", "1.2.3.9"

    found = pair.compare(stranger)
    assert found.stored is None
    assert found.differing == ("PatientID", "PatientName")
    assert found.sentence == "It is not of the patient of its study: PatientID, PatientName differ."


def test_what_contradicts_nothing_is_not_compared(pair: Pair) -> None:
    with pytest.raises(Conflict):
        pair.comparer.compare(1)
    with pytest.raises(NotFound):
        pair.comparer.compare(99)


def test_a_file_that_was_damaged_in_quarantine_is_said_to_be(pair: Pair) -> None:

    def other_series(scan: Dataset) -> None:
        scan.SeriesNumber = 8

    pair.compare(other_series)
    (row,) = [row for row in pair.site.files() if row.file_id == pair.number]
    pair.quarantine.file(row.file_id, row.seen_at).write_text("no scan any more")
    with pytest.raises(InputError, match="cannot be compared"):
        pair.comparer.compare(row.file_id)
