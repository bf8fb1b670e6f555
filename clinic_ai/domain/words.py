"""What all words have in common: identifiers, checked texts and numbers."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
MAX_TEXT = 4000
"""Longest text of one statement, in characters."""
MAX_QUESTION = 2000
"""Characters of a question that are looked at; a longer one is not understood."""
Words = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: nothing that reads as something else


def new_id(prefix: str, *, at: float | None = None) -> str:
    """Return an identifier of our own, such as ``S-20261121-7F3K9QXB``; never built from a DICOM value."""
    day = time.strftime("%Y%m%d", time.gmtime(at))
    return f"{prefix}-{day}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(8))}"


class Word(BaseModel):
    """Base of every word: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


class Audience(StrEnum):
    """Who reads it."""

    CLINICIAN = "clinician"
    PATIENT = "patient"
    TECHNICIAN = "technician"
