"""Analyses become statements; after the guard each finds its finding again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import (
    Analysis,
    Answer,
    Audience,
    Finding,
    GuardAction,
    GuardVerdict,
    Presence,
    Refusal,
    Released,
    headed,
)
from clinic_ai.domain.words import MAX_TEXT
from clinic_ai.errors import ClinicError, PluginError
from clinic_ai.results.statements import (
    answer_text,
    findings_of,
    parted,
    sentence,
    statements_of,
)

SHA = "a" * 64
WORDS = ("very unlikely", "unlikely", "may represent", "likely", "most likely")


def finding(probability: float = 0.5, **other: object) -> Finding:
    values: dict[str, object] = {
        "condition": "pneumonia",
        "label": "the plugin's own label",
        "probability": probability,
        "threshold": 0.5,
        "presence": Presence.UNCERTAIN,
        "instance_sha256": SHA,
    }
    return Finding.model_validate(values | other)


def analysis(**values: object) -> Analysis:
    return Analysis.model_validate({"plugin": "xray", "plugin_version": "1", "models": ()} | values)


def verdict(*released: Released) -> GuardVerdict:
    return GuardVerdict(
        audience=Audience.CLINICIAN,
        action=GuardAction.ALLOW,
        decisions=(),
        released=released,
        policy_hash=SHA,
        policy_name="test",
    )


def released(statement_id: str, text: str = "Released words.") -> Released:
    return Released(statement_id=statement_id, audience=Audience.CLINICIAN, text=text, policy_hash=SHA)


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "most likely"),
        (0.9001, "most likely"),
        (0.90, "likely"),
        (0.75, "likely"),
        (0.7499, "may represent"),
        (0.25, "may represent"),
        (0.2499, "unlikely"),
        (0.05, "unlikely"),
        (0.0499, "very unlikely"),
        (0.0, "very unlikely"),
    ],
)
def test_each_band_of_probability_has_its_words(probability: float, words: str) -> None:
    text = sentence(finding(probability))
    assert f" {words}" in text
    longest = [w for w in WORDS if f" {w}" in text and words in w]
    assert longest == [words]
    assert "neumonia" in text


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_probability_never_sounds_less_sure(one: float, other: float) -> None:
    def rank(probability: float) -> int:
        text = sentence(finding(probability))
        return max(index for index, words in enumerate(WORDS) if f" {words}" in text and f"very {words}" not in text)

    low, high = sorted((one, other))
    assert rank(low) <= rank(high)


def test_the_side_is_said() -> None:
    assert sentence(finding(0.95, laterality="left")) == "The image most likely shows pneumonia on the left."
    assert sentence(finding(0.01, laterality="bilateral")) == "Pneumonia on both sides is very unlikely."


def test_the_label_is_of_the_table_and_not_of_the_plugin() -> None:
    assert "own label" not in sentence(finding())


def test_everything_said_becomes_one_statement_with_a_unique_id() -> None:
    one = analysis(
        findings=(finding(0.9), finding(0.1)),
        answers=(Answer(question="Which view is it?", text="Frontal."),),
        refusals=(Refusal(instance_sha256=SHA, code="lateral", sentence="A lateral view is not judged."),),
        remarks=("The window was taken from the file.", "   "),
    )
    two = analysis(findings=(finding(0.99),), remarks=("Another remark.",))
    statements = statements_of([one, two])
    assert [s.statement_id for s in statements] == ["f_1", "f_2", "f_3", "a_1", "r_1", "m_1", "m_2"]
    assert [s.kind for s in statements] == [*["finding"] * 3, "answer", "refusal", "remark", "remark"]
    assert [s.finding for s in statements[:3]] == list(findings_of([one, two]))
    assert statements[3].text == "Which view is it? Frontal."
    assert statements[5].text == "The window was taken from the file."


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_of_a_plugin_makes_valid_statements(question: str, text: str) -> None:
    said = statements_of([analysis(answers=(Answer(question=question, text=text),), remarks=(text,))])
    assert all(s.text.strip() for s in said)
    assert len({s.statement_id for s in said}) == len(said)


def test_a_refusal_longer_than_a_statement_may_be_is_cut_visibly() -> None:
    refusal = Refusal(instance_sha256=SHA, code="long", sentence="x" * (MAX_TEXT + 100))
    (statement,) = statements_of([analysis(refusals=(refusal,))])
    assert len(statement.text) == MAX_TEXT
    assert statement.text.endswith("…")


def test_an_answer_that_does_not_fit_beside_its_question_stands_alone() -> None:
    answer = Answer(question="q" * 10, text="a" * MAX_TEXT)
    (statement,) = statements_of([analysis(answers=(answer,))])
    assert statement.text == answer.text


def test_an_unknown_condition_is_an_error_of_the_plugin() -> None:
    with pytest.raises(PluginError, match="dragon_pox"):
        statements_of([analysis(findings=(finding(condition="dragon_pox"),))])


def test_only_released_findings_come_back_each_with_its_own_words() -> None:
    findings = (finding(0.9), finding(0.2), finding(0.6))
    said = parted(findings, verdict(released("f_3", "third"), released("f_1", "first"), released("m_1", "remark")))
    assert [(f.probability, r.text) for f, r in said.findings] == [(0.9, "first"), (0.6, "third")]
    assert [r.text for r in said.others] == ["remark"]


@given(st.lists(st.from_regex(r"[fmarn]_[0-9]|[a-z]{1,8}", fullmatch=True), unique=True, max_size=12))
def test_every_released_statement_is_in_one_of_the_two_whatever_its_id(ids: list[str]) -> None:
    said = parted((finding(), finding()), verdict(*(released(key, f"says {key}") for key in ids)))
    rendered = [r.statement_id for _, r in said.findings] + [r.statement_id for r in said.others]
    assert sorted(rendered) == sorted(ids)


def test_two_statements_of_one_id_are_not_rendered_as_one() -> None:
    with pytest.raises(ClinicError, match="same id"):
        parted((finding(),), verdict(released("f_1", "first"), released("f_1", "second")))


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.91, "very high"),
        (0.9, "high"),
        (0.75, "high"),
        (0.74, "moderate"),
        (0.25, "moderate"),
        (0.24, "low"),
        (0.05, "low"),
        (0.04, "very low"),
    ],
)
def test_how_sure_an_answer_sounds_follows_from_its_confidence_alone(confidence: float, words: str) -> None:
    answer = Answer(question="Is it sharp?", text="Yes", confidence=confidence, notes=("Read from frame 2 of 3.",))

    assert answer_text(answer) == (
        f"Is it sharp? Yes. The model's confidence in this answer is {words}. Read from frame 2 of 3."
    )


def test_an_answer_too_long_for_its_notes_keeps_its_question() -> None:
    answer = Answer(question="Is it?", text="a" * (MAX_TEXT - 10), notes=("n" * 20,))

    assert answer_text(answer) == f"Is it? {answer.text}"


def test_sentences_of_a_report_come_first_section_by_section() -> None:
    one = analysis(
        report=(
            {"section": "impression", "text": "Pneumonia."},
            {"section": "findings", "text": " The lungs show pneumonia. "},
            {"section": "findings", "text": "  "},
        ),
        findings=(finding(),),
        remarks=("A remark.",),
    )
    other = analysis(plugin="ct", report=({"section": "recommendations", "text": "None."},))
    said = statements_of([one, other])
    assert [(s.statement_id, s.kind, s.section, s.text) for s in said[:3]] == [
        ("s_1", "report", "findings", "The lungs show pneumonia."),
        ("s_2", "report", "impression", "Pneumonia."),
        ("s_3", "report", "recommendations", "None."),
    ]
    assert [(s.statement_id, s.section) for s in said[3:]] == [("f_1", None), ("m_1", None)]


def test_what_stands_in_a_section_is_parted_from_the_rest() -> None:
    sections = {"s_1": "findings", "n_1": "findings", "s_2": "impression"}
    said = [released(key).model_copy(update={"section": sections.get(key)}) for key in ("s_2", "s_1", "n_1", "m_1")]
    found = parted([], verdict(*said))
    assert [(section, [one.statement_id for one in those]) for section, those in found.report] == [
        ("findings", ["s_1", "n_1"]),
        ("impression", ["s_2"]),
    ]
    assert [one.statement_id for one in found.others] == ["m_1"]
    assert [heading for heading, _ in headed(said)] == ["Impression", "Findings", "", "Beside the report"]


def test_what_an_older_version_stored_is_read() -> None:
    stored = '{"plugin":"xray","plugin_version":"1","models":[],"findings":[],"remarks":["A remark."],"files":[]}'
    old = Analysis.model_validate_json(stored)
    assert (old.report, old.segmentations, old.masks) == ((), (), ())
    said = '{"statement_id":"m_1","audience":"clinician","kind":"remark","text":"A remark.","policy_hash":"SHA"}'
    assert Released.model_validate_json(said.replace("SHA", SHA)).section is None
