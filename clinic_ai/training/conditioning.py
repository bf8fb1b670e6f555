"""Leaves out pairs of question and answer that an image cannot teach, or must not: they are counted, with the reason.

What a question asks for is told by the word lists of the shipped policy pack: by those that keep the same question
from a model when somebody asks it. A question of the category file is never left out for what it asks: a clinic that
puts one there says that its images answer it.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache

from clinic_ai.domain import Audience, CategoryInfo, LeftOutReason, PatientIdentity, QuestionAnswer, StudyFacts
from clinic_ai.guard.lexicon import Lexicon, parse_lexicon
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject
from clinic_ai.training.labelled_folder import LabelledImage, Reading, named
from clinic_ai.training.sheet_layout import MAX_ANSWER, same_question, same_words

_PACK = "default"
_PERSONAL_RULE = "personal-data-pattern"
_LONG_NUMBER = re.compile(r"\b\d{7,}\b")
"""No measure has so many digits; the number of a person, a study or a telephone has."""
_IN_THE_IMAGE = re.compile(r"\bin the (?:image|picture)\b")
"""How high or wide something is in the picture needs no scale."""
_SAYS_NOBODY = frozenset(
    {
        "anonymous",
        "baby",
        "case",
        "fetus",
        "foetus",
        "image",
        "mother",
        "patient",
        "person",
        "study",
        "subject",
        "unknown",
    }
)
"""Words in names of folders that name no person."""
_SHORTEST_NAME = 4
_SENTENCES = {
    LeftOutReason.THREE_D: "asks for, or tells, what needs a volume or another plane than the image shows",
    LeftOutReason.SIZE: "asks for, or tells, a size, for which an image has no scale",
    LeftOutReason.HISTORY: "asks for, or tells, a history or an earlier study, which no image shows",
    LeftOutReason.DEGENERATE: "has an answer that says nothing, repeats itself or is too long",
    LeftOutReason.PERSONAL: "holds personal data",
}
_ASKED = frozenset({LeftOutReason.THREE_D, LeftOutReason.SIZE, LeftOutReason.HISTORY})


def condition(reading: Reading, category: CategoryInfo | None) -> None:
    """Leave out of ``reading`` the pairs that a model should not learn, and images that have none left."""
    if category is None:
        return
    asked_on_purpose = frozenset(same_question(question) for question in category.questions)
    left: dict[LeftOutReason, list[tuple[LabelledImage, QuestionAnswer]]] = defaultdict(list)
    kept: list[LabelledImage] = []
    for image in reading.images:
        pairs = []
        for pair in image.pairs:
            reason = why_not(pair, _identity_of(image), asked_on_purpose)
            if reason is None:
                pairs.append(pair)
            else:
                left[reason].append((image, pair))
        if pairs:
            kept.append(replace(image, pairs=tuple(pairs)))
    reading.images = kept
    for remembered in (_lexicons, _personal_patterns):
        remembered.cache_clear()  # the daemon has no use for them until something is learned again
    for reason, found in left.items():
        reading.leave_out(reason, len(found), _sentence(reason, found), "pair")


def why_not(
    pair: QuestionAnswer, identity: PatientIdentity, asked_on_purpose: Collection[str] = ()
) -> LeftOutReason | None:
    """Return why a pair is not learned, None if it may be. ``asked_on_purpose`` as ``same_question`` gives them."""
    question, answer = Text(pair.question), Text(pair.answer)
    if _is_degenerate(pair, answer):
        return LeftOutReason.DEGENERATE
    if _names_somebody(question, identity) or _names_somebody(answer, identity):
        return LeftOutReason.PERSONAL
    if same_question(pair.question) in asked_on_purpose:
        return None
    return next(_asks_too_much(question, answer), None)


def _asks_too_much(question: Text, answer: Text) -> Iterator[LeftOutReason]:
    from clinic_ai.guard.detectors.quantities import sizes  # only where something is learned

    lists = _lexicons()
    if lists["question-volume"].find(question) or lists["volume"].find(answer):
        yield LeftOutReason.THREE_D
    relative = lists["question-relative"].find(question) or _IN_THE_IMAGE.search(question.folded)
    if (lists["question-size"].find(question) and not relative) or sizes(answer):
        yield LeftOutReason.SIZE
    history = (("question-history", question), ("question-comparison", question), ("history", answer))
    if any(lists[name].find(text) for name, text in (*history, ("comparison", answer))):
        yield LeftOutReason.HISTORY


def _is_degenerate(pair: QuestionAnswer, answer: Text) -> bool:
    from clinic_ai.guard.detectors.base import View
    from clinic_ai.guard.detectors.degenerate import DegenerateText

    if not answer.words or len(pair.answer) > MAX_ANSWER or same_words(pair.answer) == same_words(pair.question):
        return True
    view = View(audience=Audience.CLINICIAN, subject=GuardSubject(facts=StudyFacts()), statement=None, text=answer)
    return DegenerateText().detect(view) is not None


def _names_somebody(text: Text, identity: PatientIdentity) -> bool:
    from clinic_ai.guard.detectors.base import View
    from clinic_ai.guard.detectors.identity import OwnIdentity

    if _LONG_NUMBER.search(text.folded) or any(pattern.search(text.folded) for pattern in _personal_patterns()):
        return True
    detector = OwnIdentity()
    detector.bind(_lexicons())
    subject = GuardSubject(facts=StudyFacts(), identity=identity)
    return detector.detect(View(audience=Audience.CLINICIAN, subject=subject, statement=None, text=text)) is not None


def _identity_of(image: LabelledImage) -> PatientIdentity:
    """Return what is known of the patient: of a stored study all, of a folder what it is called after."""
    if image.identity != PatientIdentity():
        return image.identity
    words = [w for w in re.findall(r"[^\W\d_]+", image.patient_id) if w.casefold() not in _SAYS_NOBODY]
    number = image.patient_id if re.search(r"\d{4}", image.patient_id) else ""
    name = " ".join(word for word in words if len(word) >= _SHORTEST_NAME)
    return PatientIdentity(patient_id=number, patient_name=name)


def _sentence(reason: LeftOutReason, found: list[tuple[LabelledImage, QuestionAnswer]]) -> str:
    count = (
        "1 pair of question and answer was" if len(found) == 1 else f"{len(found)} pairs of question and answer were"
    )
    if reason in _ASKED:
        asked = dict.fromkeys(f"“{pair.question}”" for _, pair in found)
        what, remedy = named(list(asked)), " If the images do answer one, make it a question of the category."
    else:  # their words are what is wrong with them
        what, remedy = named(list(dict.fromkeys(image.name for image, _ in found))), ""
    return f"{count} left out, which {_SENTENCES[reason]}{what}.{remedy}"


@cache
def _lexicons() -> dict[str, Lexicon]:
    names = ("question-volume", "volume", "question-size", "question-relative", "question-history")
    folder = shipped_pack(_PACK) / "lexicons"
    return {
        name: parse_lexicon(name, (folder / f"{name}.txt").read_text(encoding="utf-8"))
        for name in (*names, "question-comparison", "history", "comparison", "ordinary-words")
    }


@cache
def _personal_patterns() -> tuple[re.Pattern[str], ...]:
    """Return what the shipped pack takes for personal data of anybody."""
    policy = tomllib.loads((shipped_pack(_PACK) / "policy.toml").read_text(encoding="utf-8"))
    rule = next(rule for rule in policy["rule"] if rule["id"] == _PERSONAL_RULE)
    return tuple(re.compile(part["pattern"], re.IGNORECASE) for part in rule["when"]["any"])
