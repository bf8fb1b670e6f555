"""What is told of an image beside its copy, for figures by group: coarse, and nothing that names anybody."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from clinic_ai.ml.subgroups import UNKNOWN, age_group
from clinic_ai.workers.confidentiality.keys import Keys
from clinic_ai.workers.values import text_of

_LONGEST = 64
_OLDEST = 120
"""In years; more is a date that was mistyped or made up."""
_SEXES = frozenset({"M", "F", "O"})
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})", re.ASCII)


def lost_groups(original: Dataset, keys: Keys) -> dict[str, str]:
    """Return sex, age group and pseudonym of the station, as far as an original says; its copy says none of them."""
    sex, station = text_of(original, "PatientSex", 16).upper(), text_of(original, "StationName", _LONGEST)
    return _said(
        sex=sex if sex in _SEXES else "",
        age=_age(original),
        station=keys.station(station) if station else "",
    )


def kept_groups(copy: Dataset) -> dict[str, str]:
    """Return view and model of a copy: what it kept repeats no name and no number of the patient."""
    return _said(view=text_of(copy, "ViewPosition", 16), model=text_of(copy, "ManufacturerModelName", _LONGEST))


def _said(**groups: str) -> dict[str, str]:
    return {trait: group for trait, group in groups.items() if group}


def _age(original: Dataset) -> str:
    """Return the group of the age, which many scanners leave to be told from birth and study date."""
    group = age_group(text_of(original, "PatientAge", _LONGEST))
    if group != UNKNOWN:
        return group
    born, seen = (_DATE.fullmatch(text_of(original, keyword, 16)) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is None or seen is None:
        return ""
    years = int(seen[1]) - int(born[1]) - ((seen[2], seen[3]) < (born[2], born[3]))
    return age_group(f"{years:03d}Y") if 0 <= years <= _OLDEST else ""
