"""A frozen dataset as the trainer needs it: checked, one condition."""

from __future__ import annotations

from collections import Counter

from clinic_ai.contract import Dataset, Example
from clinic_ai.errors import DatasetError


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
                f"All {len(part)} images of the {split} part are of one patient.", remedy="Add images of more patients."
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
