"""UIDs of the objects the appliance makes: derived, so that making a report again gives the same objects."""

from __future__ import annotations

import re
import uuid

_NAMESPACE = uuid.UUID("6f1c2a34-4c0e-5d7b-9a51-0d3f6c1e8b27")
_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+", re.ASCII)


def derived_uid(study_id: str, version: int, role: str) -> str:
    """Return the UID of one object of a study version, under 2.25 (PS3.5 B.2). ``role`` tells its objects apart."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{study_id}/{version}/{role}').int}"


def is_uid(text: str) -> bool:
    """Return whether ``text`` is a valid UID (PS3.5 section 9.1); of the roots only 0 to 2 exist (ISO/IEC 9834-1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None
