"""Turns what plugins answered into single statements, each with the evidence it rests on; unguarded.

A statement's id finds its evidence again after the guard: ``f_3`` words the third finding of all analyses in their
order, ``s_…`` is a sentence of a written report, ``a_…`` an answer, ``r_…`` a refusal, ``m_…`` a remark. What a
statement is, its kind says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

from clinic_ai.domain import Analysis, Answer, Finding, GuardVerdict, Released, ReportSection, Statement, StatementKind
from clinic_ai.domain.words import MAX_TEXT
from clinic_ai.errors import ClinicError
from clinic_ai.results.codes import finding_code
from clinic_ai.tasks import AnswerOrigin

_PREFIXES: dict[StatementKind, str] = {"report": "s", "answer": "a", "refusal": "r", "remark": "m"}
SECTIONS: tuple[ReportSection, ...] = get_args(ReportSection)
"""Sections of a written report in the order in which they are read."""
SIDES = {"left": " on the left", "right": " on the right", "bilateral": " on both sides", "": ""}
"""How a side is said after the name of a finding."""


def findings_of(analyses: Iterable[Analysis]) -> tuple[Finding, ...]:
    """Return all findings in the order that statement ids count."""
    return tuple(finding for analysis in analyses for finding in analysis.findings)


def answers_of(analyses: Iterable[Analysis]) -> tuple[Answer, ...]:
    """Return all answers that have words, in the order that statement ids count."""
    return tuple(answer for analysis in analyses for answer in analysis.answers if answer.text.strip())


def origins_of(analyses: Iterable[Analysis]) -> tuple[AnswerOrigin, ...]:
    """Return what each answer that has words is about and who gave it."""
    return tuple(
        AnswerOrigin(
            statement_id=f"{_PREFIXES['answer']}_{number}",
            question=answer.question,
            instance_sha256=answer.instance_sha256,
            frame=answer.frame,
            category=answer.category,
            adapter=answer.adapter,
            confidence=answer.confidence,
        )
        for number, answer in enumerate(answers_of(analyses), start=1)
    )


def statements_of(analyses: Sequence[Analysis]) -> tuple[Statement, ...]:
    """Return one statement for each sentence of a written report, finding, answer, refusal and remark, in this order.

    Blank texts say nothing and are left out.
    Raise PluginError if a finding names a condition that the table of codes does not have.
    """
    findings = tuple(
        Statement(statement_id=f"f_{number}", kind="finding", text=sentence(finding), finding=finding)
        for number, finding in enumerate(findings_of(analyses), start=1)
    )
    answers = (answer_text(answer) for answer in answers_of(analyses))
    refusals = (refusal.sentence for analysis in analyses for refusal in analysis.refusals)
    remarks = (remark for analysis in analyses for remark in analysis.remarks)
    return (
        *_report(analyses),
        *findings,
        *_plain("answer", answers),
        *_plain("refusal", refusals),
        *_plain("remark", remarks),
    )


def _report(analyses: Iterable[Analysis]) -> Iterator[Statement]:
    """Yield the written reports sentence by sentence; where there are several, section by section."""
    sentences = [s for analysis in analyses for s in analysis.report if s.text.strip()]
    sentences.sort(key=lambda sentence: SECTIONS.index(sentence.section))  # stable: each keeps its own order
    for number, sentence in enumerate(sentences, start=1):
        yield Statement(
            statement_id=f"{_PREFIXES['report']}_{number}",
            kind="report",
            text=_capped(sentence.text.strip()),
            section=sentence.section,
        )


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


class Parted(NamedTuple):
    """All that the guard released, each statement in one of the two and in no other order than before."""

    findings: tuple[tuple[Finding, Released], ...]
    """Each finding whose statement was released, with its words; in the order of the findings."""
    others: tuple[Released, ...]
    """Everything else, whatever its id: answers, refusals, remarks, and what a person wrote."""
    report: tuple[tuple[ReportSection, tuple[Released, ...]], ...] = ()
    """What stands in the sections of a written report; those that have anything, in the order of reading."""


def parted(findings: Sequence[Finding], verdict: GuardVerdict) -> Parted:
    """Part what was released into words of these findings, sections of a written report, and all the rest.

    Raise ClinicError if two statements have one id: one would stand for both, and a signed sentence would be lost.
    """
    words = {released.statement_id: released for released in verdict.released}
    if len(words) != len(verdict.released):
        raise ClinicError(
            "Two released statements have the same id, so the report would leave one of them out.",
            remedy="Nothing was rendered. This is a defect: report it.",
        )
    numbered = ((f"f_{number}", finding) for number, finding in enumerate(findings, start=1))
    found = tuple((finding, words.pop(key)) for key, finding in numbered if key in words)
    rest = [said for said in verdict.released if said.statement_id in words]
    sections = ((section, tuple(said for said in rest if said.section == section)) for section in SECTIONS)
    report = tuple((section, said) for section, said in sections if said)
    return Parted(found, tuple(said for said in rest if said.section is None), report)


def _plain(kind: StatementKind, texts: Iterable[str]) -> Iterator[Statement]:
    said = (text.strip() for text in texts)
    for number, text in enumerate(filter(None, said), start=1):
        yield Statement(statement_id=f"{_PREFIXES[kind]}_{number}", kind=kind, text=_capped(text))


def answer_text(answer: Answer) -> str:
    """Return question, answer, how sure the model is and the notes in one; without words there is no answer.

    An answer alone may mean anything, and what belongs to it must not be parted from it. Where all of it would be too
    long, the notes are left out, then the question.
    """
    question, text = answer.question.strip(), answer.text.strip()
    if not text:
        return ""
    both = " ".join(filter(None, (question, text)))
    notes = " ".join(filter(None, (in_words(answer.confidence), *(note.strip() for note in answer.notes))))
    whole = f"{_ended(both)} {notes}" if notes else both
    return next((words for words in (whole, both) if len(words) <= MAX_TEXT), text)


def in_words(confidence: float | None) -> str:
    """Return in words how probably an answer is right, by its calibrated probability; nothing if that is unknown.

    > .90 "very high", .75–.90 "high", .25–.75 "moderate", .05–.25 "low", < .05 "very low". Not the words of findings:
    the guard lets those stand only beside a finding's own probability.
    """
    if confidence is None:
        return ""
    bands = ((0.75, "high"), (0.25, "moderate"), (0.05, "low"))
    how = next((word for lowest, word in bands if confidence >= lowest), "very low")
    return f"The model's confidence in this answer is {'very high' if confidence > 0.90 else how}."


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _capped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
