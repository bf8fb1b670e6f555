"""Text against the findings: what is not supported, left out, or worded more strongly than measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from clinic_ai.domain import Finding, Mask, Presence
from clinic_ai.guard.detectors.base import Detector, Flag, Span, View
from clinic_ai.guard.detectors.claims import WORDED
from clinic_ai.guard.lexicon import Match
from clinic_ai.guard.text import Text
from clinic_ai.guard.wording import probability_word

_STATED_PROBABILITY = re.compile(
    r"probability\s{0,3}(?:of|is|:|=)?\s{0,3}(\d{1,3}(?:[.,]\d{1,3})?)\s{0,2}(?:%|per ?cent)"
)


class AgainstFindings(Detector):
    """Base: knows which conditions a text names, by the pack's lexicon ``condition: term, term``."""

    findings: str = "findings"
    kinds: str = "kinds"
    """Lexicon ``condition: the more general one it is a kind of``; a pack may do without."""
    lexicon_fields: ClassVar[tuple[str, ...]] = ("findings", "kinds")
    optional_lexicons: ClassVar[tuple[str, ...]] = ("kinds",)

    def _kinds(self) -> tuple[tuple[str, str], ...]:
        """The pairs (condition, the more general one)."""
        kinds = self._lexicons.get("kinds")
        return kinds.terms if kinds is not None else ()

    def _named(self, text: Text) -> list[Match]:
        return self._lexicons["findings"].find(text)

    def _mask_keys(self, mask: Mask) -> set[str]:
        """The lexicon's names for a mask of a condition."""
        return {mask.name, *self._lexicons["findings"].keys(mask.name.replace("_", " "))}

    def _keys(self, finding: Finding) -> set[str]:
        """The lexicon's names for a finding: its own key, and what its label is called there."""
        return {finding.condition, *self._lexicons["findings"].keys(finding.label)}

    def _evidence(self, findings: Iterable[Finding]) -> dict[str, list[Finding]]:
        by_key: dict[str, list[Finding]] = {}
        for finding in findings:
            for key in self._keys(finding):
                by_key.setdefault(key, []).append(finding)
        return by_key

    def _masks(self, masks: Iterable[Mask]) -> dict[str, list[Mask]]:
        by_key: dict[str, list[Mask]] = {}
        for mask in masks:
            if mask.role == "finding":
                for key in self._mask_keys(mask):
                    by_key.setdefault(key, []).append(mask)
        return by_key


class NoEvidence(Detector):
    """Fires on a sentence of kind ``finding`` that brings no finding."""

    def detect(self, view: View) -> Flag | None:
        """Look at the statement's ``finding``."""
        statement = view.statement
        if statement is None or statement.kind != "finding" or statement.finding is not None:
            return None
        return Flag("a finding without the evidence it rests on")


class UnsupportedFinding(AgainstFindings):
    """Fires where the text names a condition that neither a model nor a mask speaks of."""

    def detect(self, view: View) -> Flag | None:
        """Return the places of all such conditions."""
        named = self._named(view.text)
        if not named:
            return None
        evidence = {*self._evidence(view.findings), *self._masks(view.subject.masks)}
        # Who judged the general condition judged its kinds, and who judged a kind can speak of the general one.
        evidence |= {key for pair in self._kinds() if not evidence.isdisjoint(pair) for key in pair}
        loose = [m for m in named if m.key not in evidence]
        if not loose:
            return None
        keys = ", ".join(sorted({m.key for m in loose}))
        return Flag(f"no model has judged: {keys}", tuple((m.start, m.end) for m in loose))


class OmittedFinding(AgainstFindings):
    """Fires, for the artefact as a whole, on a positive finding that no statement names."""

    def detect(self, view: View) -> Flag | None:
        """Compare the positive findings with the conditions named in all statements."""
        positive = [f for f in view.subject.findings if f.presence is Presence.PRESENT]
        shown = [m for m in view.subject.masks if m.role == "finding" and m.count]
        if not positive and not shown:
            return None
        named = {m.key for text in view.texts for m in self._named(text)}
        named |= {general for kind, general in self._kinds() if kind in named}
        spoken = " ".join(text.folded for text in view.texts)
        left_out = {
            *(f.condition for f in positive if not (self._keys(f) & named) and Text(f.label).folded not in spoken),
            *(m.name for m in shown if not (self._mask_keys(m) & named) and m.name.replace("_", " ") not in spoken),
        }
        return Flag(f"positive but not mentioned: {', '.join(sorted(left_out))}") if left_out else None


class ProbabilityWording(AgainstFindings):
    """Fires where a probability word, or a probability in per cent, is not the calibrated one.

    A sentence of kind ``finding`` must carry exactly the word of its finding. In other text a probability word
    next to a condition must be that of the condition's finding; without one nothing supports it.
    """

    def detect(self, view: View) -> Flag | None:
        """Compare words and numbers with ``wording.probability_word``."""
        statement = view.statement
        if statement is None:
            return None
        worded = WORDED.find(view.text)
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
