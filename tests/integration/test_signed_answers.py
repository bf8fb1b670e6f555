"""Answers that a clinician amends and accepts in a review become what is learned; guard and review are real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from review_desk import Desk, review_desk

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import Answer, CategoryInfo
from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.training.labelled_folder import LabelledImage, Reading
from clinic_ai.training.reviewed import Reviewed

ECHO = PluginManifest(
    name="echo",
    version="1",
    summary="A plugin of the tests.",
    engine="none:None",
    trainer="none:None",
    labels="answers",
    categories=(CategoryInfo(key="femur", label="Femur"),),
)
ANSWERS = tuple(
    Answer(question=question, text=text, category="femur", confidence=confidence, notes=notes)
    for question, text, confidence, notes in (
        ("Which view does the image show?", "The image shows a fetal femur.", 0.95, ()),
        ("In which half of the image does it lie?", "In the left half", 0.5, ("The base answered.",)),
        ("Is all of it in view?", "Yes", None, ()),
    )
)


def learned(desk: Desk) -> list[LabelledImage]:
    return Reviewed(desk.database, desk.objects).read(ECHO, "femur", Reading())


def test_accepted_and_amended_answers_are_learned_in_the_final_words(tmp_path: Path) -> None:
    with review_desk(tmp_path) as desk:
        artefact = desk.add_report(answers=ANSWERS)
        shown = {one.statement_id: one.text for one in desk.reviews.show(artefact, "Dr. Ada Example").said}
        assert learned(desk) == []
        said = {**shown, "a_2": shown["a_2"].replace("left", "right")}
        del said["a_3"]
        desk.sign(replace(desk.order(artefact, said), consent=True))
        [image] = learned(desk)
        assert [(pair.question, pair.answer) for pair in image.pairs] == [
            ("Which view does the image show?", "The image shows a fetal femur."),
            ("In which half of the image does it lie?", "In the right half"),
        ]
        assert image.identity.patient_id == "4711"
        # A signed report can be wrong too: the newest review counts.
        final = desk.newest()
        now = {one.statement_id: one.text for one in desk.reviews.show(final, "Dr. Ada Example").said}
        desk.decide(replace(desk.order(final, {**now, "a_1": "A slanting view."}), consent=True))
        [image] = learned(desk)
        assert [pair.answer for pair in image.pairs] == ["A slanting view.", "In the right half"]
        another = desk.order(desk.add_report(answers=ANSWERS), decision=ReviewDecision.REJECT)
        desk.decide(replace(another, consent=True))
        assert len(learned(desk)) == 1
