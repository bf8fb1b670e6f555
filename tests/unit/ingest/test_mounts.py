"""Which file system a folder lies on, and when two sightings are of the same one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.ingest.mounts import FileSystem, Mount, file_system_of, missing_mount, parse_mountinfo

SHARE = FileSystem(kind="cifs", source="//nas/scans", place="/", mount_point="/srv/scans", device="0:61", identifier=7)
DISK = FileSystem(kind="ext4", source="/dev/sda1", place="/srv/scans", mount_point="/", device="8:1", identifier=1234)
HOME = FileSystem(
    kind="ext4", source="/dev/sda1", place="/home/inbox", mount_point="/", device="8:1", identifier=1234, of_home=True
)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (SHARE, SHARE.model_copy(update={"device": "0:44", "identifier": 9}), True),  # after a boot
        (SHARE, SHARE.model_copy(update={"source": "//nas/other"}), False),
        (SHARE, SHARE.model_copy(update={"place": "/ct"}), False),
        (SHARE, DISK, False),  # unmounted: what lies below shows through
        (DISK, DISK.model_copy(update={"source": "/dev/sdb1", "device": "8:17"}), True),  # disks are counted anew
        (DISK, DISK.model_copy(update={"identifier": 99}), False),  # another disk in the same slot
        (DISK.model_copy(update={"kind": "xfs"}), DISK.model_copy(update={"kind": "xfs", "identifier": 9}), True),
        (DISK, DISK.model_copy(update={"place": "/data/scans"}), False),  # a folder bound over it is gone
        (HOME, HOME.model_copy(update={"identifier": 99, "source": "/dev/sdc1"}), True),  # restored on another machine
        (SHARE.model_copy(update={"mount_point": "/home/inbox"}), HOME, False),
    ],
)
def test_what_counts_as_the_same(before: FileSystem, now: FileSystem, same: bool) -> None:
    assert before.same(now) is same
    assert now.same(before) is same


def test_a_mount_covers_what_lay_bare_and_not_the_other_way_round() -> None:
    assert SHARE.covers(DISK)
    assert not DISK.covers(SHARE)
    assert not DISK.covers(DISK)


def test_what_a_folder_lies_on_is_found_by_asking_the_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "in box"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        elsewhere = file_system_of(descriptor, Path("/nowhere").parent / "proc")
        at_home = file_system_of(descriptor, tmp_path)
    finally:
        os.close(descriptor)
    status = folder.stat()
    if elsewhere.kind != "btrfs":  # which gives each subvolume a number of its own
        assert elsewhere.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    assert elsewhere.place.endswith("/in box")
    assert (elsewhere.of_home, at_home.of_home) == (False, True)


def test_a_line_of_mountinfo_with_odd_names_is_read() -> None:
    text = (
        "36 35 98:0 /mnt1 /srv/in\\040box rw,noatime master:1 - cifs //nas/sc\\040ans rw,errors=continue\n"
        "37 35 98:1 / / rw - ext4 /dev/root rw\n"
        "rubbish\n"
    )
    assert parse_mountinfo(text) == {
        36: Mount("cifs", "//nas/sc ans", "/mnt1", "/srv/in box", "98:0"),
        37: Mount("ext4", "/dev/root", "/", "/", "98:1"),
    }


@given(st.text())
def test_any_text_is_read_as_mountinfo_and_as_fstab_without_an_error(text: str) -> None:
    parse_mountinfo(text)
    missing_mount("/srv/scans", DISK, text)


def test_what_fstab_says_and_is_not_mounted_is_named() -> None:
    fstab = (
        "UUID=1 / ext4 defaults 0 1\n# //old /srv/scans cifs x\n//nas/my\\040scans /srv/scans cifs x 0 0 # comment\n"
    )
    assert missing_mount("/srv/scans/ct", DISK, fstab) == "//nas/my scans (cifs)"
    assert missing_mount("/srv/scans", SHARE, fstab) == ""
    assert missing_mount("/srv/scanser", DISK, fstab) == ""
    assert missing_mount("/var/lib/clinic-ai/inbox", DISK, fstab) == ""
