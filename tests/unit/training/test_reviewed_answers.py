"""Answers that people signed become labelled pairs: accepted ones as they were, amended ones in the final words."""

from __future__ import annotations

import pytest
import tiny_learner
from reviewed import answered
from school import School

from clinic_ai.contract import Dataset, PluginManifest
from clinic_ai.domain import Analysis, Answer, Audience, CategoryInfo
from clinic_ai.domain.reviews import Passage, ReviewDecision, ReviewDocument
from clinic_ai.errors import DatasetError
from clinic_ai.results.answers import bare_answer, signed_answers
from clinic_ai.results.statements import answer_text
from clinic_ai.store import datasets as store
from clinic_ai.training.label_reading import Terms

FEMUR = Terms(category="femur")
ANSWER = Answer(question="Which view?", text="axial view", category="femur", confidence=0.95, adapter="femur")


@pytest.fixture
def manifest(school: School) -> PluginManifest:
    categories = (CategoryInfo(key="femur", label="Femur"), CategoryInfo(key="cervix", label="Cervix"))
    made = tiny_learner.manifest().model_copy(update={"labels": "answers", "categories": categories})
    school.manifests[made.name] = made
    return made


def pairs(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    return {e.patient_key: [(pair.question, pair.answer) for pair in e.pairs] for e in dataset.examples}


def test_final_words_are_learned(school: School, manifest: PluginManifest) -> None:
    side = ANSWER.model_copy(update={"question": "Which side?", "text": "It lies on the left.", "confidence": None})
    whole = answer_text(ANSWER)
    answered(school, 1, [ANSWER, side], decision=ReviewDecision.ACCEPT)
    answered(school, 2, [ANSWER, side], written={1: whole.replace("axial", "oblique"), 2: ""})
    answered(school, 3, [ANSWER], written={1: "A view of the whole bone."})
    answered(school, 4, [ANSWER], consent=False)
    answered(school, 5, [ANSWER], decision=ReviewDecision.REJECT)
    answered(school, 6, [ANSWER.model_copy(update={"category": "cervix"})])
    answered(school, 7, [ANSWER.model_copy(update={"category": ""})])
    answered(school, 8, [ANSWER], audience=Audience.PATIENT)
    datasets = school.runs.datasets
    assert datasets.fresh(manifest, ("reviews",), FEMUR) == 3
    dataset = datasets.gather(manifest, ("reviews", "labels"), "ada", FEMUR)
    assert pairs(dataset) == {
        f"{1:064x}": [("Which view?", "axial view"), ("Which side?", "It lies on the left.")],
        f"{2:064x}": [("Which view?", "oblique view")],
        f"{3:064x}": [("Which view?", "A view of the whole bone.")],
    }
    assert dataset.category == "femur"
    assert datasets.fresh(manifest, ("reviews",), FEMUR, dataset.dataset_id) == 0


def test_what_cannot_be_learned_is_counted_with_the_reason(school: School, manifest: PluginManifest) -> None:
    late = ANSWER.model_copy(update={"question": "Which plane?", "frame": 7})
    for number in (1, 2, 3):
        answered(school, number, [ANSWER, late])
    answered(school, 4, [ANSWER, ANSWER.model_copy(update={"question": "Which side?"})], shown={2: "[removed] view"})
    answered(school, 5, [ANSWER], written={1: "The femur is 32 mm long."})
    answered(school, 6, [ANSWER], written={1: "Mrs Quellwasser moved."})
    answered(school, 7, [ANSWER], written={1: "cec. cec. cec. cec."})
    dataset = school.runs.datasets.gather(manifest, ("reviews",), "ada", FEMUR)
    assert {said for found in pairs(dataset).values() for said in found} == {("Which view?", "axial view")}
    assert len(dataset.examples) == 4
    assert not any("Quellwasser" in note or "cec." in note for note in dataset.notes)
    with school.database.read() as c:
        left = store.lineage_of(c, dataset.dataset_id).left_out
    assert {one.reason.value: (one.what, one.count) for one in left} == {
        "frame": ("pair", 3),
        "nobodys_words": ("pair", 1),
        "size": ("pair", 1),
        "personal": ("pair", 1),
        "degenerate": ("pair", 1),
    }


def test_nothing_signed_is_said_in_a_sentence(school: School, manifest: PluginManifest) -> None:
    with pytest.raises(DatasetError, match="no report that permits learning answers a standard question about Femur"):
        school.runs.datasets.gather(manifest, ("reviews",), "ada", FEMUR)
    with pytest.raises(DatasetError, match="learns one category at a time"):
        school.runs.datasets.gather(manifest, ("reviews",), "ada")


@pytest.mark.parametrize(
    ("words", "bare"),
    [
        ("Which view? oblique. The model's confidence in this answer is very high.", "oblique"),
        ("which view? oblique view", "oblique view"),
        ("Oblique. It is cut off.", "Oblique. It is cut off."),
        ("Which view?", ""),
        ("Which view? The model's confidence in this answer is very high.", ""),
    ],
)
def test_an_answer_is_freed_of_its_question_and_notes(words: str, bare: str) -> None:
    assert bare_answer(words, ANSWER) == bare


def test_blank_answers_do_not_shift_the_others() -> None:
    answers = [ANSWER.model_copy(update={"text": " ", "instance_sha256": "a" * 64})]
    answers += [ANSWER.model_copy(update={"instance_sha256": "b" * 64})]
    analysis = Analysis(plugin="tiny", plugin_version="1", models=(), answers=tuple(answers))
    said = (Passage(statement_id="a_1", text=answer_text(ANSWER)),)
    [found], changed = signed_answers(ReviewDocument(shown=said, said=said), [analysis])
    assert (found.instance_sha256, found.pair.answer, found.written, changed) == ("b" * 64, "axial view", False, 0)
