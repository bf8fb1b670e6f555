"""Questions before any model is asked: what they are after, and whether this image can tell.

Total and without side effects. The intents of the pack are gone through in order; the first that fits answers with
its template and the model is not called. Whatever cannot be answered so is held.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from clinic_ai.domain import Audience, GuardAction, Statement
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
from clinic_ai.guard.detectors import View
from clinic_ai.guard.engine import lacking, speak
from clinic_ai.guard.intents import QuestionSubject
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.text import Text
from clinic_ai.tasks import CaseOutcome

_KINDS = ("firing", "non_firing", "mutation")
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def ask(policy: Policy, task: QuestionTask) -> QuestionVerdict:
    """Return what becomes of a question. Never raises."""
    if task.policy_hash != policy.digest:
        return _held(policy, task, "guard.policy_mismatch", "The pack in force is not the one this was pinned to.")
    if not policy.intents:
        return _held(policy, task, "guard.no_questions", "The pack has no questions.toml; it answers no question.")
    view = question_view(task.audience, task.subject, task.question)
    if task.audience is Audience.TECHNICIAN:
        return _answered(policy, task, view, "guard.states_only", "This audience reads states only.", "answer")
    for intent in policy.intents:
        flag = intent.judge(view)
        if flag is not None:
            verdict = _answered(policy, task, view, intent.entry.id, flag.reason, intent.entry.template)
            shown = task.subject.example if intent.entry.shows_example and verdict.reply else None
            return verdict.model_copy(update={"example": shown})
    question = _redacted(policy, view)
    if not question:
        return _held(policy, task, "guard.unsettled", "Nothing is left of the question.")
    return QuestionVerdict(
        audience=task.audience, action=GuardAction.ALLOW, question=question, policy_hash=policy.digest
    )


def question_view(audience: Audience, subject: QuestionSubject, question: str) -> View:
    """Return a question as detectors see it."""
    text = normalised(question)
    statement = Statement(statement_id="question", kind="answer", text=text)
    return View(audience, subject, statement, Text(text), (Text(text),))


def normalised(question: str) -> str:
    """Return a question in one notation: compatibility forms folded, hidden characters gone, blanks single."""
    folded = unicodedata.normalize("NFKC", question)
    shown = (c if unicodedata.category(c) not in _DROPPED else " " if c in "\n\t\r" else "" for c in folded)
    return " ".join("".join(shown).split())[:MAX_QUESTION]


def _redacted(policy: Policy, view: View) -> str:
    """Return the question without what the pack's rules of action redact find in it, personal data above all."""
    flags = [rule.judge(view) for rule in policy.rules if rule.entry.action is GuardAction.REDACT]
    spans = sorted(span for flag in flags if flag is not None for span in flag.spans)
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces.append(view.text.raw[at : max(at, start)])
        at = max(at, end)
    return " ".join("".join([*pieces, view.text.raw[at:]]).split())


def _answered(
    policy: Policy, task: QuestionTask, view: View, intent: str, reason: str, template: str
) -> QuestionVerdict:
    reply = speak(policy, view, template)
    if reply is None:
        return _held(policy, task, intent, lacking(policy, task.subject.language) or "No template can answer it.")
    return QuestionVerdict(
        audience=task.audience,
        action=GuardAction.REPLACE,
        intent=intent,
        reason=reason,
        reply=reply,
        policy_hash=policy.digest,
    )


def _held(policy: Policy, task: QuestionTask, intent: str, reason: str) -> QuestionVerdict:
    return QuestionVerdict(
        audience=task.audience, action=GuardAction.HOLD, intent=intent, reason=reason, policy_hash=policy.digest
    )


# ---------------------------------------------------------------- the proof


def run_question_cases(policy: Policy) -> Iterator[CaseOutcome]:
    """Judge every case of ``questions.toml``; numbers count from 1 in its order."""
    for number, case in enumerate(policy.question_cases, start=1):
        task = QuestionTask(
            audience=case.audience, subject=case.subject(), question=case.text, policy_hash=policy.digest
        )
        verdict = ask(policy, task)
        got = verdict.intent or "allowed"
        passed = (verdict.intent == case.intent) == case.must_fire and verdict.action is not GuardAction.HOLD
        sentence = "" if passed else f"the question is taken for {got!r}"
        yield CaseOutcome(
            file=policy.question_file,
            number=number,
            rule=case.intent,
            kind=case.kind,
            text=case.text,
            passed=passed,
            sentence=sentence,
        )


def uncovered_intents(policy: Policy) -> list[str]:
    """Return intents that lack a kind of case, and cases of intents that are not there."""
    have = {(case.intent, case.kind) for case in policy.question_cases}
    known = {intent.entry.id for intent in policy.intents}
    lacking = [
        f"intent {intent.entry.id} has no {kind.replace('_', '-')} case in questions.toml"
        for intent in policy.intents
        for kind in _KINDS
        if (intent.entry.id, kind) not in have
    ]
    strange = sorted({case.intent for case in policy.question_cases} - known)
    return lacking + [f"questions.toml has a case of {name!r}, which is no intent" for name in strange]
