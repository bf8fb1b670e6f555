"""Text against the findings: what is not supported, left out, contradicted, or worded more strongly than measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from clinic_ai.domain import Finding, Presence
from clinic_ai.guard.detectors.base import Detector, Flag, Span, View
from clinic_ai.guard.lexicon import Lexicon, Match
from clinic_ai.guard.text import Text
from clinic_ai.guard.wording import ALL_WORDS, probability_word

_WORDS = Lexicon((word, word) for word in ALL_WORDS)
_STATED_PROBABILITY = re.compile(
    r"probability\s{0,3}(?:of|is|:|=)?\s{0,3}(\d{1,3}(?:[.,]\d{1,3})?)\s{0,2}(?:%|per ?cent)"
)
_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right"}
_REACH = 6
"""A denial speaks of a finding named at most so many words behind it."""


class _AgainstFindings(Detector):
    """Base: knows which conditions a text names, by the pack's lexicon ``condition: term, term``."""

    findings: str = "findings"
    lexicon_fields: ClassVar[tuple[str, ...]] = ("findings",)

    def _named(self, text: Text) -> list[Match]:
        return self._lexicons["findings"].find(text)

    def _keys(self, finding: Finding) -> set[str]:
        """The lexicon's names for a finding: its own key, and what its label is called there."""
        return {finding.condition, *(m.key for m in self._named(Text(finding.label)))}

    def _evidence(self, findings: Iterable[Finding]) -> dict[str, list[Finding]]:
        by_key: dict[str, list[Finding]] = {}
        for finding in findings:
            for key in self._keys(finding):
                by_key.setdefault(key, []).append(finding)
        return by_key


class NoEvidence(Detector):
    """Fires on a sentence of kind ``finding`` that brings no finding."""

    def detect(self, view: View) -> Flag | None:
        """Look at the statement's ``finding``."""
        statement = view.statement
        if statement is None or statement.kind != "finding" or statement.finding is not None:
            return None
        return Flag("a finding without the evidence it rests on")


class UnsupportedFinding(_AgainstFindings):
    """Fires where the text names a condition that no model has judged, affirmed or denied."""

    def detect(self, view: View) -> Flag | None:
        """Return the places of all such conditions."""
        named = self._named(view.text)
        if not named:
            return None
        evidence = self._evidence(view.findings)
        loose = [m for m in named if m.key not in evidence]
        if not loose:
            return None
        keys = ", ".join(sorted({m.key for m in loose}))
        return Flag(f"no model has judged: {keys}", tuple((m.start, m.end) for m in loose))


class OmittedFinding(_AgainstFindings):
    """Fires, for the artefact as a whole, on a positive finding that no statement names."""

    def detect(self, view: View) -> Flag | None:
        """Compare the positive findings with the conditions named in all statements."""
        positive = [f for f in view.subject.findings if f.presence is Presence.PRESENT]
        if not positive:
            return None
        named = {m.key for text in view.texts for m in self._named(text)}
        spoken = " ".join(text.folded for text in view.texts)
        left_out = [f for f in positive if not (self._keys(f) & named) and Text(f.label).folded not in spoken]
        if not left_out:
            return None
        return Flag(f"positive but not mentioned: {', '.join(sorted({f.condition for f in left_out}))}")


class Contradiction(_AgainstFindings):
    """Fires where the text denies a positive finding, affirms a negative one, or names the other side.

    Sentences with a probability word are left to ``probability_wording``.
    """

    negations: str = "negations"
    """Lexicon with the groups ``before`` ("no"), ``after`` ("is absent") and ``ends`` ("but")."""
    lexicon_fields: ClassVar[tuple[str, ...]] = ("findings", "negations")

    def detect(self, view: View) -> Flag | None:
        """Judge each condition in its sentence; one finding that agrees is enough."""
        if not view.findings:
            return None
        named = self._named(view.text)
        if not named:
            return None
        evidence = self._evidence(view.findings)
        cues = self._lexicons["negations"].find(view.text)
        worded = _WORDS.find(view.text)
        spans: list[Span] = []
        reasons: set[str] = set()
        for first, last in view.text.sentences:
            for match in (m for m in named if first <= m.first < last and m.key in evidence):
                hedged = any(first <= w.first < last for w in worded)
                denied = _polarity(match, [c for c in cues if first <= c.first < last])
                reason = _disagreement(evidence[match.key], None if hedged else denied)
                reason = reason or _other_side(evidence[match.key], view.text.words[first:last])
                if reason:
                    reasons.add(reason)
                    spans.append((match.start, match.end))
        return Flag("; ".join(sorted(reasons)), tuple(spans)) if spans else None


def _polarity(match: Match, cues: list[Match]) -> bool:
    """Return whether the sentence denies the finding."""
    ends = [c.first for c in cues if c.key == "ends"]
    for cue in cues:
        low, high = sorted((cue.first, match.first))
        if any(low < end < high for end in ends):
            continue
        if cue.key == "before" and 0 < match.first - cue.first <= _REACH:
            return True
        if cue.key == "after" and 0 <= cue.first - match.last <= _REACH:
            return True
    return False


def _disagreement(findings: list[Finding], denied: bool | None) -> str:
    if denied is None:
        return ""
    wrong = Presence.PRESENT if denied else Presence.ABSENT
    if all(f.presence is wrong for f in findings):
        return "the text denies a positive finding" if denied else "the text affirms a negative finding"
    return ""


def _other_side(findings: list[Finding], words: tuple[str, ...]) -> str:
    sides = {_SIDES[w] for w in words if w in _SIDES}
    known: set[Literal["left", "right", "bilateral", ""]] = {f.laterality for f in findings}
    if len(sides) == 1 and known <= {"left", "right"} and not sides & known:
        return "the text names the other side"
    return ""


class ProbabilityWording(_AgainstFindings):
    """Fires where a probability word, or a probability in per cent, is not the calibrated one.

    A sentence of kind ``finding`` must carry exactly the word of its finding. In other text a probability word
    next to a condition must be that of the condition's finding; without one nothing supports it.
    """

    def detect(self, view: View) -> Flag | None:
        """Compare words and numbers with ``wording.probability_word``."""
        statement = view.statement
        if statement is None:
            return None
        worded = _WORDS.find(view.text)
        if statement.finding is not None:
            return self._own(view.text, worded, statement.finding)
        return self._others(view, worded) if worded else None

    @staticmethod
    def _own(text: Text, worded: list[Match], finding: Finding) -> Flag | None:
        expected = probability_word(finding.probability)
        wrong = [(m.start, m.end) for m in worded if m.key != expected]
        for match in _STATED_PROBABILITY.finditer(text.folded):
            if abs(float(match[1].replace(",", ".")) - 100 * finding.probability) > 1.0:
                wrong.append(text.span(*match.span(1)))
        if wrong:
            return Flag(f"the calibrated probability is worded {expected!r}", tuple(wrong))
        return None if worded else Flag(f"the word {expected!r} for the calibrated probability is missing")

    def _others(self, view: View, worded: list[Match]) -> Flag | None:
        evidence = self._evidence(view.findings)
        named = self._named(view.text)
        wrong: list[Span] = []
        for first, last in view.text.sentences:
            keys = {m.key for m in named if first <= m.first < last}
            right = {probability_word(f.probability) for key in keys for f in evidence.get(key, ())}
            wrong += [(m.start, m.end) for m in worded if first <= m.first < last and m.key not in right]
        return Flag("a probability word without a calibrated probability behind it", tuple(wrong)) if wrong else None
