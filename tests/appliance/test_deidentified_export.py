"""``study export --deidentified`` from the real command line: nothing of the patient in any byte or name it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import marked
import pydicom
from harness import Daemon, rows, wait_until
from pydicom.dataset import FileDataset
from pydicom.uid import BasicTextSRStorage

from clinic_ai.cli.output import Exit
from clinic_ai.home import Home

IMAGES = 3


def run(home: Home, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clinic_ai", *map(str, arguments), "--home", str(home.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


def instance(number: int, **more: object) -> FileDataset:
    made = marked.image(
        SOPInstanceUID=f"{marked.ROOT}.5.{number}",
        InstanceNumber=number,
        SeriesNumber=1,
        StudyDescription=f"Scan of {marked.MARK}",
        SeriesDescription=f"{marked.MARK} thorax",
        ProtocolName=marked.MARK,
        InstitutionName=f"{marked.MARK} clinic",
        ReferringPhysicianName=f"{marked.MARK}^Doctor",
        AccessionNumber=f"{marked.MARK}-{marked.NUMBER}",
        ContentDate=f"{marked.DAY}06",
        BodyPartExamined="CHEST",
        PixelData=bytes(number + n for n in range(48)),
        **more,
    )
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.add_new(0x00091001, "LO", marked.MARK)
    return made


def report() -> FileDataset:
    made = instance(9, SeriesInstanceUID=f"{marked.ROOT}.6")
    made.SeriesNumber, made.Modality = 2, "SR"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        del made[keyword]
    return made


def study_in(home: Home, folder: Path, *datasets: FileDataset) -> str:
    """Let a study of these files arrive; return its id."""
    folder.mkdir()
    for number, dataset in enumerate(datasets):
        marked.write(dataset, folder / f"{number}.dcm")
    folder.rename(home.inbox / folder.name)
    wait_until(lambda: len(rows(home, "SELECT 1 FROM instances")) == len(datasets), "all files are stored")
    wait_until(lambda: rows(home, "SELECT state FROM studies")[0][0] != "RECEIVING", "the study is closed")
    ((study_id,),) = rows(home, "SELECT DISTINCT study_id FROM studies")
    return str(study_id)


def told(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def assert_nothing_leaked(folder: Path, study_id: str) -> None:
    """Look at all names and all bytes below a folder: also those of files nobody is told of."""
    day = study_id.split("-")[1]
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        assert marked.traces(name.encode()) == []
        assert study_id not in name
        assert day not in name
        if path.is_file():
            content = path.read_bytes()
            assert marked.traces(content) == [], name
            assert study_id.encode() not in content


def exports(home: Home) -> list[tuple[str, str, dict[str, object]]]:
    found = rows(home, "SELECT action, subject, details FROM audit WHERE action GLOB 'study.exported*' ORDER BY seq")
    return [(action, subject, json.loads(details)) for action, subject, details in found]


def test_images_go_out_without_their_patient_and_what_has_no_safe_copy_stays(
    home: Home, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    start()
    images = [instance(n) for n in range(1, IMAGES + 1)]
    images[2].ImageType = ["DERIVED", "SECONDARY"]
    burned_in = instance(IMAGES + 1, BurnedInAnnotation="YES")
    study_id = study_in(home, tmp_path / "study", *images, burned_in, report())
    out = tmp_path / "out"

    done = run(home, "study", "export", study_id, out, "--deidentified")
    words = told(done)
    assert done.returncode == Exit.FAILED, words  # some got no copy, and whoever types it has to know
    (folder,) = out.iterdir()
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == [f"series-01/{n:04}.dcm" for n in range(1, IMAGES + 1)]
    assert_nothing_leaked(out, study_id)
    for name, original in zip(written, images, strict=True):
        copy = pydicom.dcmread(folder / name)
        assert (copy.PatientIdentityRemoved, copy.PixelData) == ("YES", original.PixelData)
        assert copy.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert folder.name.startswith(f"{copy.PatientID}-")
    assert f"{IMAGES} files de-identified" in words
    assert str(folder) in words
    assert "To look at: 1 file (series-01/0003.dcm). Text may be burnt in:" in words
    assert (
        "Left out, not written in any form: 1 file (series-01/0004.dcm). Its header says that text identifying the "
        "patient is burnt in." in words
    )
    assert "1 file (series-02/0001.dcm). It holds no image that can be de-identified (Basic Text SR Storage)" in words
    details = {"version": 1, "files": IMAGES, "left_out": 2, "to_look_at": 1, "folder": folder.name}
    assert exports(home) == [("study.exported_deidentified", study_id, details)]

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run(home, "study", "export", study_id, out, "--deidentified").returncode == Exit.CONFLICT
    again = run(home, "study", "export", study_id, out, "--deidentified", "--into")
    assert again.returncode == Exit.CONFLICT
    assert "is there already" in told(again)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    machine = run(home, "study", "export", study_id, tmp_path / "json", "--deidentified", "--json")
    said = json.loads(machine.stdout)
    assert (said["folder"], said["files"]) == (folder.name, written)
    assert [note["code"] for note in said["left_out"]] == ["burned_in", "not_an_image"]
    assert [note["code"] for note in said["look_at"]] == ["burned_in_possible"]


def test_a_copy_that_the_disk_has_damaged_leaves_nothing_half_written(
    home: Home, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    start()
    study_id = study_in(home, tmp_path / "study", *(instance(n) for n in range(1, IMAGES + 1)))
    good = tmp_path / "good"
    assert run(home, "study", "export", study_id, good, "--deidentified").returncode == Exit.DONE
    (folder,) = good.iterdir()
    last = (folder / "series-01" / f"{IMAGES:04}.dcm").read_bytes()
    (stored,) = [path for path in home.objects.rglob("*") if path.is_file() and path.read_bytes() == last]
    stored.chmod(0o640)
    stored.write_bytes(last[:-1] + bytes([last[-1] ^ 1]))

    bad = tmp_path / "bad"
    done = run(home, "study", "export", study_id, bad, "--deidentified")
    assert done.returncode == Exit.UNUSABLE
    assert "the disk has damaged it" in told(done)
    assert list(bad.iterdir()) == []

    stored.write_bytes(last)
    (bad / f".{folder.name}.part" / "series-01").mkdir(parents=True)  # as an export leaves it that was killed
    (bad / f".{folder.name}.part" / "series-01" / "0001.dcm").write_bytes(b"half")
    assert run(home, "study", "export", study_id, bad, "--deidentified", "--into").returncode == Exit.DONE
    assert [path.name for path in bad.iterdir()] == [folder.name]
    assert (bad / folder.name / "series-01" / "0001.dcm").read_bytes() != b"half"


def test_a_study_of_which_nothing_can_be_made_safe_is_refused_as_a_whole(
    home: Home, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    start()
    study_id = study_in(home, tmp_path / "study", instance(1, BurnedInAnnotation="YES"))
    out = tmp_path / "out"
    done = run(home, "study", "export", study_id, out, "--deidentified")
    assert done.returncode == Exit.CONFLICT
    assert f"Nothing of {study_id} can be de-identified: Its header says that text" in told(done)
    assert not out.exists()
    assert exports(home) == []
