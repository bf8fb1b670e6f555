"""Answers of an analysis: which cannot be answers to the task, and what tells those to one question apart."""

from __future__ import annotations

import pytest
from answering_engine import ANSWERING, QUESTION, model

from clinic_ai.analyses import check_analysis, saying_which_image
from clinic_ai.contract import AnalysisTask, ConditionInfo, TaskImage
from clinic_ai.domain import Analysis, Answer, CategoryInfo, FileKind, Instance, InstanceHeader, StudyFacts
from clinic_ai.errors import ChildMisbehaved

SHA, OTHER, REPORT = "a" * 64, "b" * 64, "c" * 64
OWN = "Is the clinic's own question asked?"
FEMUR = {"category": "femur", "adapter": "femur"}
THORAX = {"category": "thorax", "adapter": ""}


def picture(sha256: str, rows: int = 8) -> Instance:
    header = InstanceHeader(kind=FileKind.DICOM, rows=rows, columns=rows)
    return Instance(sha256=sha256, size_bytes=1, header=header)


def check(*, image: str = "", base_answers: bool = False, **answer: object) -> None:
    models = (model("base"), model("femur"))
    refs = tuple(one.ref for one in models)
    categories = tuple(CategoryInfo(key=key, label=key, questions=(OWN,)) for key in ("femur", "thorax"))
    task = AnalysisTask(
        job_id="J-1",
        facts=StudyFacts(),
        images=(TaskImage(path="/x", sha256=SHA, header=picture(SHA).header, category=image),),
        output_directory="/x",
        models=refs,
        categories=categories if image else (),
        base_answers=base_answers,
    )
    said = Answer.model_validate({"question": QUESTION, "text": "Yes.", "instance_sha256": SHA, **answer})
    check_analysis(
        Analysis(plugin="answering", plugin_version="1", models=refs, answers=(said,)),
        ANSWERING.model_copy(update={"categories": task.categories}),
        task,
        models,
    )


@pytest.mark.parametrize("answer", [{}, {"adapter": "femur"}, {"instance_sha256": None}])
def test_answers_to_what_was_asked_are_taken(answer: dict[str, object]) -> None:
    check(**answer)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ({"instance_sha256": OTHER}, "not in the study"),
        ({"question": "Is John Doe ill?"}, "does not declare"),
        ({"adapter": "abdomen"}, "does not pin"),
        ({"category": "John Doe is ill"}, "another category"),
        ({"category": "John Doe is ill", "instance_sha256": None}, "without an image"),
        ({"frame": 1}, "does not have"),
    ],
)
def test_answers_to_anything_else_are_not(answer: dict[str, object], wrong: str) -> None:
    with pytest.raises(ChildMisbehaved, match=wrong):
        check(**answer)


def test_the_base_answers_only_where_the_clinic_lets_it_and_an_adapter_of_its_own_category_alone() -> None:
    check(image="femur", question=OWN, **FEMUR)
    check(image="thorax", question=OWN, **THORAX, base_answers=True)
    for given, wrong in (
        ({**THORAX, "image": "thorax"}, "does not let it"),
        ({**THORAX, "image": "thorax", "adapter": "femur", "base_answers": True}, "pins for the category"),
        ({**FEMUR, "image": "femur", "adapter": ""}, "pins for the category"),
        ({**FEMUR, "image": "thorax"}, "another category"),
    ):
        with pytest.raises(ChildMisbehaved, match=wrong):
            check(**{"question": OWN, **given})


def test_answers_say_which_of_several_images_they_are_about() -> None:
    answers = [Answer(question=QUESTION, text="Yes.", instance_sha256=sha256, notes=("n",)) for sha256 in (SHA, OTHER)]
    images = [picture(SHA), picture(REPORT, rows=0), picture(OTHER)]

    assert [answer.notes for answer in saying_which_image(answers, images)] == [
        ("It is about image 1 of 2.", "n"),
        ("It is about image 2 of 2.", "n"),
    ]
    assert saying_which_image(answers[:1], images[:2])[0].notes == ("n",)


def outlined(**changes: object) -> Analysis:
    """Return an analysis with a finding, a segmentation of it and a report of one sentence, changed by place."""
    values: dict[str, object] = {
        "plugin": "answering",
        "plugin_version": "1",
        "models": (),
        "findings": ({"condition": "pneumonia", "label": "P", "probability": 1, "threshold": 0.5, "presence": "present",
                      "instance_sha256": SHA},),
        "files": ({"name": "m.npz", "role": "mask", "media_type": "application/x-npz"},),
        "masks": ({"name": "pneumonia"},),
        "segmentations": (segmentation(),),
        "report": ({"section": "findings", "text": "P.", "conditions": ("pneumonia",), "findings": (0,),
                    "masks": (0,)},),
    }  # fmt: skip
    return Analysis.model_validate(values | changes)


def segmentation(**changes: object) -> dict[str, object]:
    segment = {"number": 1, "name": "pneumonia", "label": "P"}
    slices = ({"sha256": SHA, "frame": 0},)
    return {"file": "m.npz", "slices": slices, "rows": 8, "columns": 8, "segments": (segment,), **changes}


def check_outlined(analysis: Analysis) -> None:
    task = AnalysisTask(
        job_id="J-1",
        facts=StudyFacts(),
        images=(TaskImage(path="/x", sha256=SHA, header=picture(SHA).header),),
        output_directory="/x",
        models=(),
    )
    manifest = ANSWERING.model_copy(update={"conditions": (ConditionInfo(code="pneumonia", label="P"),)})
    check_analysis(analysis, manifest, task, ())


def test_outlines_and_reports_that_fit_are_taken() -> None:
    check_outlined(outlined())


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"files": ()}, "not among its files"),
        ({"segmentations": (segmentation(), segmentation())}, "two segmentations name one file"),
        ({"segmentations": (segmentation(slices=({"sha256": OTHER, "frame": 0},)),)}, "not in the study"),
        ({"segmentations": (segmentation(slices=({"sha256": SHA, "frame": 1},)),)}, "not in the study"),
        ({"segmentations": (segmentation(slices=({"sha256": SHA, "frame": 0},) * 2),)}, "twice on one slice"),
        ({"segmentations": (segmentation(segments=({"number": 2, "name": "pneumonia", "label": "P"},)),)}, "numbered"),
        ({"segmentations": (segmentation(segments=({"number": 1, "name": "mass", "label": "P"},)),)}, "no finding"),
        (
            {"segmentations": (segmentation(segments=(
                {"number": 1, "name": "pneumonia", "label": "P"}, {"number": 2, "name": "pneumonia", "label": "P"},
            )),)},
            "a segment twice",
        ),
        (
            {"segmentations": (segmentation(segments=(
                {"number": 1, "name": "pneumonia", "label": "P", "model": "unknown"},
            )),)},
            "does not pin",
        ),
        ({"masks": ()}, "a mask that is not there"),
        ({"report": ({"section": "findings", "text": "P.", "findings": (-1,)},)}, "a finding that is not there"),
        ({"report": ({"section": "findings", "text": "P.", "conditions": ("mass",)},)}, "does not declare"),
    ],
)  # fmt: skip
def test_outlines_and_reports_that_do_not_fit_are_not(changes: dict[str, object], wrong: str) -> None:
    with pytest.raises(ChildMisbehaved, match=wrong):
        check_outlined(outlined(**changes))
