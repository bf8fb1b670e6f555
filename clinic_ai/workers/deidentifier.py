"""The child that writes de-identified copies of images, and dies instead of the daemon if one of them is hostile.

The same original under the same key gives the same bytes. What is no image, and what cannot be walked through to its
end, gets no copy: nothing is passed through unread.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from clinic_ai.confinement import confine

if __name__ == "__main__":  # the limits come before the libraries that read what strangers wrote
    CHANNEL, _ = confine()

import pydicom

from clinic_ai.errors import InputError
from clinic_ai.tasks import DeidentifiedFile, DeidentifyFile, DeidentifyResult, DeidentifyTask, Flag, Problem
from clinic_ai.wire import Call, Method, serve
from clinic_ai.workers import parser
from clinic_ai.workers.confidentiality.burned_in import picture_flags
from clinic_ai.workers.confidentiality.dicom import deidentify_dicom
from clinic_ai.workers.confidentiality.keys import Keys
from clinic_ai.workers.confidentiality.pictures import deidentify_jpeg, deidentify_png
from clinic_ai.workers.confidentiality.volumes import COPIERS

pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE  # values were checked; its warnings quote them


def deidentify(task: DeidentifyTask, _call: Call) -> DeidentifyResult:
    """Write a copy of each file; one that gets none gets its problem in words."""
    keys = Keys(bytes.fromhex(task.key))
    return DeidentifyResult(files=tuple(_deidentify_one(file, task, keys) for file in task.files))


def _deidentify_one(file: DeidentifyFile, task: DeidentifyTask, keys: Keys) -> DeidentifiedFile:
    target = Path(task.output_directory) / file.sha256
    try:
        head = _looked_at(Path(file.path), file.sha256, task.max_file_bytes)
        if file.kind != "image":
            COPIERS[file.kind](Path(file.path), target, task.max_file_bytes)
            return DeidentifiedFile(original_sha256=file.sha256, sha256=_hash(target))
        flags, groups = _write_copy(Path(file.path), target, head, file.sha256, keys, task.max_file_bytes)
        with target.open("rb") as copy:
            header = parser.read_header(copy, os.fstat(copy.fileno()).st_size, task.max_pixels)
    except InputError as error:
        target.unlink(missing_ok=True)
        problem = Problem(code=error.code, sentence=error.message, remedy=error.remedy)
        return DeidentifiedFile(original_sha256=file.sha256, problem=problem)
    return DeidentifiedFile(
        original_sha256=file.sha256, sha256=_hash(target), header=header, flags=flags, groups=groups
    )


def _looked_at(source: Path, sha256: str, max_bytes: int) -> bytes:
    """Return how a file begins. Raise InputError if it cannot be read, is another one by now, or too large."""
    try:
        with source.open("rb") as file:
            head, size = file.read(132), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            "unreadable", f"The file could not be read: {error.strerror or 'input/output error'}."
        ) from error
    if _hash(source) != sha256:
        raise InputError("changed", "The file changed while it was read.", remedy="Wait until nothing writes into it.")
    if size > max_bytes:
        raise InputError("too_large", f"It is larger than the {max_bytes >> 20} MiB that are de-identified here.")
    return head


def _write_copy(
    source: Path, target: Path, head: bytes, sha256: str, keys: Keys, max_bytes: int
) -> tuple[tuple[Flag, ...], dict[str, str]]:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        target.write_bytes(deidentify_png(source.read_bytes()))
        return picture_flags("PNG"), {}
    if head.startswith(b"\xff\xd8\xff"):
        target.write_bytes(deidentify_jpeg(source.read_bytes()))
        return picture_flags("JPEG"), {}
    return deidentify_dicom(source, target, sha256, keys, max_bytes)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


METHODS = {"deidentify": Method(params=DeidentifyTask, function=deidentify)}

if __name__ == "__main__":
    serve(CHANNEL, METHODS)
