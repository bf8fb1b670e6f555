"""A pack proves itself before it is used: every rule has its cases, every case holds, every template is fit to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinic_ai.domain import Audience, Finding, GuardAction, GuardVerdict, Presence, Statement, StudyFacts
from clinic_ai.guard.cases import Case
from clinic_ai.guard.engine import fired_rules, judge
from clinic_ai.guard.parsing import refuse_if
from clinic_ai.guard.policy import Policy, read_policy
from clinic_ai.guard.questions import run_question_cases, uncovered_intents
from clinic_ai.guard.templates import KINDS
from clinic_ai.tasks import CaseOutcome, CaseReport, GuardSubject, GuardTask, PackInfo

_NEEDED = ("firing", "non_firing", "mutation")
_PROBABILITIES = (0.02, 0.15, 0.5, 0.8, 0.95)
"""One for each probability word."""


def load_policy(directory: Path) -> Policy:
    """Read a pack and run its cases. Raise PolicyError, naming every rule and case, if anything is wrong."""
    policy = read_policy(directory)
    outcomes = (*run_cases(policy), *run_question_cases(policy))
    failed = [f"case {o.number} of rule {o.rule} ({o.kind}): {o.sentence}" for o in outcomes if not o.passed]
    refuse_if(directory.name, [*_uncovered(policy), *uncovered_intents(policy), *failed, *_unfit_templates(policy)])
    return policy


def check_pack(directory: Path) -> CaseReport:
    """Return the outcome of every case of a pack. Raise PolicyError if the pack cannot even be read."""
    policy = read_policy(directory)
    problems = (*_uncovered(policy), *uncovered_intents(policy), *_unfit_templates(policy))
    outcomes = (*run_cases(policy), *run_question_cases(policy))
    return CaseReport(pack=pack_info(policy), outcomes=outcomes, problems=problems)


def pack_info(policy: Policy) -> PackInfo:
    """Return a pack in short."""
    return PackInfo(
        name=policy.name,
        version=policy.version,
        digest=policy.digest,
        rules=tuple(rule.entry.id for rule in policy.rules),
        cases=len(policy.cases) + len(policy.question_cases),
    )


def run_cases(policy: Policy) -> Iterator[CaseOutcome]:
    """Judge every case; numbers count from 1 in the order of ``cases.toml``."""
    known = {rule.entry.id for rule in policy.rules}
    for number, case in enumerate(policy.cases, start=1):
        sentence = _failure(policy, case) if case.rule in known else "there is no such rule in this pack"
        yield CaseOutcome(number=number, rule=case.rule, kind=case.kind, passed=not sentence, sentence=sentence)


def _failure(policy: Policy, case: Case) -> str:
    """Return what is wrong, or nothing."""
    task = case.task(policy.digest)
    if (case.rule in fired_rules(policy, task)) != case.must_fire:
        return "the rule does not fire and should" if case.must_fire else "the rule fires and should not"
    if case.action is None and case.released is None:
        return ""
    verdict = judge(policy, task)
    done = case_action(case, verdict)
    if case.action is not None and done is not case.action:
        return f"the guard does {done.value!r}, expected {case.action.value!r}"
    out = verdict.released[0].text if verdict.released else ""
    if case.released is not None and out != case.released:
        return f"the text that goes out is {out!r}, expected {case.released!r}"
    return ""


def case_action(case: Case, verdict: GuardVerdict) -> GuardAction:
    """Return what the guard does with a case, leaving out the marks that other rules put on every page."""
    counting = (
        d.action
        for d in verdict.decisions
        if d.statement_id or d.rule == case.rule or d.action is not GuardAction.ANNOTATE
    )
    return max(counting, key=lambda action: action.severity, default=GuardAction.ALLOW)


def _uncovered(policy: Policy) -> list[str]:
    have = {(case.rule, case.kind) for case in policy.cases}
    return [
        f"rule {rule.entry.id} has no {kind.replace('_', '-')} case in cases.toml"
        for rule in policy.rules
        for kind in _NEEDED
        if (rule.entry.id, kind) not in have
    ]


def _unfit_templates(policy: Policy) -> list[str]:
    """Return the templates for patients and technicians that the pack's own rules would not let out."""
    problems: list[str] = []
    for language, templates in policy.templates.items():
        for audience in (Audience.PATIENT, Audience.TECHNICIAN):
            for name in templates.of(audience):
                broken = {
                    rule
                    for finding in _samples(templates.glossary)
                    for rule in _breaks(policy, language, audience, name, finding)
                }
                where = f"templates/{language}.toml [{audience.value}] {name}"
                problems += [f"{where} breaks rule {rule}" for rule in sorted(broken)]
    return problems


def _samples(glossary: dict[str, str]) -> Iterator[Finding]:
    for condition in (*glossary, "unlisted_condition"):
        for probability in _PROBABILITIES:
            yield Finding(
                condition=condition,
                label="Condition",
                probability=probability,
                threshold=0.5,
                presence=Presence.PRESENT if probability >= 0.5 else Presence.ABSENT,
                instance_sha256="0" * 64,
            )


def _breaks(policy: Policy, language: str, audience: Audience, name: str, finding: Finding) -> frozenset[str]:
    text = policy.templates[language].render(audience, name, finding)
    if text is None:
        return frozenset()
    kind = next((k for k in KINDS if k == name), "notice")
    statement = Statement.model_validate({"statement_id": "template", "kind": kind, "text": text, "finding": finding})
    subject = GuardSubject(
        facts=StudyFacts(),
        findings=(finding,),
        validated=True,
        reference=False,
        signed_by="a person",
        language=language,
    )
    task = GuardTask(audience=audience, subject=subject, statements=(statement,), policy_hash=policy.digest)
    strict = {r.entry.id for r in policy.rules if r.entry.action.severity >= GuardAction.REDACT.severity}
    return fired_rules(policy, task) & strict
