"""Turns what plugins answered into single statements, each with the evidence it rests on; unguarded.

A statement's id says what it is and finds its evidence again after the guard: ``f_3`` words the third
finding of all analyses in their order, ``a_…`` an answer, ``r_…`` a refusal, ``m_…`` a remark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from clinic_ai.domain import Analysis, Answer, Finding, GuardVerdict, Released, Statement, StatementKind
from clinic_ai.results.codes import finding_code

MAX_TEXT = 4000
"""Longest text of a statement, in characters; the limit of ``domain.Words``."""

_KINDS: dict[str, StatementKind] = {"f": "finding", "a": "answer", "r": "refusal", "m": "remark"}
SIDES = {"left": " on the left", "right": " on the right", "bilateral": " on both sides", "": ""}
"""How a side is said after the name of a finding."""


def findings_of(analyses: Iterable[Analysis]) -> tuple[Finding, ...]:
    """Return all findings in the order that statement ids count."""
    return tuple(finding for analysis in analyses for finding in analysis.findings)


def statements_of(analyses: Sequence[Analysis]) -> tuple[Statement, ...]:
    """Return one statement for each finding, answer, refusal and remark; blank texts say nothing and are left out.

    Raise PluginError if a finding names a condition that the table of codes does not have.
    """
    findings = tuple(
        Statement(statement_id=f"f_{number}", kind="finding", text=sentence(finding), finding=finding)
        for number, finding in enumerate(findings_of(analyses), start=1)
    )
    answers = (_answer_text(answer) for analysis in analyses for answer in analysis.answers)
    refusals = (refusal.sentence for analysis in analyses for refusal in analysis.refusals)
    remarks = (remark for analysis in analyses for remark in analysis.remarks)
    return (*findings, *_plain("a", answers), *_plain("r", refusals), *_plain("m", remarks))


def sentence(finding: Finding) -> str:
    """Return a finding in words; how sure they sound follows from the calibrated probability alone.

    > .90 "most likely", .75–.90 "likely", .25–.75 "may represent", .05–.25 "unlikely", < .05 "very unlikely".
    """
    label = finding_code(finding.condition).label
    lower, side, probability = label[0].lower() + label[1:], SIDES[finding.laterality], finding.probability
    if probability > 0.90:
        return f"The image most likely shows {lower}{side}."
    if probability >= 0.75:
        return f"The image likely shows {lower}{side}."
    if probability >= 0.25:
        return f"The appearance may represent {lower}{side}."
    if probability >= 0.05:
        return f"{label}{side} is unlikely."
    return f"{label}{side} is very unlikely."


def kind_of(statement_id: str) -> StatementKind:
    """Return what a statement is, from its id; ids of other makers are notices."""
    return _KINDS.get(statement_id.partition("_")[0], "notice")


def released_findings(findings: Sequence[Finding], verdict: GuardVerdict) -> tuple[tuple[Finding, Released], ...]:
    """Return each finding whose statement the guard released, with the words it released, in their order."""
    words = {released.statement_id: released for released in verdict.released}
    numbered = ((f"f_{number}", finding) for number, finding in enumerate(findings, start=1))
    return tuple((finding, words[key]) for key, finding in numbered if key in words)


def released_others(verdict: GuardVerdict) -> tuple[Released, ...]:
    """Return what the guard released beside findings: answers, refusals, remarks, notices."""
    return tuple(released for released in verdict.released if kind_of(released.statement_id) != "finding")


def _plain(prefix: str, texts: Iterable[str]) -> Iterator[Statement]:
    said = (text.strip() for text in texts)
    for number, text in enumerate(filter(None, said), start=1):
        yield Statement(statement_id=f"{prefix}_{number}", kind=_KINDS[prefix], text=_capped(text))


def _answer_text(answer: Answer) -> str:
    """Return question and answer in one, for an answer alone may mean anything; without words there is no answer."""
    question, text = answer.question.strip(), answer.text.strip()
    both = f"{question} {text}" if question and text else text
    return both if len(both) <= MAX_TEXT else text


def _capped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
