"""Healthy examples: pictures of other people that the clinic approved to stand beside a patient's own.

A folder with, for each picture, a file of facts such as ``chest-pa.toml``. None ships with the appliance. A picture
counts only while it is byte for byte the one that was approved.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinic_ai.domain import FileName, Sha256, StudyFacts
from clinic_ai.guard.intents import HealthyExample

FOLDER = "examples"
"""Folder of the home that holds them."""
MAX_FACTS_BYTES = 10_000
MAX_IMAGE_BYTES = 50 << 20
_PICTURES = frozenset({".png", ".jpg", ".jpeg"})


class ExampleFile(BaseModel):
    """A file of facts. ``sha256`` is that of the picture, 64 hexadecimal digits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: str = Field(min_length=1, max_length=16)
    body_part: str = Field(min_length=1, max_length=16)
    view: str = Field(default="", max_length=16)
    """View position as in DICOM, such as ``PA``; empty for scanners that have none."""
    image: FileName
    sha256: Sha256
    approved_by: str = Field(min_length=1, max_length=200)
    approved_on: date


def load_examples(folder: Path) -> tuple[tuple[HealthyExample, ...], tuple[str, ...]]:
    """Return the examples that may be shown, and in sentences what is wrong with the others. Never raises."""
    examples: list[HealthyExample] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            examples.append(_read(path))
        except (OSError, ValueError) as error:
            problems.append(f"The healthy example {path.name} is not shown: {_why(error)}")
    return tuple(examples), tuple(problems)


def fitting(examples: Iterable[HealthyExample], facts: StudyFacts) -> HealthyExample | None:
    """Return the first example of the same modality, body part and view as the study, or None."""
    modalities = {m.upper() for m in facts.modalities}
    parts = {p.upper() for p in facts.body_parts}
    views = {v.upper() for v in facts.views if v} or {""}
    return next(
        (
            example
            for example in examples
            if {example.modality.upper()} == modalities
            and {example.body_part.upper()} == parts
            and {example.view.upper()} == views
        ),
        None,
    )


def _read(path: Path) -> HealthyExample:
    with path.open("rb") as stream:
        content = stream.read(MAX_FACTS_BYTES + 1)
    if len(content) > MAX_FACTS_BYTES:
        raise ValueError(f"it is larger than {MAX_FACTS_BYTES} bytes.")
    facts = ExampleFile.model_validate(tomllib.loads(content.decode("utf-8-sig")))
    picture = path.with_name(facts.image)
    if picture.suffix.lower() not in _PICTURES or picture.is_symlink():
        raise ValueError(f"{facts.image} is no PNG or JPEG file of this folder.")
    if picture.stat().st_size > MAX_IMAGE_BYTES:
        raise ValueError(f"{facts.image} is larger than {MAX_IMAGE_BYTES >> 20} MiB.")
    with picture.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != facts.sha256:
            raise ValueError(f"{facts.image} is not the picture that was approved (its SHA-256 differs).")
    return HealthyExample(
        example_id=path.stem, **facts.model_dump(include={"modality", "body_part", "view", "image", "approved_by"})
    )


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        return "; ".join(wrong) + "."
    return f"{error.strerror}." if isinstance(error, OSError) else str(error)
