"""Which part of a dataset a patient is in, for life: 70 % of them to learn from, 15 % to validate, 15 % to test.

Where there are many, each patient's part follows from a keyed hash alone. A drop of a few labelled images would leave
parts empty that way; there the patients who have no part yet fill the shares of that drop, in the order of the hash.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Mapping
from typing import get_args

from clinic_ai.store.datasets import Split

TRAIN_SHARE = 0.70
VALIDATION_SHARE = 0.15
"""The rest of the patients are for the test."""
FEWEST = 3
"""Patients that a small drop needs: one in each part."""
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(key: bytes, plugin: str, patient: str) -> Split:
    """Return the split of a patient key: 70 / 15 / 15 % by a keyed hash, the same at any time."""
    share = _draw(key, plugin, patient)
    if share < TRAIN_SHARE:
        return "train"
    return "validation" if share < TRAIN_SHARE + VALIDATION_SHARE else "test"


def filled_splits(key: bytes, plugin: str, patients: Collection[str], known: Mapping[str, Split]) -> dict[str, Split]:
    """Return the split of each patient of a drop; who is in ``known`` stays there.

    The others go, in the order of a keyed hash, first where nobody is and then where most of the share is missing.
    With three patients or more of whom none is known, no part is empty.
    """
    splits = {patient: known[patient] for patient in patients if patient in known}
    here = Counter(splits.values())
    wanted = _wanted(len(patients))
    for patient in sorted((p for p in patients if p not in known), key=lambda p: (_draw(key, plugin, p), p)):
        split = max(SPLITS, key=lambda s: (here[s] == 0, wanted[s] - here[s]))
        splits[patient] = split
        here[split] += 1
    return splits


def _wanted(patients: int) -> dict[Split, int]:
    validation, test = (
        max(1, round(patients * share)) for share in (VALIDATION_SHARE, 1 - TRAIN_SHARE - VALIDATION_SHARE)
    )
    return {"train": patients - validation - test, "validation": validation, "test": test}


def _draw(key: bytes, plugin: str, patient: str) -> float:
    """Return a number in 0..1 for a patient key, the same at any time."""
    digest = hmac.new(key, f"split\0{plugin}\0{patient}".encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
