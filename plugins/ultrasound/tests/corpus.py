"""A small labelled dataset for the tests of the trainer: grey clouds, three questions each, two images a patient."""

from __future__ import annotations

from pathlib import Path

from clinic_ai.contract import Dataset, Example
from clinic_ai.domain import QuestionAnswer

VIEW = "Which view does the image show?"
HALF = "In which half of the image does the abdomen lie?"
WHOLE = "Is the whole head in view?"


def pairs(number: int) -> tuple[QuestionAnswer, ...]:
    """Return three questions with answers; the last depends on the image."""
    whole = ("Yes.", "No, it is cut off.")[number % 2]
    answers = {VIEW: "The image shows the femur.", HALF: "In the left half.", WHOLE: whole}
    return tuple(QuestionAnswer(question=question, answer=answer) for question, answer in answers.items())


def make_dataset(picture_file, *, train=6, validation=4, test=4) -> Dataset:
    """Return a dataset whose pictures ``picture_file`` draws."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    examples = tuple(
        Example(
            path=str(picture_file(number)),
            sha256=f"{number + 1:02x}" * 32,
            patient_key=f"person-{number // 2}",
            labels={},
            split=split,
            pairs=pairs(number),
        )
        for number, split in enumerate(splits)
    )
    return Dataset(dataset_id="D-1", plugin="ultrasound", digest="1" * 64, examples=examples, category="femur")


def nowhere(example: Example, folder: Path) -> Example:
    """Return an example whose file is gone."""
    return example.model_copy(update={"path": str(folder / "gone.png")})
