"""What keeps a set of labelled images from being learned from, and what would be learned from it, in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from clinic_ai.contract import Dataset, Example
from clinic_ai.domain import QuestionAnswer, Word
from clinic_ai.store.datasets import Split
from clinic_ai.training.clean_images import HashedImage
from clinic_ai.training.label_reading import LabelFolder
from clinic_ai.training.labelled_folder import Reading, counted
from clinic_ai.training.sheet_layout import same_question, same_words
from clinic_ai.training.splits import FEWEST, SPLITS

MAX_PROBLEMS = 1000
"""So many are listed; whoever has more has one reason for them."""


class AskedQuestion(Word):
    """A question of a dataset: how many images have an answer to it, and how many different answers there are."""

    question: str
    images: int
    answers: int


class Checked(Word):
    """What would be learned from a folder. ``parts`` has a sentence for each split; none if there are problems.

    ``images`` and ``pairs`` count what carries labels, ``patients`` by split.
    """

    directory: str
    """What was looked at: a folder, or what was signed."""
    category: str = ""
    images: int = 0
    pairs: int = 0
    patients: dict[str, int] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()
    questions: tuple[AskedQuestion, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def checked(folder: LabelFolder, reading: Reading, dataset: Dataset | None, problems: Sequence[str]) -> Checked:
    """Return what a folder would give: of the ``dataset`` it would become, or as far as it was read."""
    examples = dataset.examples if dataset else ()
    pairs = [pair for labelled in (examples or reading.images) for pair in labelled.pairs]
    patients = Counter(split for split, _ in {(example.split, example.patient_key) for example in examples})
    return Checked(
        directory=folder.said,
        category=folder.key,
        images=len(examples or reading.images),
        pairs=len(pairs),
        patients={split: patients[split] for split in SPLITS} if dataset else {},
        parts=tuple(counts_of(examples)) if dataset else (),
        questions=asked_questions(pairs),
        notes=dataset.notes if dataset else tuple(reading.notes),
        problems=_first(problems),
    )


def _first(problems: Sequence[str]) -> tuple[str, ...]:
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], f"… and {more} more.") if more > 0 else tuple(problems)


def asked_questions(pairs: Iterable[QuestionAnswer]) -> tuple[AskedQuestion, ...]:
    """Return each question, in the order in which they come first."""
    asked: dict[str, list[QuestionAnswer]] = defaultdict(list)
    for pair in pairs:
        asked[same_question(pair.question)].append(pair)
    return tuple(
        AskedQuestion(
            question=found[0].question,
            images=len(found),
            answers=len({same_words(pair.answer) for pair in found}),
        )
        for found in asked.values()
    )


def counts_of(examples: Sequence[Example]) -> list[str]:
    """Return a sentence for each part of the split: what and whose it is, in all and by condition, or with pairs."""
    conditions = sorted({condition for example in examples for condition in example.labels})
    noun = "volume" if any(example.beside for example in examples) else "image"
    sentences = []
    for split in SPLITS:
        part = [example for example in examples if example.split == split]
        pairs = sum(len(example.pairs) for example in part)
        said = [f"{split}: {_count(part, noun)}" + (f", {pairs} pairs of question and answer" if pairs else "")]
        for condition in conditions:
            present, absent = ([e for e in part if e.labels.get(condition) == label] for label in (1, 0))
            if part:
                said.append(f"{condition} in {_count(present, noun)}, not in {_count(absent, noun)}")
        sentences.append("; ".join(said) + ".")
    return sentences


def _count(examples: Sequence[Example], noun: str) -> str:
    images, patients = len(examples), len({example.patient_key for example in examples})
    return f"{images} {noun}{'' if images == 1 else 's'} of {patients} patient{'' if patients == 1 else 's'}"


def refuse_one_patient(unique: Sequence[HashedImage], splits: Mapping[str, Split], problems: list[str]) -> None:
    """Add a problem if all images are of one patient."""
    if len(splits) < 2:
        problems.append(f"All images ({len(unique)}) are of one patient; nothing could be validated on another.")


def refuse_empty_parts(splits: Mapping[str, Split], problems: list[str]) -> None:
    """Add a problem if nobody is left for a part of a small drop."""
    empty = [split for split in SPLITS if split not in splits.values()]
    if len(splits) < FEWEST:
        problems.append(
            f"There are images of {counted(len(splits), 'patient', 'only', 'only')}; at least {FEWEST} are needed, to "
            "learn from, to validate and to test, each on another one."
        )
    elif empty:
        problems.append(
            f"Nobody is left for {' and '.join(empty)}: these patients were put elsewhere, for life, by an earlier "
            "dataset. Add images of other patients."
        )
