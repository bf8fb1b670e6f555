"""The bytes of a policy pack: read once, without following a link, and hashed. The daemon uses it too."""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from clinic_ai.errors import PolicyError

MAX_FILE_BYTES = 1 << 20
MAX_PACK_BYTES = 8 << 20
MAX_FILES = 200
BASE = "base/"
"""Where the files of the pack that a pack extends lie."""
_REMEDY = "A pack is a small folder of text files: policy.toml, cases.toml, lexicons/*.txt, templates/*.toml."


def read_pack_files(directory: Path) -> dict[str, bytes]:
    """Return every file of a pack by its path inside it (with slashes), sorted.

    A pack that says ``extends = "name"`` is given the files of the pack beside it under ``base/``, unless they lie
    there already, as in a kept copy: so the digest covers all that it stands on. Raise PolicyError if a folder is not
    there, or holds a link, a special file, or more than a pack may.
    """
    files = _read_folder(directory)
    name = _extends(files["policy.toml"])
    if name and not any(path.startswith(BASE) for path in files):
        if name == directory.name or Path(name).name != name or name.startswith("."):
            raise PolicyError(
                f"The policy pack {directory.name} extends {name!r}, which is no other pack.", remedy=_REMEDY
            )
        base = _read_folder(directory.parent / name)
        if _extends(base["policy.toml"]):
            raise PolicyError(
                f"The policy pack {directory.name} extends {name}, which extends another one.",
                remedy="Extend a pack that stands by itself.",
            )
        files |= {BASE + path: content for path, content in base.items()}
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_PACK_BYTES:
        raise PolicyError(
            f"The policy pack {directory.name} exceeds {MAX_FILES} files or {MAX_PACK_BYTES >> 20} MiB.", remedy=_REMEDY
        )
    return dict(sorted(files.items()))


def _extends(content: bytes) -> str:
    """Return the name of the pack that a ``policy.toml`` extends; what is wrong with it is found when it is built."""
    try:
        name = tomllib.loads(content.decode("utf-8-sig")).get("extends", "")
    except (ValueError, RecursionError):
        return ""
    return name if isinstance(name, str) else ""


def _read_folder(directory: Path) -> dict[str, bytes]:
    root = str(directory)
    files: dict[str, bytes] = {}
    try:
        folders = list(os.walk(root, onerror=_raise, followlinks=False))
        for folder, subfolders, names in folders:
            for name in sorted([*subfolders, *names]):
                relative = os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - os.walk speaks strings
                if stat.S_ISLNK(os.lstat(os.path.join(folder, name)).st_mode):  # noqa: PTH118
                    raise PolicyError(f"The policy pack holds a link, {relative}.", remedy=_REMEDY)
            for name in sorted(names):
                path = Path(folder, name)
                files[path.relative_to(root).as_posix()] = _read(path, path.relative_to(root).as_posix())
                if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_PACK_BYTES:
                    raise PolicyError(
                        f"The policy pack {directory.name} exceeds {MAX_FILES} files or {MAX_PACK_BYTES >> 20} MiB.",
                        remedy=_REMEDY,
                    )
    except OSError as error:
        raise PolicyError(
            f"The policy pack {directory.name} cannot be read: {error.strerror}.",
            remedy="Check that the folder is there and that the service may read it.",
        ) from error
    if "policy.toml" not in files:
        raise PolicyError(f"The folder {directory.name} is no policy pack: it has no policy.toml.", remedy=_REMEDY)
    return files


def _raise(error: OSError) -> None:
    raise error


def _read(path: Path, name: str) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyError(f"The policy pack holds {name}, which is not a regular file.", remedy=_REMEDY)
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PolicyError(f"The policy pack's {name} is larger than {MAX_FILE_BYTES >> 20} MiB.", remedy=_REMEDY)
    return content


def pack_texts(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files without the byte order mark that some editors, such as Notepad, put before UTF-8 text."""
    return {name: content.removeprefix(codecs.BOM_UTF8) for name, content in files.items()}


def pack_digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over the names and bytes of all files, in the order of their names."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        for part in (name.encode(errors="surrogateescape"), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
