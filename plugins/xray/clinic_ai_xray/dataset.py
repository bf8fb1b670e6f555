"""A frozen dataset as the trainer needs it: checked, one condition, features computed once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from clinic_ai.contract import Dataset, Example
from clinic_ai.errors import DatasetError, InputError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai_xray.data import PREPROCESSING_VERSION, in_threads, read_input
from clinic_ai_xray.served import ServedModel

_SHARD = 128


def condition_of(dataset: Dataset, wanted: str = "") -> str:
    """Return the condition to learn: ``wanted``, or the only one the dataset labels. Raise DatasetError if unclear."""
    named = sorted({label for example in dataset.examples for label in example.labels})
    if wanted and wanted not in named:
        raise DatasetError(f"No image of dataset {dataset.dataset_id} has a label for {wanted}.")
    if not wanted and len(named) != 1:
        what = f"labels {', '.join(named)}" if named else "holds no label"
        raise DatasetError(
            f"Dataset {dataset.dataset_id} {what}; one condition is trained at a time.",
            remedy="Name one with the recipe's key condition.",
        )
    return wanted or named[0]


def labelled(dataset: Dataset, condition: str) -> list[Example]:
    """Return the examples with a label for ``condition``. Raise DatasetError if training would leak or mean nothing."""
    examples = [example for example in dataset.examples if condition in example.labels]
    _refuse_leaks(examples, condition)
    for split in ("train", "validation"):
        part = [example for example in examples if example.split == split]
        counts = Counter(example.labels[condition] for example in part)
        if counts[1] < 2 or counts[0] < 2:
            raise DatasetError(
                f"The {split} part has {counts[1]} images with {condition} and {counts[0]} without; "
                "at least two of each are needed.",
                remedy="Add labelled images of more patients.",
            )
        if len({example.patient_key for example in part}) < 2:
            raise DatasetError(
                f"All images of the {split} part are of one patient.", remedy="Add images of more patients."
            )
    return examples


def _refuse_leaks(examples: list[Example], condition: str) -> None:
    patients: dict[str, set[str]] = {}
    pictures: dict[str, set[tuple[str, int]]] = {}
    for example in examples:
        patients.setdefault(example.patient_key, set()).add(example.split)
        pictures.setdefault(example.sha256, set()).add((example.split, example.labels[condition]))
    torn = sum(len(splits) > 1 for splits in patients.values())
    if torn:
        raise DatasetError(f"{torn} patients are in more than one part of the split; the figures would be too good.")
    contradicting = sum(len({label for _, label in uses}) > 1 for uses in pictures.values())
    if contradicting:
        raise DatasetError(
            f"{contradicting} images are labelled both with and without {condition}.",
            remedy="Remove one label of each, then freeze the dataset again.",
        )
    shared = sum(len({split for split, _ in uses}) > 1 for uses in pictures.values())
    if shared:
        raise DatasetError(f"{shared} images are in more than one part of the split under different patients.")


@dataclass(frozen=True)
class Features:
    """What the frozen base makes of the images: float32 (n, 2, 1280), the image and its mirror; and their examples."""

    values: npt.NDArray[np.float32]
    examples: tuple[Example, ...]

    def part(self, split: str, condition: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[str]]:
        """Return features, labels and patients of one part of the split."""
        rows = [row for row, example in enumerate(self.examples) if example.split == split]
        labels = np.array([self.examples[row].labels[condition] for row in rows], dtype=np.float32)
        return self.values[rows], labels, [self.examples[row].patient_key for row in rows]


class Stopped(Exception):
    """The run was asked to stop while features were computed; whole shards are kept."""


def compute_features(
    base: ServedModel, examples: list[Example], cache: Path, report: Callable[[int], None], stop: Callable[[], bool]
) -> tuple[Features, int]:
    """Return the features of all readable examples, and how many images could not be read.

    Results are kept in shards below ``cache`` and not computed again; the name of a shard follows from the base,
    the preparation and the images. Raise Stopped if ``stop`` says so between two shards.
    """
    cache.mkdir(parents=True, exist_ok=True)
    values: list[npt.NDArray[np.float32]] = []
    readable: list[Example] = []
    for begin in range(0, len(examples), _SHARD):
        if stop():
            raise Stopped
        shard = examples[begin : begin + _SHARD]
        part = _shard(base, shard, cache)
        kept = np.flatnonzero(part["readable"])
        values.append(part["features"][kept])
        readable += [shard[row] for row in kept]
        report(begin + len(shard))
    if not readable:
        raise DatasetError("None of the images of the dataset can be read.")
    return Features(np.concatenate(values), tuple(readable)), len(examples) - len(readable)


def _shard(base: ServedModel, examples: list[Example], cache: Path) -> dict[str, npt.NDArray[np.float32]]:
    key = f"{base.ref.digest} {PREPROCESSING_VERSION} {' '.join(example.sha256 for example in examples)}"
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        pass  # not computed yet, or cut short
    # Each image goes its way alone: nothing depends on which others are beside it, or on the number of threads.
    rows = in_threads(lambda example: _pair(base, example), examples, base.threads)
    empty = np.zeros((2, base.feature_count), dtype=np.float32)
    part = {
        "features": np.stack([empty if row is None else row for row in rows]).astype(np.float32),
        "readable": np.array([row is not None for row in rows], dtype=np.float32),
    }
    write_durably(path, save(part))
    return part


def _pair(base: ServedModel, example: Example) -> npt.NDArray[np.float32] | None:
    """Return the features (2, feature_count) of an image and its mirror, None if it cannot be read."""
    try:
        image = read_input(example.path, base.side)
    except InputError:
        return None
    return base.features(np.stack([image, image[:, ::-1]])[:, None])
