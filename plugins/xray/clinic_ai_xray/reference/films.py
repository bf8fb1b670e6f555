"""The NIH films that the reference model is built from, and which patient is in which part."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clinic_ai_xray.data import read_input, stack
from clinic_ai_xray.fitting import Images, Labels
from clinic_ai_xray.tiers import FAST

FOLDS = 5
_VALIDATION = 0.15

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Films:
    """Images (n, 1, side, side), labels (n,), the patient of each, and whether its two sources of labels disagree."""

    images: Images
    labels: Labels
    patients: tuple[str, ...]
    doubtful: Rows

    def validation(self) -> Rows:
        """Return the films of patients that only choose the epoch, unless they are kept apart to be measured on."""
        return np.array([_share("validation ", patient) < _VALIDATION for patient in self.patients])

    def fold(self, number: int) -> Rows:
        """Return the films of the patients of one fold of ``FOLDS``."""
        return np.array([int(_share("fold ", patient) * FOLDS) == number for patient in self.patients])

    def of(self, rows: Rows) -> tuple[Images, Labels]:
        """Return images and labels of some films."""
        return self.images[rows], self.labels[rows]


def _share(salt: str, patient: str) -> float:
    """Return a number in 0..1 that follows from a patient's identifier alone, in every run and any other set."""
    return int.from_bytes(hashlib.sha256(f"{salt}{patient}".encode()).digest()[:4]) / 2**32


def read_films(data: Path, side: int = FAST.side) -> Films:
    """Read ``labels.csv`` (columns file, patient_id, folder_label, flag_folder_vs_nih) and the images it names."""
    with (data / "labels.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    return Films(
        stack([read_input(data / row["file"], side) for row in rows]),
        np.array([int(row["folder_label"] == "Pneumonia") for row in rows], dtype=np.int64),
        tuple(row["patient_id"] for row in rows),
        np.array([row["flag_folder_vs_nih"] == "1" for row in rows]),
    )
