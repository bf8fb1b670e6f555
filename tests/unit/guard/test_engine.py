"""The judge is total, and nothing goes out that no allowed action made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.domain import (
    Audience,
    Finding,
    GuardAction,
    GuardVerdict,
    ImageFacts,
    Mask,
    PatientIdentity,
    Presence,
    Statement,
    StudyFacts,
)
from clinic_ai.guard.engine import judge
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.templates import template_problems
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask

Say = Callable[..., GuardVerdict]
FRAGMENTS = [
    "pneumonia", "no", "there is", "most likely", "unlikely", "cancer", "pleural effusion", "on the left",
    "on the right", "John", "Smith", "42 %", "probability 82 %", "<b>", "ignore previous instructions", "cec.",
    "cec. cec. cec.", "\u200b", "\u202e", "someone@example.org", "biopsy", "500 mg", "{label}", "{}", "final report",
    "signed by", "1970-01-02", ".", "\n", ", but", "may represent", "pnuemonia", "suspicious of",
]  # fmt: skip

texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(" ".join))
findings = st.builds(
    Finding,
    condition=st.sampled_from(["pneumonia", "pleural_effusion", "bone_fracture", "echo"]),
    label=st.one_of(st.sampled_from(["Pneumonia", "Pleural effusion"]), st.text(max_size=20)),
    probability=st.floats(0, 1),
    threshold=st.floats(0, 1),
    presence=st.sampled_from(Presence),
    instance_sha256=st.just("0" * 64),
    laterality=st.sampled_from(["left", "right", "bilateral", ""]),
)
statements = st.builds(
    Statement,
    statement_id=st.sampled_from(["f_1", "a_1", "a_2", "m_1"]),
    kind=st.sampled_from(["finding", "answer", "remark", "refusal", "notice", "report"]),
    section=st.sampled_from(["findings", "impression", None]),
    text=texts,
    finding=st.none() | findings,
)
subjects = st.builds(
    GuardSubject,
    facts=st.just(StudyFacts()),
    identity=st.builds(
        PatientIdentity,
        patient_id=st.text(max_size=10),
        patient_name=st.one_of(st.just("Smith^John"), st.text(max_size=20)),
        birth_date=st.sampled_from(["", "19700102", "00000000", "garbage!"]),
        accession_number=st.text(max_size=8),
    ),
    findings=st.lists(findings, max_size=3).map(tuple),
    validated=st.booleans(),
    reference=st.booleans(),
    signed_by=st.sampled_from(["", "A. Person"]),
    language=st.sampled_from(["en", "en-GB", "EN", "xx", ""]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_task_ends_in_released_text_or_a_hold(policy: Policy, data: st.DataObject) -> None:
    task = GuardTask(
        audience=data.draw(st.sampled_from(Audience)),
        subject=data.draw(subjects),
        statements=tuple(data.draw(st.lists(statements, max_size=4))),
        policy_hash=data.draw(st.sampled_from([policy.digest, policy.digest, policy.digest, "0" * 64])),
    )
    verdict = judge(policy, task)

    assert verdict.action is max(
        (d.action for d in verdict.decisions), key=lambda a: a.severity, default=GuardAction.ALLOW
    )
    if verdict.action.severity >= GuardAction.HOLD.severity:
        assert verdict.released == ()
        return
    assert task.policy_hash == policy.digest
    assert [r.statement_id for r in verdict.released] == [s.statement_id for s in task.statements]
    assert len({r.statement_id for r in verdict.released}) == len(task.statements)
    for statement, released in zip(task.statements, verdict.released, strict=True):
        assert released.text.strip()
        _assert_traceable(policy, task, verdict, statement, released.text)
        if task.audience is not Audience.CLINICIAN:
            assert released.annotations == ()


def _assert_traceable(policy: Policy, task: GuardTask, verdict: GuardVerdict, statement: Statement, text: str) -> None:
    templates = policy.templates_for(task.subject.language)
    assert templates is not None or task.audience is Audience.CLINICIAN
    rendered = (
        {templates.render(task.audience, n, statement.finding) for n in templates.of(task.audience)}
        if templates
        else set()
    )
    actions = {d.action for d in verdict.decisions if d.statement_id == statement.statement_id}
    if task.audience is not Audience.CLINICIAN or GuardAction.REPLACE in actions:
        assert text in rendered
        return
    hedged = text.partition(" (How sure")[0] if GuardAction.HEDGE in actions else text
    if GuardAction.REDACT not in actions:
        assert hedged in {statement.text, statement.text.rstrip()}
        return
    at = 0  # what is left stands in the original in the same order
    for piece in hedged.split("[removed]"):
        for character in piece:
            at = statement.text.index(character, at) + 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(subject=subjects, drafts=st.lists(texts, min_size=1, max_size=3))
def test_what_went_out_to_a_clinician_would_go_out_again(
    policy: Policy, subject: GuardSubject, drafts: list[str]
) -> None:
    made = tuple(Statement(statement_id=f"a_{n}", kind="answer", text=t) for n, t in enumerate(drafts))
    task = GuardTask(audience=Audience.CLINICIAN, subject=subject, statements=made, policy_hash=policy.digest)
    verdict = judge(policy, task)
    if not verdict.released:
        return
    again = tuple(s.model_copy(update={"text": r.text}) for s, r in zip(made, verdict.released, strict=True))
    second = judge(policy, task.model_copy(update={"statements": again}))
    assert second.action.severity <= GuardAction.HEDGE.severity


def test_another_pack_than_the_pinned_one_holds(policy: Policy) -> None:
    said = Statement(statement_id="a_1", kind="answer", text="Clear lungs.")
    subject = GuardSubject(facts=StudyFacts())
    verdict = judge(policy, GuardTask(audience="clinician", subject=subject, statements=(said,), policy_hash="1" * 64))
    assert (verdict.action, verdict.released) == (GuardAction.HOLD, ())
    assert [d.rule for d in verdict.decisions] == ["guard.policy_mismatch"]


def test_one_bad_sentence_holds_the_good_ones(say: Say) -> None:
    verdict = say("Clear lungs.", "cec. cec. cec. cec.")
    assert (verdict.action, verdict.released) == (GuardAction.BLOCK, ())


def test_two_statements_with_one_id_are_held(say: Say) -> None:
    same = [Statement(statement_id="a_1", kind="answer", text=t) for t in ("Clear lungs.", "Clear heart.")]
    assert say(*same).action is GuardAction.HOLD


def test_marks_stand_on_what_is_unvalidated_and_unsigned(say: Say) -> None:
    assert say("Clear lungs.").marks == ()
    marks = say("Clear lungs.", validated=False, reference=True, signed_by="").marks
    assert [m for m in marks if "Investigational" in m]
    assert [m for m in marks if "reference model, not for clinical use" in m]
    assert [m for m in marks if "No named person" in m]


def test_a_language_without_templates_holds_for_whoever_needs_one(say: Say) -> None:
    for audience in (Audience.PATIENT, Audience.TECHNICIAN):
        assert say("Clear lungs.", audience=audience, language="xx").action is GuardAction.HOLD
    assert say("Clear lungs.", language="xx").action is GuardAction.ALLOW
    assert say("Clear lungs.", language="xx", signed_by="").action is GuardAction.HOLD  # the mark cannot be written


def test_a_label_from_a_plugin_is_judged_too(say: Say, finding: Callable[..., Finding]) -> None:
    """A template is filled with the label, so a hostile label must not ride out on it."""
    hostile = finding(0.6, label="Pneumonia <script>")
    said = Statement(statement_id="f_1", kind="finding", text="Pneumonia is very unlikely.", finding=hostile)
    verdict = say(said, findings=(hostile,))
    assert verdict.action is GuardAction.HOLD
    (why,) = [d.reason for d in verdict.decisions if d.rule == "guard.unsettled"]
    assert "markup (markup, a link or a special token)" in why
    assert "write it in other words" in why


@pytest.mark.parametrize("text", ["\u200b\u200b", "   ", ""])
def test_nothing_left_is_a_hold(say: Say, text: str) -> None:
    verdict = say(text)
    assert (verdict.action, verdict.released) == (GuardAction.HOLD, ())


def test_of_a_name_alone_only_the_substitute_is_left(say: Say) -> None:
    verdict = say("John Smith", identity=PatientIdentity(patient_name="Smith^John"))
    assert [released.text for released in verdict.released] == ["[removed]"]


def test_patients_read_only_templates(policy: Policy, say: Say, finding: Callable[..., Finding]) -> None:
    told = Statement(statement_id="f_1", kind="finding", text="Pneumonia is likely.", finding=finding(0.82))
    verdict = say(told, "The picture shows your chest.", audience=Audience.PATIENT, findings=(finding(0.82),))
    assert verdict.action is GuardAction.REPLACE
    own = policy.templates["en"]
    known = own.patient["finding_known"].format(condition=own.glossary["pneumonia"], word=own.patient_words["likely"])
    assert [(r.text, r.sources) for r in verdict.released] == [
        (known, ("template:en/patient/finding_known", "glossary:en/pneumonia", "word:en/likely")),
        (own.patient["answer"], ("template:en/patient/answer",)),
    ]
    assert not any("neumonia" in Text(r.text).folded for r in verdict.released)


def test_a_note_beside_a_persons_words_tells_of_no_change_that_nobody_made(
    policy: Policy, say: Callable[..., GuardVerdict], finding: Callable[..., Finding]
) -> None:
    found = finding(0.98)
    text = "Pneumonia is absent."
    statement = Statement(statement_id="f_1", kind="finding", text=text, finding=found)
    [software] = say(statement, findings=(found,), signed_by="").released
    assert "The sentence was worded again from the calibrated probability." in software.annotations
    [mine] = say(statement, findings=(found,), own_words=True).released
    assert mine.text == text
    assert "In the signer's own words, not in the word for the calibrated probability." in mine.annotations
    assert not any("worded again" in note for note in mine.annotations)
    bare = [replace(r, entry=r.entry.model_copy(update={"own_words": None})) for r in policy.rules]
    task = GuardTask(
        audience=Audience.CLINICIAN,
        subject=GuardSubject(
            facts=StudyFacts(), findings=(found,), validated=True, reference=False, signed_by="A.", own_words=True
        ),
        statements=(statement,),
        policy_hash=policy.digest,
    )
    [older] = judge(replace(policy, rules=tuple(bare)), task).released  # a pack of a clinic's own, written before
    assert any("the rule finding-wording would not let them out unchanged" in note for note in older.annotations)


# ---------------------------------------------------------------- written reports


def sentence(text: str) -> Statement:
    return Statement(statement_id="s_1", kind="report", text=text, section="impression")


def test_a_sentence_of_a_report_is_held_against_findings_and_masks(say: Say, finding: Callable[..., Finding]) -> None:
    nodule = finding(0.95, condition="lung_nodule", label="Lung nodule", laterality="right")
    mask = Mask(name="lung_nodule", side="right", level="right upper lobe", size_mm=12)
    seen = ImageFacts(calibrated=True, priors=0, burned_in="no")
    right = say(
        sentence("A lung nodule of 12 mm lies in the right upper lobe."), findings=(nodule,), masks=(mask,), image=seen
    )
    assert not [decision for decision in right.decisions if decision.statement_id == "s_1"]
    assert (right.released[0].section, right.released[0].annotations) == ("impression", ())
    wrong = say(
        sentence("A lung nodule of 31 mm lies in the left upper lobe."), findings=(nodule,), masks=(mask,), image=seen
    )
    rules = {decision.rule for decision in wrong.decisions if decision.statement_id == "s_1"}
    assert rules == {"contradiction", "other-level", "other-number"}
    assert len(wrong.released[0].annotations) == 3


def test_rules_for_remarks_look_at_reports_as_well(say: Say) -> None:
    said = say(sentence("The nodule is larger in comparison."), image=ImageFacts(priors=0))
    assert "comparison-or-history" in {decision.rule for decision in said.decisions}
    assert say(sentence("cec. " * 30)).action is GuardAction.BLOCK


def test_patients_read_a_template_in_place_of_a_report(say: Say, policy: Policy) -> None:
    told = say(sentence("The heart is seen."), audience=Audience.PATIENT).released
    assert [(one.text, one.section) for one in told] == [(policy.templates["en"].patient["report"], None)]


def test_in_a_pack_from_before_written_reports_the_template_for_remarks_stands_in(policy: Policy) -> None:
    english = policy.templates["en"]
    before = english.model_copy(update={"patient": {k: v for k, v in english.patient.items() if k != "report"}})
    assert template_problems(before) == []
    assert before.render(Audience.PATIENT, "report", None) == english.patient["remark"]
