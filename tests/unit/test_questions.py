"""Which image is meant, and which answers of an engine cannot be true."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from answering_engine import ANSWERING, model

from clinic_ai.contract import QuestionTask, TaskImage
from clinic_ai.domain import (
    Answer,
    Audience,
    CategoryInfo,
    FileKind,
    Instance,
    InstanceHeader,
    StudyFacts,
)
from clinic_ai.errors import ChildMisbehaved, InputError
from clinic_ai.questions import check_answer, chosen_image

HASHES = ("12345678" + "a" * 56, "12345678" + "b" * 56, "c" * 64)
FEMUR = ANSWERING.model_copy(update={"categories": (CategoryInfo(key="femur", label="Femur"),)})


def instance(sha256: str, rows: int = 10) -> Instance:
    header = InstanceHeader(kind=FileKind.DICOM, rows=rows, columns=rows, frames=1 if rows else 0)
    return Instance(sha256=sha256, size_bytes=1, header=header)


def task(frames: int = 1, frame: int | None = None, *, base_answers: bool = False) -> QuestionTask:
    header = InstanceHeader(kind=FileKind.DICOM, rows=10, frames=frames)
    return QuestionTask(
        job_id="Q-1",
        question="Is it?",
        audience=Audience.CLINICIAN,
        facts=StudyFacts(),
        image=TaskImage(path="/x", sha256=HASHES[2], header=header, category="femur"),
        frame=frame,
        models=(),
        base_answers=base_answers,
    )


def answer(**changes: object) -> Answer:
    right = {"question": "Is it?", "text": "Yes.", "instance_sha256": HASHES[2], "category": "femur"}
    return Answer.model_validate({**right, "adapter": "femur", **changes})


@pytest.mark.parametrize(("image", "number"), [("1", 1), ("2", 2), ("12345678A", 1), ("12345678b", 2), ("c" * 64, 3)])
def test_an_image_is_named_by_number_or_by_its_hash(image: str, number: int) -> None:
    images = [instance(HASHES[0]), instance("d" * 64, rows=0), instance(HASHES[1]), instance(HASHES[2])]

    assert chosen_image(images, image)[0] == number


@pytest.mark.parametrize("image", [None, "0", "4", "12345678", "ccc", "e" * 64])
def test_an_image_that_is_not_there_or_one_of_several_is_not_guessed(image: str | None) -> None:
    with pytest.raises(InputError, match="has 3 images") as found:
        chosen_image([instance(sha256) for sha256 in HASHES], image)

    assert "1 to 3" in found.value.remedy


def test_one_image_alone_needs_no_name_and_a_study_without_has_none() -> None:
    assert chosen_image([instance("d" * 64, rows=0), instance(HASHES[2])], None)[0] == 1
    with pytest.raises(InputError, match="no image"):
        chosen_image([instance("d" * 64, rows=0)], None)


@pytest.mark.parametrize(
    ("given", "asked", "models"),
    [
        (answer(), task(), ("base", "femur")),
        (answer(frame=3), task(frames=9, frame=3), ("base", "femur")),
        (answer(frame=8), task(frames=9), ("base", "femur")),
        (answer(adapter=""), task(base_answers=True), ("base", "abdomen")),
    ],
)
def test_answers_that_may_be_true_are_taken(given: Answer, asked: QuestionTask, models: Sequence[str]) -> None:
    check_answer(given, FEMUR, asked, [model(slot) for slot in models])


@pytest.mark.parametrize(
    ("given", "asked", "models", "wrong"),
    [
        (answer(question="Is it not?"), task(), ("base", "femur"), "another question"),
        (answer(instance_sha256=HASHES[0]), task(), ("base", "femur"), "another image"),
        (answer(instance_sha256=None), task(), ("base", "femur"), "another image"),
        (answer(frame=9), task(frames=9), ("base", "femur"), "does not have"),
        (answer(frame=2), task(frames=9, frame=3), ("base", "femur"), "another frame"),
        (answer(), task(frames=9, frame=3), ("base", "femur"), "another frame"),
        (answer(category=""), task(), ("base", "femur"), "another category"),
        (answer(), task(base_answers=True), ("base",), "pins"),
        (answer(adapter=""), task(base_answers=True), ("base", "femur"), "pins"),
        (answer(adapter="abdomen"), task(), ("base", "femur", "abdomen"), "pins"),
        (answer(adapter=""), task(), ("base",), "the base answered"),
        (answer(text=" "), task(), ("base", "femur"), "no words"),
    ],
)
def test_answers_that_cannot_be_true_are_not(
    given: Answer, asked: QuestionTask, models: Sequence[str], wrong: str
) -> None:
    with pytest.raises(ChildMisbehaved, match=wrong):
        check_answer(given, FEMUR, asked, [model(slot) for slot in models])
