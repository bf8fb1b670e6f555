"""Series whose UIDs are empty, as some in the wild are: grouped by folder and geometry, under UIDs of our own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from intake_site import Site
from rendering import assert_valid_dicom, image_at, sr_texts, task
from scans import write_ct_slice

from clinic_ai.domain import Fate, Instance, Study
from clinic_ai.ingest.identifiers import remarks_of
from clinic_ai.ml.uids import is_uid
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.store import studies
from clinic_ai.tasks import RenderResult

AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]
ALL = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "h", batch=3)
    yield site
    site.close()


def write(path: Path, *, seed: int = 1, instance: int = 1, empty: tuple[str, ...] = ALL, **values: object) -> None:
    """Write a small CT slice that lacks the UIDs named in ``empty``; other values replace those of its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ct_slice(path, seed=seed, study="1.2.3", instance=instance, side=8)
    scan = pydicom.dcmread(path)
    scan.PixelSpacing = [0.5, 0.5]
    scan.ImageOrientationPatient = AXIAL
    scan.ImagePositionPatient = [0, 0, 2.5 * instance]
    scan.PixelData = instance.to_bytes(2, "little") * 64
    for keyword in empty:
        setattr(scan, keyword, "")
    for keyword, value in values.items():
        setattr(scan, keyword, value)
    scan.save_as(path)


def instances(site: Site, study: Study) -> tuple[Instance, ...]:
    with site.database.read() as connection:
        return studies.instances_of(connection, study.study_id, study.version)


def by_series(found: tuple[Instance, ...]) -> dict[str, list[int | None]]:
    series: dict[str, list[int | None]] = {}
    for instance in found:
        series.setdefault(instance.header.series_instance_uid, []).append(instance.header.instance_number)
    return series


def test_who_names_nobody_is_not_put_with_those_of_another_day(site: Site, tmp_path: Path) -> None:
    nobody = dict.fromkeys(("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate"), "")
    for n in range(1, 8):
        write(tmp_path / f"{n}.dcm", instance=n, **nobody)

    def drop(*numbers: int) -> None:
        for n in numbers:
            shutil.copy(tmp_path / f"{n}.dcm", site.home.inbox / f"{n}.dcm")
        known = len(site.files())
        site.settle(known + len(numbers))

    drop(1, 2, 3)
    drop(4, 5)  # the first study is closed by now: these may be of anybody
    drop(1, 5)  # and these are known
    drop(6, 7, 2)
    assert site.fates() == {Fate.STORED: 7, Fate.DUPLICATE: 3}
    found = {study.study_id: instances(site, study) for study in site.studies()}
    assert sorted(sorted(i.header.instance_number or 0 for i in its) for its in found.values()) == [
        [1, 2, 3],
        [4, 5],
        [6, 7],
    ]
    assert {study.version for study in site.studies()} == {1}
    assert len({study.study_instance_uid for study in site.studies()}) == 3


def test_two_orientations_of_one_folder_are_one_study_of_two_series(site: Site) -> None:
    folder = site.home.inbox / "case 12"
    numbers = list(range(1, 9))
    random.Random(4).shuffle(numbers)
    for n in numbers:
        write(
            folder / f"{n}.dcm",
            instance=n,
            ImageOrientationPatient=AXIAL if n < 5 else CORONAL,
            ImagePositionPatient=[0, 0, 2.5 * n] if n < 5 else [0, 2.5 * n, 0],
        )
    site.settle(8)
    assert site.fates() == {Fate.STORED: 8}
    (study,) = site.studies()
    found = instances(site, study)
    assert sorted(map(sorted, by_series(found).values())) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    uids = [study.study_instance_uid, *by_series(found), *(i.header.sop_instance_uid for i in found)]
    assert len(set(uids)) == 11
    assert all(uid.startswith("2.25.") and is_uid(uid) for uid in uids)
    assert {i.header.study_instance_uid for i in found} == {study.study_instance_uid}
    words = " ".join(remarks_of(found, 0))
    assert "8 objects were sent without a Study Instance UID" in words
    assert "sorted into series (2)" in words


def test_a_series_uid_holds_its_series_together_across_folders(site: Site) -> None:
    for n in (1, 2, 3):
        write(site.home.inbox / f"{n}" / "a.dcm", instance=n, empty=("StudyInstanceUID",))
    site.settle(3)
    (study,) = site.studies()
    found = instances(site, study)
    assert list(by_series(found)) == ["1.2.3.1"]
    assert study.study_instance_uid.startswith("2.25.")
    assert {i.header.own_uids for i in found} == {("no_study_uid",)}


def test_only_what_is_empty_gets_a_uid_of_ours(site: Site) -> None:
    write(site.home.inbox / "1.dcm", instance=1, empty=("SOPInstanceUID",))
    write(site.home.inbox / "2.dcm", instance=2, empty=("SeriesInstanceUID",))
    write(site.home.inbox / "3.dcm", instance=3, empty=())
    site.settle(3)
    (study,) = site.studies()
    assert study.study_instance_uid == "1.2.3"
    own = {i.header.instance_number: i.header.own_uids for i in instances(site, study)}
    assert own == {1: ("no_object_uid",), 2: ("no_series_uid",), 3: ()}


def test_a_resend_of_what_has_no_uids_is_known_again(site: Site) -> None:
    for n in (1, 2):
        write(site.home.inbox / "a" / f"{n}.dcm", instance=n)
    site.settle(2)
    for n in (1, 2):
        write(site.home.inbox / "a" / f"{n}.dcm", instance=n)
    site.settle(4)
    assert site.fates() == {Fate.STORED: 2, Fate.DUPLICATE: 2}
    assert [study.version for study in site.studies()] == [1]


def test_a_report_refers_to_them_by_uids_that_are_valid_dicom(site: Site, tmp_path: Path) -> None:
    for n in (1, 2):
        write(site.home.inbox / "a" / f"{n}.dcm", instance=n)
    site.settle(2)
    (study,) = site.studies()
    found = instances(site, study)
    remarks = remarks_of(found, 0)
    directory = tmp_path / "job"
    directory.mkdir()
    images = tuple(image_at(site.objects.path(i.sha256), i.header) for i in found)
    asked = task(
        directory,
        images,
        study_id=study.study_id,
        study_instance_uid=study.study_instance_uid,
        identity=study.identity,
        remarks=remarks,
    )
    renderer = Child(ChildSpec(kind="renderer", name="renderer"))
    try:
        answer = renderer.call("render", asked, RenderResult, timeout_s=60)
    finally:
        renderer.close()
    assert not [omission for omission in answer.omissions if "UID" in omission]
    made = pydicom.dcmread(directory / "report.sr.dcm")
    (evidence,) = made.CurrentRequestedProcedureEvidenceSequence
    referred = {
        item.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence.StudyInstanceUID == made.StudyInstanceUID == study.study_instance_uid
    assert referred == {i.header.sop_instance_uid for i in found}
    assert set(remarks) <= set(sr_texts(made))
    assert_valid_dicom(directory / "report.sr.dcm")
