"""What can be said of a frozen dataset: what it holds, by part and subgroup, and whether it may be learned from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from clinic_ai.contract import Dataset, Example
from clinic_ai.domain import Word
from clinic_ai.store.datasets import DatasetView, Placed, Split
from clinic_ai.training.checking import AskedQuestion, asked_questions, counts_of
from clinic_ai.training.sheet_layout import same_question, same_words
from clinic_ai.training.splits import SPLITS

_NAMED = 5
_RARE = 0.05
"""A class that is rarer than this among the images of a part is named."""


class Subgroup(Word):
    """Images of one group of patients or scanners, by part; an empty ``group`` is what no header says."""

    trait: str
    group: str
    images: dict[str, int]


class DatasetDetails(Word):
    """A dataset with all that is known of it: ``parts`` has a sentence for each part with its classes."""

    view: DatasetView
    parts: tuple[str, ...]
    subgroups: tuple[Subgroup, ...] = ()
    questions: tuple[AskedQuestion, ...] = ()


class DatasetCheck(Word):
    """What is wrong with a dataset. ``problems`` forbid to learn from it, ``notes`` are for people to weigh."""

    dataset_id: str
    images: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    subgroups: tuple[Subgroup, ...] = Field(default=())


def details_of(view: DatasetView, dataset: Dataset) -> DatasetDetails:
    """Return what a dataset holds."""
    return DatasetDetails(
        view=view,
        parts=tuple(counts_of(dataset.examples)),
        subgroups=subgroups_of(dataset.examples),
        questions=asked_questions(pair for example in dataset.examples for pair in example.pairs),
    )


def subgroups_of(examples: Sequence[Example]) -> tuple[Subgroup, ...]:
    """Return how many images of each group every part has; traits that no image has are left out."""
    traits = sorted({trait for example in examples for trait in example.groups})
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for example in examples:
        for trait in traits:
            counts[trait, example.groups.get(trait, "")][example.split] += 1
    return tuple(
        Subgroup(trait=trait, group=group, images={split: found[split] for split in SPLITS})
        for (trait, group), found in sorted(counts.items())
    )


def check_of(
    dataset: Dataset,
    damaged: Sequence[str],
    splits: Mapping[str, Split],
    elsewhere: Mapping[str, Placed],
    others: Mapping[str, dict[str, int]],
) -> DatasetCheck:
    """Return what is wrong with a dataset, of which the ``damaged`` images are not what they were.

    ``splits`` and ``elsewhere`` are what all datasets of the plugin settled, ``others`` the labels that newer ones give
    its images.
    """
    examples = dataset.examples
    problems = [
        *_damage(damaged),
        *_leaks(examples),
        *_moved(examples, splits, elsewhere),
        *_contradictions(examples),
        *(f"The {split} part is empty." for split in SPLITS if not any(e.split == split for e in examples)),
    ]
    return DatasetCheck(
        dataset_id=dataset.dataset_id,
        images=len(examples),
        problems=tuple(problems),
        notes=(*_small(examples), *_corrected(examples, others)),
        parts=tuple(counts_of(examples)),
        subgroups=subgroups_of(examples),
    )


def _damage(damaged: Sequence[str]) -> Iterator[str]:
    if damaged:
        yield (
            f"{_images(len(damaged))} missing or not what was frozen{_first(damaged)}. Freeze the dataset again from "
            "its sources, or restore datasets/ from a backup."
        )


def _leaks(examples: Sequence[Example]) -> Iterator[str]:
    images, patients = [(e.sha256, e.split) for e in examples], [(e.patient_key, e.split) for e in examples]
    for what, placed in (("image", images), ("patient", patients)):
        parts: dict[str, set[str]] = defaultdict(set)
        for key, split in placed:
            parts[key].add(split)
        torn = [key for key, found in parts.items() if len(found) > 1]
        if torn:
            yield (
                f"{len(torn)} {what}{' is' if len(torn) == 1 else 's are'} in more than one part{_first(torn)}; the "
                "figures would be too good."
            )


def _moved(examples: Sequence[Example], splits: Mapping[str, Split], elsewhere: Mapping[str, Placed]) -> Iterator[str]:
    patients = {e.patient_key for e in examples if splits.get(e.patient_key, e.split) != e.split}
    if patients:
        yield f"{len(patients)} of its patients belong to another part of this site for life{_first(sorted(patients))}."
    moved = [e for e in examples if e.sha256 in elsewhere and elsewhere[e.sha256].split != e.split]
    if moved:
        other = elsewhere[moved[0].sha256]
        yield (
            f"{_images(len(moved))} in another part of another dataset{_first([e.sha256 for e in moved])}, the first "
            f"in {other.split} of {other.dataset_id}."
        )


def _contradictions(examples: Sequence[Example]) -> Iterator[str]:
    labels: dict[tuple[str, str], set[object]] = defaultdict(set)
    for example in examples:
        for condition, label in example.labels.items():
            labels[example.sha256, condition].add(label)
        for pair in example.pairs:
            labels[example.sha256, same_question(pair.question)].add(same_words(pair.answer))
    torn = sorted({sha256 for (sha256, _), found in labels.items() if len(found) > 1})
    if torn:
        yield f"{_images(len(torn))} there with labels that contradict each other{_first(torn)}."


def _small(examples: Sequence[Example]) -> Iterator[str]:
    conditions = sorted({condition for example in examples for condition in example.labels})
    for split in SPLITS:
        part = [example for example in examples if example.split == split]
        if part and len({example.patient_key for example in part}) == 1:
            yield f"The {split} part is of one patient: its figures say nothing of others."
        for condition in conditions:
            labels = [example.labels[condition] for example in part if condition in example.labels]
            rare = min(labels.count(0), labels.count(1))
            if part and not rare:
                missing = "none with" if not labels.count(1) else "none without"
                yield f"The {split} part has {missing} {condition}."
            elif part and rare < _RARE * len(labels):
                which = "with" if labels.count(1) == rare else "without"
                yield f"Of {len(labels)} images of the {split} part only {rare} are {which} {condition}."


def _corrected(examples: Sequence[Example], others: Mapping[str, dict[str, int]]) -> Iterator[str]:
    differ = [
        example.sha256
        for example in examples
        if any(others.get(example.sha256, {}).get(c, label) != label for c, label in example.labels.items())
    ]
    if differ:
        yield f"{_images(len(differ))} labelled otherwise in a newer dataset{_first(differ)}; train on that one."


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _first(keys: Sequence[str]) -> str:
    """Return the first of some hashes, in short."""
    more = " …" if len(keys) > _NAMED else ""
    return f" ({', '.join(key[:12] for key in keys[:_NAMED])}{more})"
