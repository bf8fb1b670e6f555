"""A frozen dataset as the trainer needs it: one category, questions with answers, nothing in two parts of the split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clinic_ai.contract import Dataset, Example
from clinic_ai.errors import DatasetError

SPLITS = ("train", "validation", "test")


def labelled(dataset: Dataset) -> list[Example]:
    """Return the examples that have questions with answers.

    Raise DatasetError if the dataset names no category, if training on it would leak or mean nothing.
    """
    if not dataset.category:
        raise DatasetError(
            f"Dataset {dataset.dataset_id} does not say which category its images are of.",
            remedy="Name the folder of the images after a category, such as labels/ultrasound/femur.",
        )
    examples = [example for example in dataset.examples if example.pairs]
    if not examples:
        raise DatasetError(
            f"Dataset {dataset.dataset_id} holds no question with an answer.",
            remedy="Put a sheet (.xlsx) with questions and answers beside the images.",
        )
    refuse_leaks(examples)
    refuse_contradictions(examples)
    refuse_empty(examples)
    return examples


def refuse_empty(examples: Sequence[Example]) -> None:
    """Raise DatasetError if a part of the split has no questions."""
    for split in SPLITS:
        if not any(example.split == split for example in examples):
            raise DatasetError(
                f"The {split} part has no image with questions and answers; of {len(examples)} images none is in it.",
                remedy="Label more images: each of the three parts needs at least one, and a patient is in one alone.",
            )


def refuse_leaks(examples: Iterable[Example]) -> None:
    """Raise DatasetError if a patient or an image is in more than one part of the split."""
    patients: dict[str, set[str]] = {}
    images: dict[str, set[str]] = {}
    for example in examples:
        patients.setdefault(example.patient_key, set()).add(example.split)
        images.setdefault(example.sha256, set()).add(example.split)
    for what, parts in (("images", images), ("patients", patients)):
        torn = sum(len(splits) > 1 for splits in parts.values())
        if torn:
            raise DatasetError(
                f"{torn} {what} are in more than one part of the split; the figures would be too good.",
                remedy="Freeze the dataset again; the split is by patient, or by image where the patient is not known.",
            )


def refuse_contradictions(examples: Iterable[Example]) -> None:
    """Raise DatasetError if one question about one image has two answers."""
    answers: dict[tuple[str, str], set[str]] = {}
    for example in examples:
        for pair in example.pairs:
            answers.setdefault((example.sha256, pair.question), set()).add(pair.answer)
    double = [sha256 for (sha256, _), given in answers.items() if len(given) > 1]
    if double:
        raise DatasetError(
            f"{len(double)} questions about one image have more than one answer, first about {double[0][:12]}.",
            remedy="Leave one answer of each in the sheet, then freeze the dataset again.",
        )


def count_pairs(examples: Iterable[Example]) -> int:
    """Return how many questions with answers there are."""
    return sum(len(example.pairs) for example in examples)


def described(examples: Sequence[Example]) -> list[str]:
    """Return a sentence for each part of the split: how many images, pairs and patients."""
    sentences = []
    for split in SPLITS:
        part = [example for example in examples if example.split == split]
        images, patients = len({e.sha256 for e in part}), len({e.patient_key for e in part})
        counted = ((images, "image"), (count_pairs(part), "question"), (patients, "patient"))
        words = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counted)
        sentences.append(f"{split}: {words}.")
    return sentences
