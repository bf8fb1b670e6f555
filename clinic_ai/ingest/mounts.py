"""Which file system a folder lies on, so that an unmounted share is not taken for an empty inbox.

``st_dev`` alone does not say: network mounts and disks get another number after each boot, and a folder that was
bound over another one keeps it. So the line of ``/proc/self/mountinfo`` (proc(5)) is read as well.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.domain import Word

MOUNTINFO = Path("/proc/self/mountinfo")
FSTAB = Path("/etc/fstab")
_NETWORK = frozenset({"afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"})
"""Kinds whose source names the share itself: ``//nas/scans``, ``nas:/srv/ct``."""
_STAMPED = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "zfs"})
"""Kinds whose ``f_fsid`` is made from the identifier written on the disk; others make it from the device number."""
_OCTAL = re.compile(r"\\([0-7]{3})")


class FileSystem(Word):
    """Where a folder lies. ``place`` is its path inside the file system, ``device`` is ``major:minor``.

    ``of_home`` says that it lies below the home and on the same mount: whatever the home lies on, it lies there too.
    """

    kind: str
    source: str
    place: str
    mount_point: str
    device: str
    identifier: int = 0
    of_home: bool = False

    def same(self, other: FileSystem) -> bool:
        """Return whether both are the same folder of the same file system, perhaps under another device number."""
        if self.of_home or other.of_home:
            return self.of_home and other.of_home
        if (self.kind, self.place) != (other.kind, other.place):
            return False
        if self.kind in _STAMPED and self.identifier and other.identifier:
            return self.identifier == other.identifier
        return self.source == other.source

    def covers(self, other: FileSystem) -> bool:
        """Return whether this one was mounted over the folder, or above it, where the other one lay bare."""
        return _is_below(self.mount_point, other.mount_point) and self.mount_point != other.mount_point

    @property
    def words(self) -> str:
        """Name it for people."""
        if self.of_home:
            return f"the disk of the home ({self.source}, {self.kind})"
        inside = "" if self.place == "/" else f"{self.place} of "
        return f"{inside}{self.source} ({self.kind})"

    @property
    def network(self) -> bool:
        """Whether another machine may write there."""
        return self.kind in _NETWORK or self.kind.startswith("fuse") or self.kind in {"9p", "virtiofs"}


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, as far as it is of use."""

    kind: str
    source: str
    root: str
    point: str
    device: str


def file_system_of(descriptor: int, home: Path) -> FileSystem:
    """Return where an open folder lies. Raise OSError if it lies nowhere any more, or a share does not answer."""
    number = mount_number(descriptor)
    mount = parse_mountinfo(MOUNTINFO.read_text("utf-8", "surrogateescape")).get(number)
    if mount is None:
        raise OSError(errno.ESTALE, "it was unmounted just now")
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    return FileSystem(
        kind=mount.kind,
        source=mount.source,
        place=_joined(mount.root, os.path.relpath(path, mount.point)),
        mount_point=mount.point,
        device=mount.device,
        identifier=os.fstatvfs(descriptor).f_fsid,
        of_home=_is_below(path, str(home)) and number == _mount_number_of(home),
    )


def mount_number(descriptor: int) -> int:
    """Return the number of the mount that an open file was reached through."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "mnt_id":
            return int(value)
    raise OSError(errno.ENOSYS, "the kernel does not say where it is mounted")


def parse_mountinfo(text: str) -> dict[int, Mount]:
    """Return the mounts by their number. Lines of an unknown form are passed over."""
    mounts = {}
    for line in text.splitlines():
        front, separator, back = line.partition(" - ")
        first, last = front.split(" "), back.split(" ")
        if separator and len(first) >= 6 and len(last) >= 2 and first[0].isdecimal():
            root, point, source = (_unescaped(word) for word in (first[3], first[4], last[1]))
            mounts[int(first[0])] = Mount(last[0], source, root, point, first[2])
    return mounts


def missing_mount(path: str, found: FileSystem, fstab: str) -> str:
    """Return what ``fstab`` (its text) says belongs above ``path`` and is not mounted, empty if nothing does."""
    missing = ""
    deepest = found.mount_point
    for line in fstab.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 3 or not words[1].startswith("/"):
            continue
        source, point = _unescaped(words[0]), os.path.normpath(_unescaped(words[1]))
        if _is_below(path, point) and _is_below(point, deepest) and point != deepest:
            missing, deepest = f"{source} ({words[2]})", point
    return missing


def _mount_number_of(path: Path) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_number(descriptor)
    finally:
        os.close(descriptor)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _joined(root: str, inside: str) -> str:
    return "/" + os.path.normpath(f"{root}/{inside}").strip("/")


def _unescaped(word: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)
