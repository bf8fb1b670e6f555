"""Phantoms as the files that training data come in: NPZ, NIfTI with a mask for each lesion, and a sheet of labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clinic_ai_ct.formats import Npz, write_labels, write_nifti, write_npz
from clinic_ai_ct.phantoms.making import Phantom

VOLUMES, MASKS, LABELS = "volumes", "lesion_masks", "labels.csv"
SOFT_TISSUE = (40.0, 400.0)
"""Centre and width of the window of the 8-bit volumes, as public sets of this kind have it."""


def to_npz(phantom: Phantom, window: tuple[float, float] = SOFT_TISSUE) -> Npz:
    """Return the phantom as 8-bit grey levels through ``window`` (centre, width in HU), with its regions."""
    low = window[0] - window[1] / 2
    grey = np.clip((phantom.volume.hu - low) * (255.0 / window[1]), 0, 255)
    return Npz(np.rint(grey).astype(np.uint8), phantom.organs, phantom.volume.grid.spacing)


def write_volume(phantom: Phantom, directory: Path, name: str) -> None:
    """Write ``volumes/NAME.npz``, ``volumes/NAME.nii.gz`` in HU, and ``lesion_masks/LESION/NAME.nii.gz`` for each."""
    grid = phantom.volume.grid
    (directory / VOLUMES).mkdir(parents=True, exist_ok=True)
    write_npz(directory / VOLUMES / f"{name}.npz", to_npz(phantom))
    write_nifti(directory / VOLUMES / f"{name}.nii.gz", phantom.volume.hu, grid)
    for lesion, mask in phantom.masks.items():
        if mask.any():
            (directory / MASKS / lesion).mkdir(parents=True, exist_ok=True)
            write_nifti(directory / MASKS / lesion / f"{name}.nii.gz", mask, grid)


def write_collection(directory: Path, phantoms: Iterable[tuple[str, Phantom]]) -> int:
    """Write phantoms by name as a training set with ``labels.csv`` beside them; return how many there were."""
    labels: dict[str, dict[str, int]] = {}
    for name, phantom in phantoms:
        write_volume(phantom, directory, name)
        labels[name] = phantom.labels
    write_labels(directory / LABELS, labels)
    return len(labels)
