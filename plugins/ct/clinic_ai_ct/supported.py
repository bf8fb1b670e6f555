"""Keeps of a generated report what the evidence carries, and says what was taken out and why.

A language model writes fluently and invents freely. Here each sentence has to earn its place: only words from a closed
vocabulary, only conditions that were looked for, only numbers, sides, places and grades that were measured, and no
objection from the guard. What is left is true of the evidence; ``completed`` fills in what it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from clinic_ai.domain import Audience, Finding, ImageFacts, ReportSentence, Statement, StudyFacts
from clinic_ai.guard.detectors.claims import WORDED, Claim, claims
from clinic_ai.guard.engine import judge
from clinic_ai.guard.lexicon import Lexicon
from clinic_ai.guard.packfiles import pack_texts, read_pack_files
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.parsing import read_lexicons
from clinic_ai.guard.policy import Policy, read_policy
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask
from clinic_ai_ct.evidence import Evidence, collected
from clinic_ai_ct.grading import gradings
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.measuring import masks_of
from clinic_ai_ct.numbers import unmeasured
from clinic_ai_ct.placing import misplaced
from clinic_ai_ct.report import Section, doubtful, write_report
from clinic_ai_ct.sections import sections
from clinic_ai_ct.wording import capital, words_of

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\d])")
_BULLET = re.compile(r"^\s*(?:[-*•·–]+|\d{1,2}[.)](?=\s))\s*")
_WORD = re.compile(r"[a-z]+")
_DEFINITE = re.compile(r"\bdefinite(ly)?\b", re.IGNORECASE)
_UNITS = frozenset({"mm", "cm", "ml", "hu", "x", "per", "cent", "percent"})
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WHERE = ("left", "right", "both", "bilateral", "upper", "middle", "lower", "anterior", "posterior", "mass")
_DOUBT = ("classifier", "definite", "likely", "may", "outlined", "physiological", "unlikely")
"""What only a sentence that tells the same doubt has told."""
_SECTIONS: tuple[Section, ...] = ("findings", "impression")


class Removed(NamedTuple):
    """A sentence that was taken out, and why, in a sentence."""

    text: str
    reason: str


class Supported(NamedTuple):
    """What of a text the evidence carries, in its order, and what was taken out."""

    sentences: tuple[ReportSentence, ...]
    removed: tuple[Removed, ...]


def supported(text: str, findings: Sequence[Finding], lesions: Sequence[Lesion]) -> Supported:
    """Return the sentences of a generated report that findings and lesions carry, each tied to them.

    Sentences under RECOMMENDATIONS are all taken out: those come from guidelines (``recommending``), not from a model.
    So are history, indication, technique and comparison.
    """
    check = _Check(findings, lesions)
    parts = sections(text)
    kept: list[ReportSentence] = []
    removed: list[Removed] = []
    for section in _SECTIONS:
        for sentence in _sentences(getattr(parts, section)):
            reason = check.objection(sentence, section)
            if not reason and any(k.text == sentence and k.section == section for k in kept):
                reason = "It was said before."
            if reason:
                removed.append(Removed(sentence, reason))
            else:
                kept.append(check.tied(sentence, section))
    removed += [Removed(s, "Advice comes from published guidelines only.") for s in _sentences(parts.recommendations)]
    removed += [Removed(s, "It is not about what these images show.") for s in _sentences(parts.aside)]
    return Supported(tuple(kept), tuple(removed))


def completed(kept: Iterable[ReportSentence], written: Sequence[ReportSentence]) -> tuple[ReportSentence, ...]:
    """Return a whole report: the sentences kept, and those of the written one that say more than these do.

    ``written`` is what ``write_report`` makes of the same evidence. One of its sentences is left out if others of its
    section are about all its conditions, and have every number, side, place, grade and doubt of it; else it takes the
    place of those of which it has all. The order is that of its conditions in each section; its recommendations are
    taken as they are.
    """
    kept = tuple(kept)
    report: list[ReportSentence] = []
    for section in _SECTIONS:
        own = [s for s in kept if s.section == section]
        order = {c: n for n, c in enumerate(c for s in written if s.section == section for c in s.conditions)}
        missing = [s for s in written if s.section == section and not _told(s, own)]
        whole = [*(s for s in own if not any(_told(s, [other]) for other in missing)), *missing]
        report += sorted(whole, key=lambda s: min((order.get(c, len(order)) for c in s.conditions), default=0))
    return (*report, *(s for s in written if s.section == "recommendations"))


def _told(sentence: ReportSentence, others: Sequence[ReportSentence]) -> bool:
    """Return whether sentences tell all that another one does."""
    own = [other for other in others if set(other.conditions) & set(sentence.conditions)]
    if not {c for other in own for c in other.conditions}.issuperset(sentence.conditions):
        return False
    said = {detail for other in own for detail in _details(other.text)}
    return bool(own) and said.issuperset(_details(sentence.text))


def _details(text: str) -> set[str]:
    return set(_NUMBER.findall(text)) | (set(_WORD.findall(text.lower())) & _telling())


@lru_cache(maxsize=1)
def _telling() -> frozenset[str]:
    """Return the words of a report that tell how much of something there is, where, and how sure that is."""
    grades = {band.word for grading in gradings().values() for band in grading.bands}
    return frozenset({*grades, *words_of("en")["numbers"]["words"], *_WHERE, *_DOUBT})


def _sentences(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for part in _SENTENCE.split(_BULLET.sub("", line)):
            sentence = " ".join(part.split())
            if sentence:
                yield capital(sentence)


@lru_cache(maxsize=1)
def _policy() -> Policy:
    return read_policy(shipped_pack("default"))


@lru_cache(maxsize=1)
def _lexicons() -> tuple[Lexicon, Lexicon, Lexicon]:
    """Return the pack's names of conditions, its negations and its normal statements."""
    found = read_lexicons(pack_texts(read_pack_files(shipped_pack("default"))), [])
    return found["findings"], found["negations"], found["normals"]


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    lines = files("clinic_ai_ct").joinpath("vocabulary_en.txt").read_text(encoding="utf-8").splitlines()
    names = " ".join([*words_of("en")["names"].values(), *words_of("en")["numbers"]["words"]])
    listed = " ".join(line for line in lines if not line.startswith("#"))
    words = _WORD.findall(f"{listed} {names}")
    return frozenset({*words, *(f"{w}s" for w in _WORD.findall(names)), *_UNITS})


class _Check:
    """Objections to sentences, by the evidence of one study."""

    def __init__(self, findings: Sequence[Finding], lesions: Sequence[Lesion]) -> None:
        self._evidence = _by_name(collected(findings, lesions))
        self._findings = tuple(findings)
        self._masks = masks_of(lesions)
        labels = " ".join(f.label.lower() for f in findings)
        written = write_report(findings, lesions)
        self._written = {(s.section, s.text): s for s in written if s.section != "recommendations"}
        self._words = _vocabulary() | set(_WORD.findall(labels))

    def objection(self, sentence: str, section: Section) -> str:
        """Return why a sentence may not stay in a section, in a sentence; empty if it may.

        All may that the templates make for this section: what they say in the findings of something that is not called
        present is too much for the impression.
        """
        if (section, sentence) in self._written:
            return ""
        text = Text(sentence)
        said = claims(text, *_lexicons())
        objections: tuple[Callable[[], str], ...] = (
            lambda: self._strange(sentence),
            lambda: self._uncarried(text, said),
            lambda: self._too_sure(sentence, said),
            lambda: unmeasured(sentence, self._named(said)),
            lambda: misplaced(sentence, self._named(said)),
            lambda: self._guarded(sentence),
        )
        return next(filter(None, (objection() for objection in objections)), "")

    def tied(self, sentence: str, section: Section) -> ReportSentence:
        """Return a sentence without objections, tied to the evidence of the conditions it names."""
        own = self._written.get((section, sentence))
        if own is not None:
            return own
        said = claims(Text(sentence), *_lexicons())
        named = self._named(said)
        return ReportSentence(
            section=section,
            text=sentence,
            conditions=tuple(one.condition for one in named),
            findings=tuple(n for one in named for n in one.findings),
            masks=tuple(n for one in named for n in one.masks),
            normal=all(claim.denied for claim in said),
        )

    def _named(self, said: Sequence[Claim]) -> tuple[Evidence, ...]:
        named = (self._evidence.get(claim.match.key) for claim in said)
        return tuple({one.condition: one for one in named if one is not None}.values())

    def _strange(self, sentence: str) -> str:
        if "?" in sentence:
            return "It asks instead of telling."
        unknown = [w for w in _WORD.findall(sentence.lower()) if w not in self._words]
        return f"Nothing that was measured tells of {unknown[0]!r}." if unknown else ""

    def _uncarried(self, text: Text, said: Sequence[Claim]) -> str:
        if not said:
            return "It names nothing that was looked for."
        worded = bool(WORDED.find(text))
        for claim in said:
            one = self._evidence.get(claim.match.key)
            name = claim.match.key.replace("_", " ")
            if one is None:
                return f"Nobody looked for {name}."
            if claim.denied is None and not (worded and one.strongest):
                return f"It leaves open whether there is {name}, which nothing measured."
            if claim.denied is False and not one.outlined:
                return f"It says that there is {name}, which is not outlined."
            if claim.denied and not _deniable(claim, one):
                return f"It denies {name}, which was found."
        return ""

    def _too_sure(self, sentence: str, said: Sequence[Claim]) -> str:
        for claim in said:
            one = self._evidence.get(claim.match.key)
            if one is None or not one.strongest:
                continue
            name = claim.match.key.replace("_", " ")
            if claim.denied and one.denied and doubtful(one) and not _DEFINITE.search(sentence):
                return f"It denies {name} without a word of doubt, which is not that unlikely."
            if claim.denied is False and one.unsure:
                return f"It says that there is {name}, which is too near to its threshold to be called."
        return ""

    def _guarded(self, sentence: str) -> str:
        statement = Statement(statement_id="s", kind="answer", text=sentence)
        subject = GuardSubject(
            facts=StudyFacts(slices=2),
            findings=self._findings,
            masks=self._masks,
            image=ImageFacts(calibrated=True, priors=0),
        )
        policy = _policy()
        task = GuardTask(
            audience=Audience.CLINICIAN, subject=subject, statements=(statement,), policy_hash=policy.digest
        )
        decisions = [d for d in judge(policy, task).decisions if d.statement_id]
        return f"The guard objects ({decisions[0].rule}): {decisions[0].reason}." if decisions else ""


def _by_name(evidence: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Return the evidence by every key that the guard's names have for a condition: by its own, and by its label."""
    names = _lexicons()[0]
    found = dict(evidence)
    for condition, one in evidence.items():
        label = one.strongest.label if one.strongest else ""
        for key in (*names.keys(condition.replace("_", " ")), *names.keys(label)):
            found.setdefault(key, one)
    return found


def _deniable(claim: Claim, one: Evidence) -> bool:
    """Whether a denial is right: nothing was found, or nothing on the one side that it names."""
    if one.denied:
        return True
    if (
        one.lesion is None
        or len(claim.sides) != 1
        or (one.strongest and not one.strongest.laterality and not one.outlined)
    ):
        return False
    found = {p.side for p in one.lesion.pieces}
    return bool(found) and not found & {*claim.sides, "bilateral", ""}
