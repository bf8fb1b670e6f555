"""What ``dataset check`` finds in a dataset, and what it only notes."""

from __future__ import annotations

from clinic_ai.contract import Dataset, Example
from clinic_ai.domain import QuestionAnswer
from clinic_ai.store.datasets import Placed, Split
from clinic_ai.training.inspection import DatasetCheck, check_of


def example(number: int, split: Split, label: int = 1, patient: str = "", **more: object) -> Example:
    return Example.model_validate(
        {"path": "", "sha256": f"{number:064x}", "patient_key": patient or f"p{number}", "labels": {"gout": label}}
        | {"split": split}
        | more
    )


def checked(*examples: Example, **more: object) -> DatasetCheck:
    dataset = Dataset(dataset_id="D-1", plugin="tiny", digest="a" * 64, examples=examples)
    known = {"damaged": (), "splits": {}, "elsewhere": {}, "others": {}} | more
    return check_of(dataset, known["damaged"], known["splits"], known["elsewhere"], known["others"])  # type: ignore[arg-type]


GOOD = tuple(
    example(3 * number + place, split, number % 2, groups={"sex": "MF"[number % 2]})
    for number in range(4)
    for place, split in enumerate(("train", "validation", "test"))
)


def test_a_good_dataset_has_no_problem_and_counts_its_subgroups() -> None:
    found = checked(*GOOD)
    assert (found.problems, found.notes, found.images) == ((), (), 12)
    assert [(group.trait, group.group, sum(group.images.values())) for group in found.subgroups] == [
        ("sex", "F", 6),
        ("sex", "M", 6),
    ]


def test_damage_leaks_and_moved_patients_are_problems() -> None:
    torn = (example(90, "train", patient="x"), example(91, "test", patient="x"), example(90, "validation", patient="y"))
    found = checked(
        *GOOD,
        *torn,
        damaged=[f"{1:064x}"],
        splits={"p0": "test"},
        elsewhere={f"{1:064x}": Placed("test", "D-2", "q")},
    )
    said = " ".join(found.problems)
    for expected in (
        "1 image is missing or not what was frozen (000000000000).",
        "1 image is in more than one part",
        "1 patient is in more than one part (x)",
        "1 of its patients belong to another part of this site for life (p0).",
        "1 image is in another part of another dataset (000000000000), the first in test of D-2.",
    ):
        assert expected in said


def test_contradictions_and_empty_parts_are_problems() -> None:
    asked = (
        QuestionAnswer(question="Which side?", answer="left"),
        QuestionAnswer(question="which side", answer="right"),
    )
    found = checked(example(1, "train", pairs=asked), example(2, "train", 1), example(2, "train", 0))
    assert found.problems == (
        "2 images are there with labels that contradict each other (000000000000, 000000000000).",
        "The validation part is empty.",
        "The test part is empty.",
    )


def test_small_parts_rare_classes_and_later_corrections_are_noted() -> None:
    lonely = (example(50, "train", 1, "one"), example(51, "train", 0, "one"))
    many = tuple(example(100 + number, "validation", int(number > 0)) for number in range(40))
    found = checked(*lonely, *many, example(7, "test", 0), example(8, "test", 0), others={f"{7:064x}": {"gout": 1}})
    assert found.problems == ()
    assert found.notes == (
        "The train part is of one patient: its figures say nothing of others.",
        "Of 40 images of the validation part only 1 are without gout.",
        "The test part has none with gout.",
        "1 image is labelled otherwise in a newer dataset (000000000000); train on that one.",
    )
