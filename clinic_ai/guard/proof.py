"""A pack proves itself before it is used: every rule has its cases, every case holds, every template is fit to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinic_ai.domain import Audience, Finding, GuardAction, GuardVerdict, Presence, Statement, StudyFacts
from clinic_ai.guard.cases import Case
from clinic_ai.guard.detectors.hygiene import ReadingGrade
from clinic_ai.guard.engine import fired_rules, judge
from clinic_ai.guard.parsing import refuse_if
from clinic_ai.guard.policy import Policy, read_policy
from clinic_ai.guard.questions import run_question_cases, uncovered_intents
from clinic_ai.guard.reading import LANGUAGES, has_formula
from clinic_ai.guard.templates import KINDS
from clinic_ai.tasks import CaseOutcome, CaseReport, GuardSubject, GuardTask, PackInfo

_NEEDED = ("firing", "non_firing", "mutation")
_PROBABILITIES = (0.02, 0.15, 0.5, 0.8, 0.95)
"""One for each probability word."""


def load_policy(directory: Path) -> Policy:
    """Read a pack and run its cases. Raise PolicyError, naming every rule and case, if anything is wrong."""
    policy = read_policy(directory)
    outcomes = (*run_cases(policy), *run_question_cases(policy))
    failed = [outcome.failure for outcome in outcomes if not outcome.passed]
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
    """Judge every case, in the order of their files."""
    known = {rule.entry.id for rule in policy.rules}
    for (file, number), case in zip(policy.case_places, policy.cases, strict=True):
        sentence = _failure(policy, case) if case.rule in known else "there is no such rule in this pack"
        yield CaseOutcome(
            file=file,
            number=number,
            rule=case.rule,
            kind=case.kind,
            text=case.text,
            passed=not sentence,
            sentence=sentence,
        )


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
        unmeasured = _unmeasured(policy, language)
        problems += [
            f"templates/{language}.toml: the reading level of {language!r} cannot be measured, and rule {rule} asks "
            f"for it; there are formulas for {' and '.join(LANGUAGES)} only"
            for rule in unmeasured
        ]
        for audience in (Audience.PATIENT, Audience.TECHNICIAN):
            broken: dict[str, list[str]] = {}
            for name in templates.of(audience):
                for rule in _broken(policy, language, audience, name) - set(unmeasured):
                    broken.setdefault(rule, []).append(name)
            where = f"templates/{language}.toml [{audience.value}]"
            problems += [
                f"{where} {', '.join(names)} {'breaks' if len(names) == 1 else 'break'} rule {rule}"
                for rule, names in sorted(broken.items())
            ]
    return problems


def _broken(policy: Policy, language: str, audience: Audience, name: str) -> set[str]:
    """Return the rules that a template breaks with any of the findings it may word."""
    templates = policy.templates[language]
    # Most templates say the same whatever was found: one finding of each presence stands for all then.
    worded = {(templates.render(audience, name, f), f.presence): f for f in _samples(templates.glossary)}
    return {
        rule
        for (text, _), finding in worded.items()
        if text is not None
        for rule in _breaks(policy, language, audience, name, text, finding)
    }


def _unmeasured(policy: Policy, language: str) -> list[str]:
    """Return the rules that ask for the reading level of a language that has no formula."""
    if has_formula(language):
        return []
    return [
        rule.entry.id for rule in policy.rules if any(isinstance(d, ReadingGrade) for d in rule.condition.detectors())
    ]


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


def _breaks(
    policy: Policy, language: str, audience: Audience, name: str, text: str, finding: Finding
) -> frozenset[str]:
    kind = name if name in KINDS else "notice"
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
