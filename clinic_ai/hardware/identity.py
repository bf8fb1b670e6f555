"""What this machine is: what does not change while it runs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A machine by name. ``processor`` is empty where the kernel does not name it; ``cores`` are logical ones."""

    host: str
    processor: str
    cores: int
    system: str


def identity_of(root: Path = Path("/")) -> Identity:
    """Return what the kernel and the system say of this machine; ``root`` is where their files are found."""
    system = _value(root / "etc/os-release", "PRETTY_NAME", "=") or platform.system()
    return Identity(
        host=platform.node(),
        processor=_value(root / "proc/cpuinfo", "model name", ":"),
        cores=os.cpu_count() or 1,
        system=f"{system}, kernel {platform.release()}",
    )


def _value(path: Path, key: str, separator: str) -> str:
    """Return the first value of a key in a file of lines, empty if there is none."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return " ".join(value.strip().strip('"').split())
    return ""
