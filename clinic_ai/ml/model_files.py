"""Reads and writes ``model.toml`` for trainers: the manifest that pins every file of a model directory."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from clinic_ai.contract import LoadedModel, ModelFile, ModelManifest
from clinic_ai.domain import ModelRef
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import write_durably

MANIFEST = "model.toml"


def write_manifest(directory: Path, manifest: ModelManifest, files: Iterable[Path]) -> ModelManifest:
    """Write ``manifest`` with the size and SHA-256 of ``files`` as ``model.toml``; return it as written."""
    import tomlkit  # only what trains has it

    listed = tuple(
        ModelFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
        for path in files
    )
    manifest = manifest.model_copy(update={"files": listed})
    document = tomlkit.document()
    document.add(tomlkit.comment("What this model is, what it may be used for, and the hash of each of its files."))
    document.update(manifest.model_dump(mode="json", exclude_none=True))
    write_durably(directory / MANIFEST, tomlkit.dumps(document).encode())
    return manifest


def open_model(directory: Path) -> LoadedModel:
    """Return the model in ``directory`` as engines and trainers take it; its files are checked when they load it.

    Raise ModelError if its ``model.toml`` cannot be read.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
        manifest = ModelManifest.model_validate(tomllib.loads(content.decode()))
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(f"The model.toml of {directory.name} cannot be read.") from error
    ref = ModelRef(
        plugin=manifest.plugin,
        slot=manifest.slot,
        name=manifest.name,
        version=manifest.version,
        digest=hashlib.sha256(content).hexdigest(),
        reference=manifest.reference,
    )
    return LoadedModel(ref=ref, directory=str(directory), manifest=manifest)
