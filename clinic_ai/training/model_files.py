"""The directory of a model: its manifest, read with care, and its files, copied with every hash checked.

A directory from outside may hold links, devices, files nobody listed, or change while it is read. So one
pass copies and hashes what was opened, and all later checks look at the copy.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import stat
import tomllib
from pathlib import Path

from pydantic import ValidationError

from clinic_ai.contract import ModelManifest
from clinic_ai.errors import ModelError
from clinic_ai.store.objects import fsync_directory, hash_descriptor

MANIFEST_NAME = "model.toml"
MAX_MANIFEST_BYTES = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHUNK = 1 << 20


def read_manifest(directory: Path) -> tuple[str, ModelManifest]:
    """Return digest and content of ``model.toml``, with names that are safe on a disk.

    Raise ModelError if it is missing, too large, not TOML, incomplete, or names what it may not.
    """
    path = directory / MANIFEST_NAME
    try:
        descriptor = open_plain(path)
    except OSError as error:
        raise ModelError(
            f"{directory} has no readable {MANIFEST_NAME}: {error.strerror}.",
            remedy="A model is a directory of model.toml and the files it lists; see docs/models.md.",
        ) from error
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(MAX_MANIFEST_BYTES + 1)
    remedy = "Correct model.toml; docs/models.md shows one with every key."
    if len(content) > MAX_MANIFEST_BYTES:
        raise ModelError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB.", remedy=remedy)
    try:
        manifest = ModelManifest.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ModelError(f"{path} is not a model manifest: {what}.", remedy=remedy) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # also a number of 5,000 digits, brackets as deep
        raise ModelError(f"{path} is not TOML: {error}.", remedy=remedy) from error
    problem = _manifest_problem(manifest)
    if problem:
        raise ModelError(f"{path} {problem}.", remedy=remedy)
    return hashlib.sha256(content).hexdigest(), manifest


def _manifest_problem(manifest: ModelManifest) -> str:
    names = [file.name for file in manifest.files]
    unsafe = [n for n in (manifest.name, manifest.version, *names) if not _NAME.fullmatch(n)]
    if unsafe:
        return f"has the name {unsafe[0]!r}; names are up to 64 letters, digits, dots, dashes, underscores, no folders"
    for key in ("licence", "source", "intended_use"):
        if not getattr(manifest, key).strip():
            return f"does not say its {key}"
    if not any(name.lower().endswith(f".{manifest.format}") for name in names):
        return f"lists no .{manifest.format} file"
    if len(set(names)) != len(names) or MANIFEST_NAME in names:
        return "lists a file twice, or itself"
    if any(file.size_bytes < 0 for file in manifest.files):
        return "gives a file a negative size"
    return ""


def copy_model(source: Path, target: Path, manifest: ModelManifest, digest: str) -> None:
    """Copy exactly the files of the manifest, hashing what is written, and make them durable.

    Raise ModelError if the directory holds anything else, a link, or a file of another size or hash.
    """
    _check_entries(source, {file.name for file in manifest.files})
    target.mkdir(parents=True)
    for name, sha256, size in [
        (MANIFEST_NAME, digest, None),
        *((file.name, file.sha256, file.size_bytes) for file in manifest.files),
    ]:
        found, length = _copy(source / name, target / name, size)
        if size is not None and length != size:
            raise ModelError(
                f"The file {name} should have {size} bytes and has {length if length < size else 'more'}.",
                remedy="Copy the model again from where it came; the copy is not whole.",
            )
        if found != sha256:
            raise ModelError(
                f"The file {name} does not have the SHA-256 that model.toml gives.",
                remedy="Copy the model again from where it came, or ask its maker for a correct model.toml.",
            )
    fsync_directory(target)


def check_model(source: Path, manifest: ModelManifest) -> None:
    """Raise ModelError if a directory holds anything but the files of its manifest, or one is not as it says."""
    _check_entries(source, {file.name for file in manifest.files})
    for file in manifest.files:
        try:
            descriptor = open_plain(source / file.name)
            try:
                found = hash_descriptor(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ModelError(f"The file {file.name} in {source} cannot be read: {error.strerror}.") from error
        if found != (file.sha256, file.size_bytes):
            raise ModelError(
                f"The file {file.name} in {source} does not have the size and SHA-256 that model.toml gives.",
                remedy="Train again, or copy the model again from where it came.",
            )


def _check_entries(source: Path, names: set[str]) -> None:
    expected, present = names | {MANIFEST_NAME}, set()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                raise ModelError(
                    f"{entry.name} in {source} is not a plain file (a link, a folder or a device).",
                    remedy="A model directory holds plain files only; copy the real file into it.",
                )
            present.add(entry.name)
    if missing := sorted(expected - present):
        raise ModelError(f"{source} lacks {', '.join(missing[:5])}, which model.toml lists.", remedy="Copy it there.")
    if extra := sorted(present - expected):
        raise ModelError(
            f"{source} holds {', '.join(extra[:5])}, which model.toml does not list.",
            remedy="Remove it, or list it in model.toml with its hash.",
        )


def _copy(source: Path, target: Path, limit: int | None) -> tuple[str, int]:
    """Copy one file durably; return SHA-256 and size of what was written, at most one chunk beyond ``limit``."""
    digest, size = hashlib.sha256(), 0
    try:
        with os.fdopen(open_plain(source), "rb") as stream, target.open("xb") as out:
            while (limit is None or size <= limit) and (piece := stream.read(_CHUNK)):
                digest.update(piece)
                size += out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise ModelError(
            f"The file {source.name} cannot be copied: {error.strerror}.",
            remedy="Check that it may be read and that the disk of the appliance has space.",
        ) from error
    target.chmod(0o440)
    return digest.hexdigest(), size


def open_plain(path: Path) -> int:
    """Open a regular file for reading without following a link. Raise OSError if it is anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a plain file")
    return descriptor


def package_directory(place: str) -> Path:
    """Return the directory ``package:relative/path`` without importing the package.

    Raise ModelError if there is no such package.
    """
    package, _, relative = place.partition(":")
    try:
        spec = importlib.util.find_spec(package)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"The reference model {place} cannot be found: there is no package {package}.",
            remedy="Install the plugin again.",
        )
    return Path(next(iter(spec.submodule_search_locations))) / relative
