"""``clinic-ai import`` and ``study export``: the real command line, and a real daemon that is killed meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.cli.output import Exit
from clinic_ai.home import Home

FILES = 60


def run(home: Home, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clinic_ai", *map(str, arguments), "--home", str(home.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


def begin(home: Home, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clinic_ai", *map(str, arguments), "--home", str(home.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A CD of one study, with an index, a viewer, and a program in the preamble of one scan."""
    folder = tmp_path / "cd"
    (folder / "DICOM" / "SER1").mkdir(parents=True)
    for number in range(1, FILES + 1):
        write_ct_slice(folder / "DICOM" / "SER1" / f"IM{number:04}", seed=1, study="1.2.3", instance=number)
    first = folder / "DICOM" / "SER1" / "IM0001"
    first.write_bytes(b"MZ" + first.read_bytes()[2:])
    (folder / "DICOMDIR").write_bytes(b"index")
    (folder / "viewer.exe").write_bytes(b"MZ")
    return folder


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return all of a folder that a reader could have changed."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
            path.stat().st_ctime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def study_of(home: Home) -> str:
    ((study_id, count),) = rows(home, "SELECT study_id, count(*) FROM instances GROUP BY study_id")
    assert count == FILES
    return str(study_id)


def test_a_cd_is_imported_once_whatever_is_killed_and_its_scans_come_out_again(
    home: Home, start: Callable[[], Daemon], medium: Path, tmp_path: Path
) -> None:
    before = tree(medium)
    daemon = start()
    importing = begin(home, "import", medium, "--source", "cd", "--yes")
    wait_until(lambda: len(rows(home, "SELECT 1 FROM files")) > 0, "the first file was taken")
    daemon.kill()
    _, told = importing.communicate(timeout=120)
    if importing.returncode != Exit.DONE:  # it had not sent all yet
        assert importing.returncode == Exit.NO_DAEMON
        assert "nothing is imported twice" in " ".join(told.split())

    start()
    again = run(home, "import", medium, "--source", "cd", "--yes", "--json")
    assert again.returncode == Exit.DONE, again.stderr
    said: dict[str, Any] = json.loads(again.stdout)
    study_id = study_of(home)
    assert said["studies"] == {study_id: FILES}
    assert said["sent"] + said["here_already"] == FILES
    assert said["here_already"] > 0
    assert not said["pending"]
    assert sorted(said["left"].values()) == [1, 1]
    assert rows(home, "SELECT DISTINCT source, fate FROM files WHERE fate != 'STORED'") == []
    assert tree(medium) == before
    assert [path for path in home.imports.rglob("*") if path.is_file()] == []

    out = tmp_path / "out"
    exported = run(home, "study", "export", study_id, out)
    assert exported.returncode == Exit.DONE, exported.stderr
    originals = sorted((medium / "DICOM" / "SER1").iterdir())
    names = sorted(path for path in out.rglob("*") if path.is_file())
    assert [str(path.relative_to(out)) for path in names] == [f"series-01/{n:04}.dcm" for n in range(1, FILES + 1)]
    for original, copy in zip(originals, names, strict=True):
        assert copy.read_bytes() == bytes(128) + original.read_bytes()[128:]
    assert run(home, "study", "export", study_id, out).returncode == Exit.CONFLICT
    ((exports,),) = rows(home, "SELECT count(*) FROM audit WHERE action = 'study.exported'")
    assert exports == 1


def test_what_cannot_be_read_or_used_is_named_and_costs_nothing_else(
    home: Home, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    write_ct_slice(folder / "good", seed=1)
    (folder / "odd").write_bytes(b"no scan")
    start()
    done = run(home, "import", folder, "--yes")
    assert done.returncode == Exit.FAILED
    words = " ".join(done.stdout.split())
    assert "2 files imported" in words
    assert "1 file QUARANTINED: The file is neither DICOM nor PNG nor JPEG." in words
    again = run(home, "import", folder, "--yes")
    assert "0 files imported, 2 were here already" in " ".join(again.stdout.split())


def test_a_medium_that_cannot_be_written_is_read(home: Home, start: Callable[[], Daemon], medium: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed for a mount of our own")
    start()
    script = f'mount --bind "{medium}" "{medium}" && mount -o remount,bind,ro "{medium}" && exec "$@"'
    command = [sys.executable, "-m", "clinic_ai", "import", str(medium), "--yes", "--json", "--home", str(home.path)]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ},
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of our own are permitted here: {done.stderr.strip()}")
    assert done.returncode == Exit.DONE, done.stderr
    assert json.loads(done.stdout)["sent"] == FILES


def test_a_dry_run_needs_no_daemon_and_says_what_is_left(home: Home, medium: Path) -> None:
    done = run(home, "import", medium, "--dry-run")
    assert done.returncode == Exit.DONE
    words = " ".join(done.stdout.split())
    assert f"{FILES} files to import" in words
    assert "1 DICOMDIR: an index is not followed" in words
    assert run(home, "import", medium, "--yes").returncode == Exit.NO_DAEMON
    assert run(home, "import", medium).returncode == Exit.USAGE  # nobody is there to be asked
