"""What lies on a medium: what is imported, what is left and why, and that nothing on it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer

from clinic_ai.cli import imports
from clinic_ai.cli import medium as media
from clinic_ai.cli.medium import DICOMDIR, LINKS, PICTURES, PROGRAMS, SPECIAL, Medium, MediumFile
from clinic_ai.errors import NotFound

SCAN = b"\0" * 128 + b"DICM" + b"scan"


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def names(medium: Medium, *, everything: bool = False) -> list[str]:
    return [file.name for file in medium.survey(everything=everything).files]


def test_a_patients_cd_is_taken_apart(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "DICOMDIR": SCAN,
            "DICOM/IM1": SCAN,
            "DICOM/no_preamble": b"\x08\x00\x05\x00",
            "VIEWER/run.exe": b"MZ",
            "VIEWER/scan.exe": SCAN,  # whatever its name says
            "VIEWER/logo.png": b"\x89PNG",
            "autorun.inf": b"x",
        },
    )
    os.symlink("/etc/passwd", tmp_path / "DICOM" / "link")
    os.symlink("/etc", tmp_path / "DICOM" / "folder")
    os.mkfifo(tmp_path / "pipe")
    with Medium(tmp_path) as medium:
        survey = medium.survey()
        assert [file.name for file in survey.files] == ["DICOM/IM1", "DICOM/no_preamble", "VIEWER/scan.exe"]
        assert survey.left == {DICOMDIR: 1, PROGRAMS: 2, PICTURES: 1, LINKS: 2, SPECIAL: 1}
        assert survey.unreadable == []
        assert names(medium, everything=True) == [
            "DICOM/IM1",
            "DICOM/no_preamble",
            "VIEWER/logo.png",
            "VIEWER/run.exe",
            "VIEWER/scan.exe",
            "autorun.inf",
        ]


def test_a_folder_of_pictures_alone_is_imported(tmp_path: Path) -> None:
    with Medium(fill(tmp_path, {"DX/CHEST/a.png": b"\x89PNG", "b.jpg": b"\xff\xd8"})) as medium:
        assert names(medium) == ["DX/CHEST/a.png", "b.jpg"]


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    fill(tmp_path, {"scan": SCAN})
    os.utime(tmp_path / "scan", ns=(1, 2))  # even relatime would update this time of access
    before = (tmp_path / "scan").stat()
    with Medium(tmp_path) as medium:
        (file,) = medium.survey().files
        assert b"".join(medium.read(file)) == SCAN
        medium.digest(file)
    after = (tmp_path / "scan").stat()
    assert (after.st_atime_ns, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_atime_ns,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_the_same_medium_is_the_same_listing_and_another_is_another(tmp_path: Path) -> None:
    fill(tmp_path, {"a": SCAN, "b": SCAN})
    with Medium(tmp_path) as medium:
        listing = medium.survey().listing()
        assert medium.survey().listing() == listing
        (tmp_path / "c").write_bytes(SCAN)
        assert medium.survey().listing() != listing


def test_what_cannot_be_read_is_an_error_of_that_file(tmp_path: Path) -> None:
    with Medium(Path("/proc/self")) as medium, pytest.raises(OSError, match="Input/output error"):
        medium.digest(MediumFile(b"mem", 10, 0))  # its first page is not mapped: the kernel says EIO, as of a scratch
    fill(tmp_path, {"a": SCAN})
    with Medium(tmp_path) as medium:
        (file,) = medium.survey().files
        (tmp_path / "a").write_bytes(SCAN + b"more")
        with pytest.raises(OSError, match="changed while it was read"):
            medium.digest(file)
        (tmp_path / "a").unlink()
        os.symlink("/etc/passwd", tmp_path / "a")
        with pytest.raises(OSError, match="symbolic links"):
            medium.digest(file)


def test_folders_without_end_are_not_entered(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * media.MAX_DEPTH)
    deep.mkdir(parents=True)
    (deep / "scan").write_bytes(SCAN)
    with Medium(tmp_path) as medium:
        survey = medium.survey()
    assert (survey.files, survey.left) == ([], {media.DEEP: 1})


def test_a_name_that_is_no_text_is_read_as_it_is(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe"), "wb") as file:
        file.write(SCAN)
    with Medium(tmp_path) as medium:
        (found,) = medium.survey().files
        assert (found.raw_name, found.name) == (b"\xff\xfe", "\\xff\\xfe")
        assert b"".join(medium.read(found)) == SCAN


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be imported"):
        Medium(tmp_path / "gone")


@pytest.mark.parametrize("name", ["../../x", ".arriving", "a/b", "a\nb", "", "x" * 65])
def test_a_source_that_can_have_no_such_name_is_said_before_anything_is_read(name: str) -> None:
    with pytest.raises(typer.BadParameter, match="letters, digits"):
        imports.source_name(name)


def test_a_source_may_be_called_in_any_language() -> None:
    assert imports.source_name("Röntgen 2.OG") == "Röntgen 2.OG"
