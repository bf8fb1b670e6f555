"""The home directory: where everything lies, how it is made, checked and locked.

Only fixed names are used here; no path is ever built from a DICOM value.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinic_ai import DEFAULT_HOME, __version__
from clinic_ai.errors import HomeError

ENVIRONMENT_KEY = "CLINIC_AI_HOME"
FORMAT = 1
"""Number of the layout below; a home with a higher one was made by a newer version."""
MIN_FREE_MB = 200
"""Free space in MiB below which the daemon does not start: a study must be storable as a whole."""
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket path that the kernel takes, without the final NUL."""

_SHARED = 0o770  # scanners and people put files in
_READABLE = 0o750  # the clinic's group reads, or passes through to a socket
_PRIVATE = 0o700
_FOLDERS: Mapping[str, int] = {
    "inbox": _SHARED,
    "labels": _SHARED,
    "outbox": _READABLE,
    "quarantine": _READABLE,
    "models": _READABLE,
    "datasets": _PRIVATE,
    "runs": _PRIVATE,
    "policies": _READABLE,
    "templates": _READABLE,
    "backups": _PRIVATE,
    "logs": _READABLE,
    "state": _PRIVATE,
    "state/objects": _PRIVATE,
    "state/jobs": _PRIVATE,
    "state/spool": _PRIVATE,
    "state/incoming": _PRIVATE,
    "state/imports": _PRIVATE,
    "state/audit": _PRIVATE,
    "run": _READABLE,
}


@dataclass(frozen=True)
class Home:
    """The paths of one home. Where inboxes and outbox really are is for ``clinic.toml`` to say."""

    path: Path

    @property
    def clinic_toml(self) -> Path:
        """The settings."""
        return self.path / "clinic.toml"

    @property
    def inbox(self) -> Path:
        """The default watched folder."""
        return self.path / "inbox"

    @property
    def labels(self) -> Path:
        """Where labelled images for training are dropped."""
        return self.path / "labels"

    @property
    def outbox(self) -> Path:
        """The default folder of results."""
        return self.path / "outbox"

    @property
    def quarantine(self) -> Path:
        """What could not be used, each with its ``reason.json``."""
        return self.path / "quarantine"

    @property
    def models(self) -> Path:
        """The model registry's files."""
        return self.path / "models"

    @property
    def datasets(self) -> Path:
        """Frozen datasets."""
        return self.path / "datasets"

    @property
    def runs(self) -> Path:
        """Training runs with their checkpoints."""
        return self.path / "runs"

    @property
    def policies(self) -> Path:
        """Policy packs."""
        return self.path / "policies"

    @property
    def templates(self) -> Path:
        """The clinic's own report templates."""
        return self.path / "templates"

    @property
    def backups(self) -> Path:
        """Backups of the database."""
        return self.path / "backups"

    @property
    def logs(self) -> Path:
        """Log files, without personal data."""
        return self.path / "logs"

    @property
    def state(self) -> Path:
        """What survives a power cut."""
        return self.path / "state"

    @property
    def database(self) -> Path:
        """The SQLite file; only the holder of the lock opens it."""
        return self.state / "clinic.db"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a daemon uses this home."""
        return self.state / "lock"

    @property
    def objects(self) -> Path:
        """Stored originals, by SHA-256."""
        return self.state / "objects"

    @property
    def audit(self) -> Path:
        """The key that signs the audit, and the signed heads: outside the database, which they vouch for."""
        return self.state / "audit"

    @property
    def jobs(self) -> Path:
        """Job directories of children."""
        return self.state / "jobs"

    @property
    def spool(self) -> Path:
        """Files taken from the inboxes, until they are stored."""
        return self.state / "spool"

    @property
    def imports(self) -> Path:
        """What people imported from media: a folder for each source, an inbox like any other."""
        return self.state / "imports"

    @property
    def incoming(self) -> Path:
        """What arrived over the network: a folder for each sender, an inbox like any other."""
        return self.state / "incoming"

    @property
    def run(self) -> Path:
        """The sockets."""
        return self.path / "run"

    @property
    def control_socket(self) -> Path:
        """The door that may change things."""
        return self.run / "control.sock"

    @property
    def monitor_socket(self) -> Path:
        """The door that only reads."""
        return self.run / "monitor.sock"

    @property
    def stamp(self) -> Path:
        """Which version made this home, and the number of its layout."""
        return self.state / "home.json"


def resolve_home(option: Path | None = None) -> Home:
    """Return the home: the ``--home`` option, else CLINIC_AI_HOME, else /var/lib/clinic-ai."""
    chosen = option or Path(os.environ.get(ENVIRONMENT_KEY) or DEFAULT_HOME)
    return Home(chosen.expanduser().absolute())


# ------------------------------------------------------------ making


def init_home(path: Path, *, sockets: bool = True) -> Home:
    """Make a home, or complete one: folders, ``clinic.toml``, the shipped policy packs.

    Changes nothing that is there, so it may be run again at any time. Without ``sockets`` nobody will serve it, and
    its path may be longer than that of a socket. Raise HomeError if ``path`` is a folder
    with other things in it, cannot be written, or is a home made by a newer version.
    """
    from clinic_ai.settings import render_default  # only who makes a home needs them, and they take a while to load

    home = Home(path.expanduser().absolute())
    if sockets:
        _refuse_long_path(home)
    try:
        if not home.clinic_toml.exists():
            _refuse_foreign(home)
            home.path.mkdir(mode=_READABLE, parents=True, exist_ok=True)
            # First of all: a home whose making was cut short is then known as one, and can be completed.
            write_whole(home.clinic_toml, render_default().encode(), 0o640)
        _refuse_newer(home)
        for name, mode in _FOLDERS.items():
            folder = home.path / name
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(mode)  # mkdir's mode is cut by the umask
        _copy_packs(home)
        if not home.stamp.exists():
            write_whole(home.stamp, (json.dumps({"format": FORMAT, "version": __version__}) + "\n").encode())
    except OSError as error:
        raise _unusable(home, error) from error
    return home


def _refuse_foreign(home: Home) -> None:
    """Raise HomeError if the folder holds anything that neither we nor a new file system put there."""
    if not home.path.exists():
        return
    ours = {"lost+found", f".{home.clinic_toml.name}.new"}
    if any(entry.name not in ours for entry in home.path.iterdir()):
        raise HomeError(
            f"{home.path} holds files but no clinic.toml; it is not a home of clinic-ai and is left alone.",
            remedy="Name an empty or new folder: `clinic-ai init --home DIR`.",
        )


def shipped_packs() -> list[Path]:
    """Return the folders of the policy packs that ship with the appliance."""
    package = Path(__file__).resolve().parent
    # In an installed wheel the packs are package data; in a checkout they lie beside the package.
    for place in (package / "_shipped" / "policies", package.parent / "policies"):
        if packs := sorted(file.parent for file in place.glob("*/policy.toml")):
            return packs
    return []


def _copy_packs(home: Home) -> None:
    """Copy each shipped pack that is not there; a pack that is there may hold the clinic's own changes."""
    for pack in shipped_packs():
        target = home.policies / pack.name
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=home.state) as folder:
            copied = Path(folder) / pack.name
            shutil.copytree(pack, copied, ignore=shutil.ignore_patterns("__pycache__"))
            copied.rename(target)  # whole or not at all


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that after a power cut it is whole, or what it was before. Raise OSError if that fails."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # a file that an earlier try left may have another
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def add_new_folders(home: Home) -> None:
    """Give a home of an earlier version the folders below state/ that it lacks. Raise HomeError if that fails.

    Nothing else is made: another missing folder may be a disk that is not mounted.
    """
    if not home.stamp.is_file():
        return
    _refuse_newer(home)
    try:
        for name, mode in _FOLDERS.items():
            folder = home.path / name
            if folder.parent == home.state and not folder.is_dir():
                folder.mkdir()
                folder.chmod(mode)
    except OSError as error:
        raise _unusable(home, error) from error


# ------------------------------------------------------------ checking


def check_home(home: Home) -> None:
    """Raise HomeError, in one sentence with a remedy, if a daemon could not work in this home."""
    again = f"`clinic-ai init --home {home.path}`"
    if not home.clinic_toml.is_file():
        raise HomeError(f"There is no home of clinic-ai at {home.path}.", remedy=f"Make one: {again}.")
    _refuse_newer(home)
    missing = [name for name in _FOLDERS if not (home.path / name).is_dir()]
    if missing or not home.stamp.is_file():
        what = f"{missing[0]}/" if missing else "state/home.json"
        raise HomeError(
            f"The home {home.path} lacks {what}.",
            remedy=f"Complete it: {again} adds what is missing and changes nothing else.",
        )
    _refuse_long_path(home)
    _refuse_unwritable(home)


def _refuse_long_path(home: Home) -> None:
    longest = max((home.control_socket, home.monitor_socket), key=lambda p: len(os.fsencode(p)))
    if (length := len(os.fsencode(longest))) > MAX_SOCKET_PATH:
        raise HomeError(
            f"The path of the socket {longest} has {length} bytes; Linux allows {MAX_SOCKET_PATH}.",
            remedy="Use a home with a shorter path.",
        )


def _refuse_newer(home: Home) -> None:
    try:
        stamp = json.loads(home.stamp.read_bytes())
        number, version = int(stamp["format"]), str(stamp["version"])
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(home, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(
            f"{home.stamp} cannot be understood, so nobody knows which version made this home.",
            remedy="Restore the file from a backup.",
        ) from error
    if number > FORMAT:
        raise HomeError(
            f"The home {home.path} was made by clinic-ai {version}, which is newer than this one ({__version__}).",
            remedy=f"Install clinic-ai {version} or later.",
        )


def _refuse_unwritable(home: Home) -> None:
    """Write a little into the state folder, which finds out more than any question about permissions."""
    try:
        with tempfile.TemporaryFile(dir=home.state) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free_mb = shutil.disk_usage(home.state).free >> 20
    except OSError as error:
        raise _unusable(home, error) from error
    if free_mb < MIN_FREE_MB:
        raise HomeError(
            f"The disk of {home.path} has {free_mb} MiB free; clinic-ai needs {MIN_FREE_MB} MiB to start.",
            remedy="Make room on that disk; old results in outbox/ and old backups/ may go first.",
        )


def _unusable(home: Home, error: OSError) -> HomeError:
    place = error.filename if isinstance(error.filename, str) else str(home.path)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HomeError(f"The disk of {home.path} is full.", remedy="Make room on that disk.")
    if error.errno == errno.EROFS:
        return HomeError(
            f"The home {home.path} is on a file system that is mounted read-only.",
            remedy="Mount it writable; if it was before, look for disk errors in `dmesg`.",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return HomeError(
            f"The user {os.geteuid()} may not write {place}.",
            remedy=f"Run as the owner of {home.path}, or give it to this user with chown.",
        )
    return HomeError(f"{place} cannot be used: {error.strerror}.", remedy="Check that this path is a folder.")


# ------------------------------------------------------------ locking


@contextmanager
def lock_home(home: Home) -> Iterator[None]:
    """Hold the home for this process; the kernel lets go of it even if the process is killed.

    Raise HomeError if another process holds it.
    """
    try:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(home, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(home, descriptor) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(home: Home, descriptor: int) -> HomeError:
    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    who = f"pid {holder}" if holder.isdigit() else "its pid is not known yet"
    return HomeError(
        f"Another clinic-ai daemon ({who}) uses the home {home.path}.",
        remedy="Talk to it with `clinic-ai status`, stop it, or use another home with --home.",
    )
