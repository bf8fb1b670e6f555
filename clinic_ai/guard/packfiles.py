"""The bytes of a policy pack: read once, without following a link, and hashed. The daemon uses it too."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from clinic_ai.errors import PolicyError

MAX_FILE_BYTES = 1 << 20
MAX_PACK_BYTES = 8 << 20
MAX_FILES = 200
MAX_LINE_BYTES = 8192
"""Longest line of a TOML file: the time to parse a key grows with the square of its length."""
BASE = "base/"
"""Where the files of the pack that a pack extends lie."""
_EXTENDS = re.compile(rb"""[ \t]*extends[ \t]*=[ \t]*(?:"([^"\\]{0,200})"|'([^']{0,200})')[ \t]*(?:#.*)?""")
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
                f"The policy pack {_shown(directory.name)} extends {_shown(name)!r}, which is no other pack.",
                remedy=_REMEDY,
            )
        base = _read_folder(directory.parent / name)
        if _extends(base["policy.toml"]):
            raise PolicyError(
                f"The policy pack {_shown(directory.name)} extends {_shown(name)}, which extends another one.",
                remedy="Extend a pack that stands by itself.",
            )
        files |= {BASE + path: content for path, content in base.items()}
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_PACK_BYTES:
        raise _too_much(directory)
    return dict(sorted(files.items()))


def _extends(content: bytes) -> str:
    """Return the name of the pack that a ``policy.toml`` extends; what is wrong with it is found when it is built.

    The lines above the first table are looked at and nothing is parsed: that takes a child, for TOML can be written so
    that it takes minutes.
    """
    for line in content.removeprefix(codecs.BOM_UTF8).splitlines():
        if line.lstrip().startswith(b"["):
            break
        if found := _EXTENDS.fullmatch(line):
            return (found[1] or found[2] or b"").decode(errors="replace")
    return ""


def _read_folder(directory: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        for name in sorted(_names(directory)):
            files[name] = _read(directory / name, name)
            if sum(map(len, files.values())) > MAX_PACK_BYTES:
                raise _too_much(directory)
    except OSError as error:
        raise PolicyError(
            f"The policy pack {_shown(directory.name)} cannot be read: {error.strerror}.",
            remedy="Check that the folder is there and that the service may read it.",
        ) from error
    if "policy.toml" not in files:
        raise PolicyError(
            f"The folder {_shown(directory.name)} is no policy pack: it has no policy.toml.", remedy=_REMEDY
        )
    return files


def _names(root: Path) -> list[str]:
    """Return the files of a folder, with slashes. Raise PolicyError on the first thing that a pack may not have."""
    names: list[str] = []
    folders, seen = [""], 0
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = folder + entry.name
                seen += 1
                if seen > 2 * MAX_FILES:  # with folders
                    raise _too_much(root)
                if not name.isprintable():  # nor are the surrogates that stand for bytes of no text
                    raise PolicyError(
                        f"The policy pack holds {_shown(name)}, whose name is no plain text.", remedy=_REMEDY
                    )
                if entry.is_symlink():
                    raise PolicyError(f"The policy pack holds a link, {name}.", remedy=_REMEDY)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                else:
                    names.append(name)
    return names


def _too_much(directory: Path) -> PolicyError:
    return PolicyError(
        f"The policy pack {_shown(directory.name)} exceeds {MAX_FILES} files or {MAX_PACK_BYTES >> 20} MiB.",
        remedy=_REMEDY,
    )


def _shown(name: str) -> str:
    """Return a name as it can be printed and stored, whatever bytes it is of."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _read(path: Path, name: str) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyError(f"The policy pack holds {name}, which is not a regular file.", remedy=_REMEDY)
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PolicyError(f"The policy pack's {name} is larger than {MAX_FILE_BYTES >> 20} MiB.", remedy=_REMEDY)
    if name.endswith(".toml") and max(map(len, content.splitlines()), default=0) > MAX_LINE_BYTES:
        raise PolicyError(f"The policy pack's {name} has a line of more than {MAX_LINE_BYTES} bytes.", remedy=_REMEDY)
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
