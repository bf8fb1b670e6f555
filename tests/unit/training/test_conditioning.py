"""Which pairs of question and answer are learned, and which are left out with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import CategoryInfo, LeftOutReason, PatientIdentity, QuestionAnswer
from clinic_ai.training.conditioning import condition, why_not
from clinic_ai.training.labelled_folder import LabelledImage, Reading
from clinic_ai.training.sheet_layout import same_question

ANNA = PatientIdentity(patient_name="Quellwasser^Anna", patient_id="KH-4711-23", birth_date="19700512")


def pair(question: str, answer: str) -> QuestionAnswer:
    return QuestionAnswer(question=question, answer=answer)


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Which view is it?", "axial", None),
        ("Is the bone whole in view?", "yes", None),
        ("Does the abdomen fill half of the width?", "No, it fills less than half the width.", None),
        ("How high in the image is the head?", "In the upper half.", None),
        ("Is the image suitable for measurement?", "Yes, both ends are seen.", None),
        ("How long is the femur?", "32 mm", "size"),
        ("What is the diameter?", "large", "size"),
        ("What is seen?", "A mass of 3 x 4 cm.", "size"),
        ("What is the volume of the cyst?", "small", "three_d"),
        ("What lies behind this plane?", "the spine", "three_d"),
        ("What caused this?", "a fall", "history"),
        ("Has it grown since the last scan?", "yes", "history"),
        ("What is seen?", "Unchanged compared with prior.", "history"),
        ("What is seen?", "Status post fracture.", "history"),
        ("What is seen?", "The cecum. cec. cec. cec. cec.", "degenerate"),
        ("What is seen?", "...", "degenerate"),
        ("What is seen?", "–", "degenerate"),
        ("What is seen?", "What is seen?", "degenerate"),
        ("What is seen?", " ".join(f"structure{n}" for n in range(120)), "degenerate"),
        ("What is seen?", "Mrs Quellwasser has a femur.", "personal"),
        ("What has Anna?", "a femur", "personal"),
        ("What is seen?", "KH471123", "personal"),
        ("What is seen?", "A femur, born 12.05.1970", "personal"),
        ("What is seen?", "MRN: 889123", "personal"),
        ("What is seen?", "Study 20261129", "personal"),
    ],
)
def test_what_is_learned(question: str, answer: str, reason: str | None) -> None:
    found = why_not(pair(question, answer), ANNA)
    assert (found.value if found else None) == reason


def test_a_question_of_the_category_is_there_on_purpose_but_its_answers_are_looked_at() -> None:
    purpose = frozenset({same_question("How long is the femur?")})
    assert why_not(pair("1. how long is the femur", "32 mm"), ANNA, purpose) is None
    assert why_not(pair("How long is the femur?", "mm mm mm mm"), ANNA, purpose) is LeftOutReason.DEGENERATE
    assert why_not(pair("How long is the femur?", "32 mm, Anna"), ANNA, purpose) is LeftOutReason.PERSONAL


def test_counts_and_notes_name_questions_but_no_personal_words() -> None:
    femur = CategoryInfo(key="femur", label="Femur")
    images = [
        LabelledImage(Path("a"), "a.png", "Quellwasser 7", {}, pairs=(pair("Which view?", "axial"),)),
        LabelledImage(Path("b"), "b.png", "patient 7", {}, pairs=(pair("How big is it?", "3 cm"),)),
        LabelledImage(Path("c"), "c.png", "Quellwasser 7", {}, pairs=(pair("Who?", "Frau Quellwasser"),)),
        LabelledImage(Path("d"), "d.png", "patient 7", {}, pairs=(pair("Who?", "the patient, from the side"),)),
    ]
    reading = Reading(images=images)
    condition(reading, femur)
    assert [image.name for image in reading.images] == ["a.png", "d.png"]
    assert dict(reading.left_out) == {(LeftOutReason.SIZE, "pair"): 1, (LeftOutReason.PERSONAL, "pair"): 1}
    assert reading.notes == [
        "1 pair of question and answer was left out, which asks for, or tells, a size, for which an image has no "
        "scale: “How big is it?”. If the images do answer one, make it a question of the category.",
        "1 pair of question and answer was left out, which holds personal data: c.png.",
    ]


def test_labels_of_conditions_are_left_alone() -> None:
    reading = Reading(images=[LabelledImage(Path("a"), "a.png", "", {"pneumonia": 1})])
    condition(reading, None)
    assert len(reading.images) == 1


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=600))
def test_any_words_get_a_verdict_and_the_same_one_again(question: str, answer: str) -> None:
    words = pair(question, answer)
    assert why_not(words, ANNA) == why_not(words, ANNA)


@given(st.sampled_from(["cec", "the left lung", "Gewebe", "no mass"]), st.integers(3, 40))
def test_what_loops_is_never_learned(phrase: str, times: int) -> None:
    assert why_not(pair("What is seen?", f"{phrase}. " * times), ANNA) is LeftOutReason.DEGENERATE
