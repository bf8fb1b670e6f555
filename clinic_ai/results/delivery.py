"""Puts the files of one study version into the outbox, whole or not at all.

The reader of an outbox may be a script or a share that looks at any moment, and the power may go at any
moment: files are written into a hidden directory beside their place and appear by one rename.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from clinic_ai.errors import ClinicError, Conflict, HomeError
from clinic_ai.processes import open_produced

MAX_FILE_BYTES = 4 * 1024**3
"""Largest file that is delivered."""
_COPY_BYTES = 1 << 20


def write_outbox(
    outbox: Path, study_id: str, version: int, files: Sequence[tuple[str, Path]], *, revision: int = 0
) -> Path:
    """Make ``outbox/<study_id>/v<version>/`` with these files, each ``(name, source)``, and return it.
    A signed report, whose ``revision`` is 1 or more, gets a folder of its own: ``v<version>-signed-<revision>``.

    Done already: nothing is written, unless its names differ. What an interrupted call left is removed. When
    this returns, everything is on the disk. One caller at a time per study version. Raise HomeError if the disk
    is full or the outbox cannot be written, and Conflict if the version was delivered with other files.
    """
    names = [name for name, _ in files]
    _check_names(study_id, names)
    study = outbox / study_id
    name = f"v{version}-signed-{revision}" if revision else f"v{version}"
    target, draft = study / name, study / f".{name}.part"
    try:
        if target.is_dir():
            return _delivered(target, names)
        _make_study_directory(outbox, study)
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o750)
        for name, source in files:
            _copy(source, draft / name)
        _sync_directory(draft)
        draft.rename(target)
        _sync_directory(study)
    except OSError as error:
        raise _why(error, study_id, version) from error
    return target


def _check_names(study_id: str, names: Sequence[str]) -> None:
    plain = all(
        name and not name.startswith(".") and "/" not in name and "\0" not in name for name in [study_id, *names]
    )
    if not plain or len(set(names)) != len(names):
        raise ValueError("names in the outbox are plain, visible and different from each other")


def _delivered(target: Path, names: Sequence[str]) -> Path:
    # A directory of this name was renamed into place, so it is whole; only its purpose could differ.
    if {path.name for path in target.iterdir()} != set(names):
        raise Conflict(
            f"{target.parent.name} {target.name} is in the outbox already, with other files.",
            remedy="Files of a delivered version are not changed: make a new version, or remove the directory first.",
        )
    _sync_directory(target.parent)
    return target


def _make_study_directory(outbox: Path, study: Path) -> None:
    study.mkdir(mode=0o750, exist_ok=True)
    _sync_directory(outbox)


def _copy(source: Path, target: Path) -> None:
    """Copy one file without following links, and flush it to the disk."""
    reading = open_produced(source.parent, source.name, max_bytes=MAX_FILE_BYTES)
    with os.fdopen(reading, "rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, _COPY_BYTES)
        new.flush()
        os.fsync(new.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError, study_id: str, version: int) -> ClinicError:
    what = f"The files of {study_id} version {version} cannot be put into the outbox: {error.strerror}."
    return HomeError(what, remedy="Make room on the disk of the outbox and check that the service may write there.")
