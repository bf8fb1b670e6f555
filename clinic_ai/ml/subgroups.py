"""Figures of a classifier by groups of patients and scanners, as far as dataset or headers tell them apart."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from clinic_ai.ml.dicom_errors import UNREADABLE
from clinic_ai.ml.metrics import at_threshold, auroc, auroc_interval

UNKNOWN = "unknown"
FEWEST = 10
"""Groups of fewer images are counted and not measured."""
FEWEST_PATIENTS = 5
"""Nor are those of fewer patients: the interval draws patients, and one alone gives an interval of no width."""
ROUNDS = 500
"""Bootstrap rounds of a group's interval; there may be many groups."""
_AGES = ((18, "0-17"), (40, "18-39"), (65, "40-64"))
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_YEARS = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_SEXES = {"F": "female", "M": "male", "O": "other"}
_TAGS = ("PatientSex", "PatientAge", "ViewPosition", "StationName", "ManufacturerModelName")
_LONGEST = 64
_DUMMY = "ANONYMIZED"
"""What de-identified copies say where the standard wants some value."""
# What pydicom raises on bytes that are no data set has no common base.
_UNREADABLE = (OSError, *UNREADABLE)


def traits(path: Path | str, groups: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return sex, age group, view, station and model of an image; ``unknown`` where nothing says.

    What a dataset says of the image, the ``groups`` of its ``contract.Example``, goes before what its own header does.
    PNG and JPEG say nothing. Nor do de-identified copies of sex, age and station.
    """
    dataset: Dataset = Dataset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except _UNREADABLE:
        pass  # a picture, or nothing at all: it tells nothing
    sex, age, view, station, model = (_text(dataset, keyword) for keyword in _TAGS)
    said = {"sex": sex, "age": age_group(age), "view": view.upper(), "station": station, "model": model}
    said |= {trait: group for trait, group in (groups or {}).items() if trait in said}
    said["sex"] = _SEXES.get(said["sex"].upper(), "")
    return {trait: group or UNKNOWN for trait, group in said.items()}


def age_group(age: str) -> str:
    """Return the group of an age as DICOM writes it, such as 045Y or 006M."""
    found = _AGE.fullmatch(age.upper())
    if found is None:
        return UNKNOWN
    years = int(found[1]) / _YEARS[found[2]]
    return next((name for below, name in _AGES if years < below), "65+")


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset.get(keyword)
            text = "" if value is None else str(value)
    except _UNREADABLE:
        return ""
    clean = "".join(character for character in text if character.isprintable()).strip()[:_LONGEST]
    return "" if clean == _DUMMY else clean


def by_subgroup(
    images: Sequence[dict[str, str]],
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    threshold: float,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of each group, by trait and group; a trait that no image tells is left out.

    ``images`` are their traits. Each group has ``images``, ``patients`` and ``positives``; unless it has fewer than
    ``FEWEST`` images, fewer than ``FEWEST_PATIENTS`` or one class alone, also ``auroc`` with the 95 %
    ``auroc_interval`` by patient, and ``sensitivity`` and ``specificity`` at ``threshold``.
    """
    truth, chance = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    who = np.asarray(patients)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for trait in dict.fromkeys(name for image in images for name in image):
        group_of = np.array([image[trait] for image in images])
        groups = sorted(set(group_of.tolist()))
        if groups != [UNKNOWN]:
            table[trait] = {
                group: _figures(truth[rows], chance[rows], who[rows].tolist(), threshold)
                for group in groups
                for rows in [np.flatnonzero(group_of == group)]
            }
    return table


def _figures(
    truth: npt.NDArray[np.bool_], chance: npt.NDArray[np.float64], patients: list[str], threshold: float
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "images": truth.size,
        "patients": len(set(patients)),
        "positives": int(truth.sum()),
    }
    enough = truth.size >= FEWEST and figures["patients"] >= FEWEST_PATIENTS
    if enough and truth.any() and not truth.all():
        point = at_threshold(truth, chance, threshold)
        figures |= {
            "auroc": auroc(truth, chance),
            "auroc_interval": auroc_interval(truth, chance, patients, rounds=ROUNDS),
            "sensitivity": point.sensitivity,
            "specificity": point.specificity,
        }
    return figures


def weak_groups(table: dict[str, dict[str, dict[str, Any]]], overall: float) -> list[str]:
    """Return a sentence for each group whose whole AUROC interval lies below the AUROC of all images."""
    return [
        f"In the {figures['images']} images of {_named(trait, group)} the AUROC is {figures['auroc']:.3f} "
        f"(95 % interval {figures['auroc_interval'][0]:.3f} to {figures['auroc_interval'][1]:.3f}), "
        f"lower than {overall:.3f} in all."
        for trait, groups in table.items()
        for group, figures in groups.items()
        if "auroc" in figures and figures["auroc_interval"][1] < overall
    ]


def _named(trait: str, group: str) -> str:
    return group if group.startswith(f"{trait} ") else f"{trait} {group}"
