"""Figures of whole reports: what they say counts apart from how they say it."""

from __future__ import annotations

import math

import pytest

from clinic_ai_ct.scoring import label_rows, report_scores

TRUTH = ["There is a nodule in the right upper lobe. No pleural effusion.", "Pleural effusion on the left. No nodule."]


def test_the_same_reports_are_perfect() -> None:
    scores = report_scores(TRUTH, TRUTH)
    assert all(scores[key] == pytest.approx(1.0) for key in ("bleu_4", "rouge_l", "label_f1", "crg"))


def test_turned_round_they_are_near_in_words_and_wrong_in_what_they_say() -> None:
    turned = [
        "There is no nodule in the right upper lobe. Pleural effusion.",
        "No pleural effusion on the left. There is a nodule.",
    ]
    scores = report_scores(turned, TRUTH)
    assert scores["bleu_1"] > 0.7
    assert scores["label_f1"] == 0.0
    assert scores["crg"] < 0.4


def test_references_that_affirm_nothing_have_no_crg() -> None:
    scores = report_scores(["Clear."], ["Clear."])
    assert "crg" not in scores
    assert math.isnan(scores["label_f1"])
    assert label_rows([]).shape == (0, 18)
