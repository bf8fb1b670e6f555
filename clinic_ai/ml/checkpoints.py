"""Checkpoints of training runs: safetensors and JSON, whole or not there; never a pickle.

A checkpoint is a directory ``epoch-00007`` with ``tensors.safetensors``, ``state.json`` and, written last,
``complete.json`` with the hashes of both. One without that marker, or whose hashes differ, does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

Tensors = dict[str, npt.NDArray[Any]]

_NAME = re.compile(r"epoch-(\d{5})")
_TENSORS, _STATE, _MARKER = "tensors.safetensors", "state.json", "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after ``epoch`` as if nothing had happened. ``state`` is plain JSON."""

    epoch: int
    tensors: Tensors
    state: dict[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, keep: int = 2) -> None:
    """Write ``checkpoint`` durably below ``directory`` and remove all but the newest ``keep``."""
    target = directory / f"epoch-{checkpoint.epoch:05d}"
    if target.exists():  # what a crash left of an earlier attempt
        shutil.rmtree(target)
    target.mkdir(parents=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.tensors.items()}
    contents = {
        _TENSORS: save_tensors(arrays),
        _STATE: json.dumps(checkpoint.state, sort_keys=True).encode(),
    }
    for name, content in contents.items():
        write_durably(target / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write_durably(target / _MARKER, json.dumps(hashes).encode())
    for old in sorted(_numbered(directory))[:-keep]:
        shutil.rmtree(directory / f"epoch-{old:05d}")


def newest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint below ``directory``, None if there is none."""
    for epoch in sorted(_numbered(directory), reverse=True):
        checkpoint = _read(directory / f"epoch-{epoch:05d}", epoch)
        if checkpoint is not None:
            return checkpoint
    return None


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that after a power cut it is there in full or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _numbered(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return [int(match[1]) for entry in directory.iterdir() if (match := _NAME.fullmatch(entry.name))]


def _read(directory: Path, epoch: int) -> Checkpoint | None:
    try:
        hashes = json.loads((directory / _MARKER).read_bytes())
        contents = {name: (directory / name).read_bytes() for name in (_TENSORS, _STATE)}
    except (OSError, ValueError):
        return None
    if {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} != hashes:
        return None
    return Checkpoint(epoch, load_tensors(contents[_TENSORS]), json.loads(contents[_STATE]))
