"""A written report in the terminal: each section under its name."""

from __future__ import annotations

import review_exhibit
from made_study import made_artefact, made_study

from clinic_ai.tui.review_words import words_text
from clinic_ai.tui.study_words import report_text

SAID = (
    review_exhibit.said("s_1", "The right lung shows pneumonia.").model_copy(update={"section": "findings"}),
    review_exhibit.said("s_2", "The heart is normal.").model_copy(update={"section": "findings"}),
    review_exhibit.said("s_3", "Pneumonia.").model_copy(update={"section": "impression"}),
    review_exhibit.said("f_1", "The image most likely shows pneumonia."),
)
ORDER = [
    "Findings", SAID[0].text, SAID[1].text, "Impression", SAID[2].text, "Beside the report", SAID[3].text,
]  # fmt: skip


def in_order(text: str, wanted: list[str]) -> bool:
    """Whether all of them stand in a text, each behind the one before."""
    at = 0
    for words in wanted:
        at = text.find(words, at)
        if at < 0:
            return False
        at += len(words)
    return True


def test_the_report_of_a_study_has_its_sections() -> None:
    study = made_study()
    version = study.versions[0].model_copy(update={"artefacts": (made_artefact(released=SAID),)})
    shown = report_text(study.model_copy(update={"versions": (version,)})).plain
    assert in_order(shown, ORDER)
    assert "Beside the report" not in report_text(made_study()).plain


def test_a_reviewer_reads_the_sections() -> None:
    shown = words_text(review_exhibit.view(statements=SAID, withheld=()), {}).plain
    assert in_order(shown, ORDER)
    assert shown.count("Findings\n") == 1
