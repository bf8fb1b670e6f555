"""What a person who signed a report says to the questions in it: the answers, freed of what stands around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from clinic_ai.domain import Analysis, Answer, QuestionAnswer
from clinic_ai.domain.reviews import Passage, ReviewDocument
from clinic_ai.results.statements import answers_of, in_words, statements_of

_ENDS = (".", "!", "?")


@dataclass(frozen=True)
class SignedAnswer:
    """An answer as a person signed it. ``written``: in that person's own words, not in the model's.

    ``frame`` counts from 0, None for an image of one frame.
    """

    instance_sha256: str
    category: str
    frame: int | None
    pair: QuestionAnswer
    written: bool


def written(documents: Iterable[ReviewDocument]) -> frozenset[Passage]:
    """Return the words that persons wrote in reviews, in place of what was shown to them."""
    return frozenset(passage for document in documents for passage in document.said if passage not in document.shown)


def signed_answers(
    document: ReviewDocument, analyses: Sequence[Analysis], before: Collection[Passage] = ()
) -> tuple[list[SignedAnswer], int]:
    """Return what a signed review says to the questions of these analyses, and how many of its answers say nothing.

    An answer that was left out says nothing of why. One whose words the guard changed, and which the person left like
    that, is nobody's answer: it is counted. ``before`` are the words that persons wrote in earlier reviews of the same
    report: who leaves those as they are means them. Answers that name no image or category are not counted.
    """
    own = written([document]) | frozenset(before)
    said = {passage.statement_id: passage.text for passage in document.said}
    statements = [statement for statement in statements_of(analyses) if statement.kind == "answer"]
    found: list[SignedAnswer] = []
    changed = 0
    for answer, statement in zip(answers_of(analyses), statements, strict=True):
        words = said.get(statement.statement_id)
        if words is None or answer.instance_sha256 is None or not answer.category:
            continue
        accepted = _plain(words) == _plain(statement.text)
        if not accepted and Passage(statement_id=statement.statement_id, text=words) not in own:
            changed += 1
            continue
        text = answer.text.strip() if accepted else bare_answer(words, answer)
        if text:
            found.append(
                SignedAnswer(
                    instance_sha256=answer.instance_sha256,
                    category=answer.category,
                    frame=answer.frame,
                    pair=QuestionAnswer(question=answer.question.strip(), answer=text),
                    written=not accepted,
                )
            )
    return found, changed


def bare_answer(words: str, answer: Answer) -> str:
    """Return what a person wrote in place of an answer, without the question before it and the notes behind it."""
    text, question = _plain(words), _plain(answer.question)
    if text.casefold().startswith(question.casefold()):
        text = text[len(question) :].strip()
    noted = text
    for note in reversed((in_words(answer.confidence), *answer.notes)):
        text = text.removesuffix(_plain(note)).strip()
    if text != noted and not answer.text.strip().endswith(_ENDS):
        text = text.removesuffix(".")  # it was put there to part the answer from its notes
    return text


def _plain(text: str) -> str:
    return " ".join(text.split())
