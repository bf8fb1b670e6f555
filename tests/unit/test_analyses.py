"""Answers of an analysis: which cannot be answers to the task, and what tells those to one question apart."""

from __future__ import annotations

import pytest
from answering_engine import ANSWERING, QUESTION

from clinic_ai.analyses import check_analysis, saying_which_image
from clinic_ai.contract import AnalysisTask, TaskImage
from clinic_ai.domain import Analysis, Answer, CategoryInfo, FileKind, Instance, InstanceHeader, ModelRef, StudyFacts
from clinic_ai.errors import ChildMisbehaved

SHA, OTHER, REPORT = "a" * 64, "b" * 64, "c" * 64
PINNED = ModelRef(plugin="answering", slot="femur", name="femur", version="1", digest="d" * 64)


def picture(sha256: str, rows: int = 8) -> Instance:
    header = InstanceHeader(kind=FileKind.DICOM, rows=rows, columns=rows)
    return Instance(sha256=sha256, size_bytes=1, header=header)


def check(**answer: object) -> None:
    task = AnalysisTask(
        job_id="J-1",
        facts=StudyFacts(),
        images=(TaskImage(path="/x", sha256=SHA, header=picture(SHA).header),),
        output_directory="/x",
        models=(PINNED,),
        categories=(CategoryInfo(key="femur", label="Femur", questions=("Is the clinic's own question asked?",)),),
    )
    said = Answer.model_validate({"question": QUESTION, "text": "Yes.", "instance_sha256": SHA, **answer})
    check_analysis(
        Analysis(plugin="answering", plugin_version="1", models=(PINNED,), answers=(said,)), ANSWERING, task, ()
    )


@pytest.mark.parametrize(
    "answer", [{}, {"adapter": "femur"}, {"question": "Is the clinic's own question asked?"}, {"instance_sha256": None}]
)
def test_answers_to_what_was_asked_are_taken(answer: dict[str, object]) -> None:
    check(**answer)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ({"instance_sha256": OTHER}, "not in the study"),
        ({"question": "Is John Doe ill?"}, "does not declare"),
        ({"adapter": "abdomen"}, "does not pin"),
    ],
)
def test_answers_to_anything_else_are_not(answer: dict[str, object], wrong: str) -> None:
    with pytest.raises(ChildMisbehaved, match=wrong):
        check(**answer)


def test_answers_say_which_of_several_images_they_are_about() -> None:
    answers = [Answer(question=QUESTION, text="Yes.", instance_sha256=sha256, notes=("n",)) for sha256 in (SHA, OTHER)]
    images = [picture(SHA), picture(REPORT, rows=0), picture(OTHER)]

    assert [answer.notes for answer in saying_which_image(answers, images)] == [
        ("It is about image 1 of 2.", "n"),
        ("It is about image 2 of 2.", "n"),
    ]
    assert saying_which_image(answers[:1], images[:2])[0].notes == ("n",)
