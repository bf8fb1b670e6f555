"""Files that mean harm, each made by ``hostile``: quarantined with a reason or filed rightly, and the next is filed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import QUARANTINED, STORED, png, slice_bytes
from intake_site import Site
from scans import write_ct_slice

from clinic_ai.domain import Fate
from clinic_ai.store import studies


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("hostile") / "h")
    yield site
    site.close()


def drop(site: Site, name: str, content: bytes) -> str:
    """Drop a file in a folder of its own, then a good one; return the fate's name and check the good one."""
    folder = site.home.inbox / name
    folder.mkdir(parents=True)
    (folder / "x.dcm").write_bytes(content)
    site.cycle_until(lambda: any(row.name == f"{name}/x.dcm" for row in site.files()))
    return next(row for row in site.files() if row.name == f"{name}/x.dcm").fate


@pytest.mark.parametrize("name", list(QUARANTINED))
def test_is_quarantined_with_its_reason(site: Site, name: str) -> None:
    code, content = QUARANTINED[name]
    assert drop(site, name, content()) is Fate.QUARANTINED
    row = next(row for row in site.files() if row.name == f"{name}/x.dcm")
    assert row.reason_code == code
    assert (site.home.quarantine / next(site.home.quarantine.glob(f"*-{row.file_id}")) / "file").exists()


@pytest.mark.parametrize("name", list(STORED))
def test_is_survived_and_filed(site: Site, name: str) -> None:
    assert drop(site, name, STORED[name]()) is Fate.STORED
    row = next(row for row in site.files() if row.name == f"{name}/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = [
            i for i in studies.instances_of(connection, study.study_id, study.version) if i.sha256 == row.sha256
        ]
    words = instance.model_dump_json()
    assert all(text.isprintable() for text in [study.identity.patient_name, study.identity.patient_id])
    assert ".." not in instance.header.study_instance_uid + instance.header.sop_instance_uid
    assert "\\u0000" not in words


def test_what_is_odd_is_told_in_remarks(site: Site) -> None:
    folder = site.home.inbox / "remarks"
    folder.mkdir()
    (folder / "x.dcm").write_bytes(b"MZ" + slice_bytes(StudyInstanceUID="../x", SpecificCharacterSet="nonsense")[2:])
    site.cycle_until(lambda: any(row.name == "remarks/x.dcm" for row in site.files()))
    row = next(row for row in site.files() if row.name == "remarks/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = studies.instances_of(connection, study.study_id, study.version)
    remarks = " ".join(instance.header.remarks)
    assert "look like a program" in remarks
    assert "StudyInstanceUID is not a UID" in remarks
    assert "character set" in remarks
    assert study.study_instance_uid.startswith("2.25.")


def test_links_pipes_and_odd_names(site: Site) -> None:
    folder = site.home.inbox / "odd"
    (folder / "folder.dcm").mkdir(parents=True)
    (folder / "folder.dcm" / "inner").write_bytes(slice_bytes(SOPInstanceUID="1.2.99", StudyInstanceUID="1.2.98"))
    os.symlink("/etc/passwd", folder / "link.dcm")
    os.mkfifo(folder / "pipe.dcm")
    for raw in (b"new\nline.dcm", b"\xff\xfe.dcm", b"y" * 255):
        with open(os.path.join(os.fsencode(folder), raw), "wb") as file:
            file.write(b"no scan")
    site.cycle_until(lambda: sum(row.name.startswith("odd/") for row in site.files()) == 6)
    fates = {row.name: (row.fate, row.reason_code) for row in site.files() if row.name.startswith("odd/")}
    assert fates == {
        "odd/folder.dcm/inner": (Fate.STORED, ""),
        "odd/link.dcm": (Fate.IGNORED, "link"),
        "odd/pipe.dcm": (Fate.IGNORED, "special"),
        "odd/new\\nline.dcm": (Fate.QUARANTINED, "not_an_image"),
        "odd/\\xff\\xfe.dcm": (Fate.QUARANTINED, "not_an_image"),
        f"odd/{'y' * 255}": (Fate.QUARANTINED, "not_an_image"),
    }
    before = len(site.files())
    site.intake.cycle()
    assert len(site.files()) == before
    assert Path("/etc/passwd").exists()


def test_a_file_that_eats_the_parsers_memory_costs_only_itself(tmp_path: Path) -> None:
    site = Site(tmp_path / "h", parser_memory_mb=256)
    content = png()
    with (site.home.inbox / "greedy.png").open("wb") as file:  # sparse: a text chunk of 400 MiB of zeros
        file.write(content[:33] + struct.pack(">L", 400 << 20) + b"tEXt")
        file.truncate(450 << 20)
    for number in range(5):
        write_ct_slice(site.home.inbox / f"good{number}.dcm", seed=number)
    try:
        files = site.settle(6)
        assert files["greedy.png"].reason_code == "parser_killed"
        assert site.fates() == {Fate.STORED: 5, Fate.QUARANTINED: 1}
    finally:
        site.close()


def test_a_value_longer_than_any_should_be_is_not_read(site: Site) -> None:
    assert drop(site, "long value", slice_bytes(StudyDescription="D" * 60_000)) is Fate.STORED
    row = next(row for row in site.files() if row.name == "long value/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = studies.instances_of(connection, study.study_id, study.version)
    assert instance.header.study_description == ""


@pytest.mark.parametrize("uids", [{}, {"StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": ""}])
def test_two_patients_in_one_folder_are_two_studies(site: Site, uids: dict[str, object]) -> None:
    folder = f"two patients {len(uids)}"
    (site.home.inbox / folder).mkdir()
    for name in ("one", "other"):
        (site.home.inbox / folder / name).write_bytes(slice_bytes(**uids))  # each of a patient of its own
    site.cycle_until(lambda: sum(row.name.startswith(f"{folder}/") for row in site.files()) == 2)
    rows = [row for row in site.files() if row.name.startswith(f"{folder}/")]
    assert {row.fate for row in rows} == {Fate.STORED}
    assert len({row.study_id for row in rows}) == 2
