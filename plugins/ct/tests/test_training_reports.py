"""Reports to learn from: varied, repeatable, and as true as those of the appliance."""

from __future__ import annotations

import chests
from guarding import guard

from clinic_ai_ct.labeller import labels
from clinic_ai_ct.measuring import masks_of
from clinic_ai_ct.training_reports import PROMPT, findings_from_labels, prompt, training_report


def test_the_same_seed_gives_the_same_words_and_others_give_others() -> None:
    findings, lesions = chests.evidence(4)
    texts = [training_report(findings, lesions, seed=seed).text for seed in range(20)]
    assert texts == [training_report(findings, lesions, seed=seed).text for seed in range(20)]
    assert len(set(texts)) > 15


def test_whatever_the_words_the_guard_agrees_with_all_of_them() -> None:
    for seed in range(25):
        findings, lesions = chests.evidence(seed)
        report = training_report(findings, lesions, seed=seed)
        verdict = guard((s.text for s in report.sentences), findings, masks_of(lesions))
        assert [d for d in verdict.decisions if d.statement_id] == [], report.text


def test_a_fifth_is_paraphrased_where_there_is_a_model_and_only_what_is_true_of_it_stays() -> None:
    asked: list[str] = []

    def model(text: str) -> str:
        asked.append(text)
        return "FINDINGS: Small right pleural effusion. Metastases.\nIMPRESSION: Pericardial effusion, possibly."

    findings, lesions = chests.evidence(4)
    reports = [training_report(findings, lesions, seed=seed, paraphrase=model) for seed in range(100)]
    assert 10 <= len(asked) <= 30
    assert all("FINDINGS:" in text for text in asked)
    assert not any("Metastases" in r.text or "possibly" in r.text for r in reports)
    assert sum(bool(r.removed) for r in reports) == len(asked)


def test_a_good_paraphrase_is_taken_and_completed() -> None:
    findings = findings_from_labels({"emphysema": True, "cardiomegaly": False}, "0" * 64)
    report = training_report(
        findings, (), seed=1, paraphrase=lambda _: "FINDINGS: The study most likely shows emphysema.", share=1.0
    )
    assert report.method == "llm-generated"
    assert "- The study most likely shows emphysema." in report.text
    assert {n for n, there in labels(report.text).items() if there} == {"Emphysema"}
    assert any("cardiomegaly" in s.conditions for s in report.sentences)
    useless = training_report(findings, (), seed=1, paraphrase=lambda _: "I cannot help.", share=1.0)
    assert useless.method == "template-based"
    assert useless.removed[0].text == "I cannot help."


def test_the_prompt_is_the_places_and_the_instruction() -> None:
    _, lesions = chests.evidence(4)
    lines = prompt(lesions).splitlines()
    assert lines[0].startswith("[FINDING] ")
    assert (lines[-2], lines[-1]) == ("", PROMPT)
    assert prompt(()) == PROMPT
