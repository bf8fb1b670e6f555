"""The outbox: whole or not at all, whatever moment the power goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clinic_ai.errors import ChildMisbehaved, Conflict, HomeError
from clinic_ai.results.delivery import write_outbox

STUDY = "S-20260101-AAAAAAAA"
CONTENTS = {"result.json": b'{"a": 1}\n', "report.pdf": b"%PDF-" + b"x" * 300_000, "report.sr.dcm": bytes(1000)}

# Blocks for ever inside its n-th fsync, after telling us so: the moment at which it is killed is no matter of luck.
STALLING = """
import os, sys
from pathlib import Path
from clinic_ai.results import delivery
outbox, source, stall_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls, fsync = 0, os.fsync
def stalling(descriptor):
    global calls
    calls += 1
    if calls == stall_at:
        print("stalled", flush=True)
        sys.stdin.read()
    fsync(descriptor)
os.fsync = stalling
files = [(path.name, path) for path in sorted(source.iterdir())]
delivery.write_outbox(outbox, sys.argv[4], 1, files)
print("done", flush=True)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    for name, content in CONTENTS.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    directory = tmp_path / "outbox"
    directory.mkdir()
    return directory


def files_in(source: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted(source.iterdir())]


def contents_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_version_appears_whole_under_our_id(outbox: Path, source: Path) -> None:
    target = write_outbox(outbox, STUDY, 1, files_in(source))
    assert target == outbox / STUDY / "v1"
    assert contents_of(target) == CONTENTS
    assert [path.name for path in (outbox / STUDY).iterdir()] == ["v1"]


def test_a_second_call_changes_nothing(outbox: Path, source: Path) -> None:
    target = write_outbox(outbox, STUDY, 1, files_in(source))
    before = {path: path.stat().st_mtime_ns for path in (target, *target.iterdir())}
    assert write_outbox(outbox, STUDY, 1, files_in(source)) == target
    assert {path: path.stat().st_mtime_ns for path in (target, *target.iterdir())} == before


def test_versions_stand_beside_each_other(outbox: Path, source: Path) -> None:
    write_outbox(outbox, STUDY, 1, files_in(source))
    write_outbox(outbox, STUDY, 2, files_in(source)[:1])
    assert sorted(path.name for path in (outbox / STUDY).iterdir()) == ["v1", "v2"]


def test_a_delivered_version_is_never_changed(outbox: Path, source: Path) -> None:
    write_outbox(outbox, STUDY, 1, files_in(source))
    with pytest.raises(Conflict, match="other files"):
        write_outbox(outbox, STUDY, 1, files_in(source)[:2])
    assert contents_of(outbox / STUDY / "v1") == CONTENTS


@pytest.mark.parametrize("stall_at", range(1, 7))
def test_killed_at_any_fsync_it_is_whole_or_absent_and_the_next_call_repairs_it(
    outbox: Path, source: Path, stall_at: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STALLING, str(outbox), str(source), str(stall_at), STUDY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "stalled\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    target = outbox / STUDY / "v1"
    visible = [path.name for path in (outbox / STUDY).iterdir() if not path.name.startswith(".")]
    assert visible in ([], ["v1"])
    if visible:
        assert contents_of(target) == CONTENTS
    assert write_outbox(outbox, STUDY, 1, files_in(source)) == target
    assert contents_of(target) == CONTENTS
    assert [path.name for path in (outbox / STUDY).iterdir()] == ["v1"]


def test_there_are_six_moments_to_be_killed_at(outbox: Path, source: Path) -> None:
    command = [sys.executable, "-c", STALLING, str(outbox), str(source), "7", STUDY]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing_visible(tmp_path: Path, source: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("unshare and mount are needed for a small file system of our own")
    probe = subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("this kernel does not let us mount a small file system of our own")
    outbox = tmp_path / "small"
    outbox.mkdir()
    script = f"""
from pathlib import Path
from clinic_ai.errors import HomeError
from clinic_ai.results.delivery import write_outbox
try:
    write_outbox(Path({str(outbox)!r}), {STUDY!r}, 1, [(p.name, p) for p in Path({str(source)!r}).iterdir()])
except HomeError as error:
    print(error.message, "|", error.remedy, "|", [p.name for p in (Path({str(outbox)!r}) / {STUDY!r}).glob("v*")])
"""
    mounted = f'mount -t tmpfs -o size=64k tmpfs "{outbox}" && exec "{sys.executable}" -c "$SCRIPT"'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mounted],
        env=os.environ | {"SCRIPT": script},
        capture_output=True,
        text=True,
        check=True,
    )
    message, remedy, visible = done.stdout.strip().split(" | ")
    assert "No space left on device" in message
    assert STUDY in message
    assert "Make room" in remedy
    assert visible == "[]"


def test_a_missing_outbox_is_said(tmp_path: Path, source: Path) -> None:
    with pytest.raises(HomeError, match="cannot be put into the outbox"):
        write_outbox(tmp_path / "nowhere", STUDY, 1, files_in(source))


def test_a_link_is_not_followed(outbox: Path, source: Path, tmp_path: Path) -> None:
    (source / "secret").symlink_to("/etc/hostname")
    with pytest.raises(ChildMisbehaved):
        write_outbox(outbox, STUDY, 1, files_in(source))
    assert not (outbox / STUDY / "v1").exists()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "nul\0"])
def test_names_are_plain(outbox: Path, source: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        write_outbox(outbox, STUDY, 1, [(name, source / "result.json")])
    with pytest.raises(ValueError, match="plain"):
        write_outbox(outbox, name, 1, files_in(source))
