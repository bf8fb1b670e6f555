"""Text that says something else than a finding or a mask does: presence, side, level, size and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from pydantic import Field

from clinic_ai.domain import Finding, Mask, Presence
from clinic_ai.guard.detectors.base import Flag, Span, View
from clinic_ai.guard.detectors.claims import Claim, claims
from clinic_ai.guard.detectors.evidence import AgainstFindings
from clinic_ai.guard.detectors.quantities import levels, same_level
from clinic_ai.guard.detectors.sides import BOTH
from clinic_ai.guard.text import Text

Evidence = TypeVar("Evidence", Finding, Mask)


class _AgainstClaims(AgainstFindings):
    """Base: knows what the text says of each condition."""

    negations: str = "negations"
    """Lexicon with the groups that ``denials`` explains: ``before`` ("no"), ``after`` ("not seen") and so on."""
    normals: str = "normals"
    """Lexicon ``condition: what denies it without naming it``; a pack may do without."""
    lexicon_fields: ClassVar[tuple[str, ...]] = ("findings", "negations", "normals", "kinds")
    optional_lexicons: ClassVar[tuple[str, ...]] = ("normals", "kinds")

    def _claims(self, text: Text, known: frozenset[str] | None = None) -> tuple[Claim, ...]:
        """Return what the text says; of ``known`` conditions at least, for nothing is held against the others."""
        lexicons = self._lexicons
        return claims(text, lexicons["findings"], lexicons["negations"], lexicons.get("normals"), known)

    def _known(self, view: View) -> frozenset[str]:
        """Return the conditions that there is evidence of, and their kin."""
        known = {*self._evidence(view.findings), *self._masks(view.subject.masks)}
        return frozenset(known.union(*(pair for pair in self._kinds() if not known.isdisjoint(pair))))

    def _speaks_of(self, text: Text, known: frozenset[str]) -> bool:
        """Whether the text names one of these conditions, or denies one without a name; cheaper than all claims."""
        lexicons = self._lexicons
        if any(match.key in known for match in lexicons["findings"].find(text)):
            return True
        normals = lexicons.get("normals")
        if normals is None or known.isdisjoint(normals.groups):
            return False
        return any(match.key in known for match in normals.find(text))


def _against(
    claim: Claim, evidence: Mapping[str, list[Evidence]], kinds: Sequence[tuple[str, str]]
) -> Sequence[Evidence]:
    """Return what a claim is held against: evidence of its condition, else of its kin.

    Who affirms a kind affirms the general condition; who denies the general one denies every kind of it. What shows a
    kind agrees with whoever affirms the general condition.
    """
    key = claim.match.key
    own = evidence.get(key, [])
    if own and claim.denied:
        return own
    shown = [e for kind, general in kinds if general == key for e in evidence.get(kind, ()) if _is_there(e)]
    if shown or claim.denied:
        return own + shown
    return own or [e for kind, general in kinds if kind == key for e in evidence.get(general, ())]


class Contradiction(_AgainstClaims):
    """Fires where the text denies a positive finding, affirms a negative one, or names the other side.

    Sentences with a probability word are left to ``probability_wording``. A mask counts as a finding: present if it
    shows anything.
    """

    def detect(self, view: View) -> Flag | None:
        """Judge each condition in its clause; one finding that agrees is enough."""
        if not view.findings and not view.subject.masks:
            return None
        findings, masks, kinds = self._evidence(view.findings), self._masks(view.subject.masks), self._kinds()
        known = self._known(view)
        if not self._speaks_of(view.text, known):
            return None
        said = self._claims(view.text, known)
        spans: list[Span] = []
        reasons: set[str] = set()
        for claim in said:
            of, shown = _against(claim, findings, kinds), _against(claim, masks, kinds)
            if not (of or shown):
                continue
            alike = [c for c in said if c.match.key == claim.match.key]
            everywhere = frozenset().union(*(c.sides for c in alike))
            reason = _disagreement(claim, alike, of, shown) or _other_side(claim, everywhere, of, shown)
            if reason:
                reasons.add(reason)
                spans.append((claim.match.start, claim.match.end))
        return Flag("; ".join(sorted(reasons)), tuple(spans)) if spans else None


def _is_there(evidence: Finding | Mask) -> bool:
    return evidence.count > 0 if isinstance(evidence, Mask) else evidence.presence is Presence.PRESENT


def _disagreement(claim: Claim, alike: Sequence[Claim], findings: Sequence[Finding], masks: Sequence[Mask]) -> str:
    if claim.denied is None:
        return ""
    if claim.denied and len(claim.sides) == 1:
        # "No effusion on the left" beside one on the right.
        known = _sides(findings, masks)
        if not known & claim.sides and (known or any(c.denied is False for c in alike)):
            return ""
    wrong = Presence.PRESENT if claim.denied else Presence.ABSENT
    if all(f.presence is wrong for f in findings) and all((m.count > 0) is claim.denied for m in masks):
        return "the text denies a positive finding" if claim.denied else "the text affirms a negative finding"
    return ""


def _sides(findings: Sequence[Finding], masks: Sequence[Mask]) -> frozenset[str]:
    """Return the sides of all of them that are there; empty if the side of any is not known."""
    present = [f.laterality for f in findings if f.presence is not Presence.ABSENT]
    present += [m.side for m in masks if m.count]
    if not present or "" in present:
        # A classifier that tells no side does not make the side of a mask unknown.
        present = [m.side for m in masks if m.count and m.side]
    return frozenset(side for entry in present for side in (BOTH if entry == "bilateral" else {entry}))


def _other_side(claim: Claim, everywhere: frozenset[str], findings: Sequence[Finding], masks: Sequence[Mask]) -> str:
    known = _sides(findings, masks)
    if not known or not claim.sides or claim.denied:
        return ""
    if not claim.sides <= known:
        return "the text names the other side"
    # "Effusion on the left" of one that is on both: unless the text names the other elsewhere.
    return "the text names one side of two" if known == BOTH and everywhere != BOTH else ""


class LevelMismatch(_AgainstClaims):
    """Fires where a condition is said to lie at another vertebra, rib or lobe than its mask does.

    A mask's level is its own ``level``; without one it is the vertebra, of those segmented as anatomy, whose centre is
    nearest in height.
    """

    def detect(self, view: View) -> Flag | None:
        """Compare every affirmed condition that has a mask with a level."""
        places = {
            key: found
            for key, masks in self._masks(view.subject.masks).items()
            if (found := {level for m in masks if m.count for level in mask_levels(m, view.subject.masks)})
        }
        if not places:
            return None
        spans: list[Span] = []
        for claim in self._claims(view.text, self._known(view)):
            if claim.denied or claim.match.key not in places:
                continue
            start, end = view.text.starts[claim.clause[0]], view.text.ends[claim.clause[1] - 1]
            said = levels(Text(view.text.raw[start:end]).folded)
            answers = {one: [same_level(one, other) for other in places[claim.match.key]] for one in said}
            if any(False in of and True not in of for of in answers.values()):
                spans.append((claim.match.start, claim.match.end))
        return Flag("the text names another level than the mask", tuple(spans)) if spans else None


def mask_levels(mask: Mask, masks: Sequence[Mask]) -> frozenset[str]:
    """Return where a mask lies, as ``quantities.levels`` spells it; empty if that is not known."""
    if mask.level:
        return levels(Text(mask.level).folded)
    if mask.centroid is None:
        return frozenset()
    height = mask.centroid[2]
    spine = [
        (abs(m.centroid[2] - height), m.name)
        for m in masks
        if m.role == "anatomy" and m.centroid is not None and levels(m.name) and len(m.name) <= 4
    ]
    return levels(min(spine)[1]) if spine else frozenset()


class NumberMismatch(_AgainstClaims):
    """Fires where a size or a count in the text is not that of the mask.

    A size agrees within ``tolerance_mm`` or ``tolerance`` of what was measured, whichever is more.
    """

    tolerance_mm: float = Field(default=2.0, ge=0)
    tolerance: float = Field(default=0.2, ge=0, le=1)

    def detect(self, view: View) -> Flag | None:
        """Compare every affirmed condition that has a mask."""
        masks = self._masks(view.subject.masks)
        if not masks:
            return None
        kinds = self._kinds()
        spans: list[Span] = []
        reasons: set[str] = set()
        for claim in self._claims(view.text, self._known(view)):
            shown = [m for m in _against(claim, masks, kinds) if m.count]
            if claim.denied or not shown:
                continue
            there = [m for m in shown if not claim.sides or m.side in claim.sides or not m.side] or shown
            measured = [m.size_mm for m in there if m.size_mm is not None]
            wrong = [
                s
                for s in claim.sizes
                if measured
                and not any(
                    s.agrees(size, self.tolerance_mm, self.tolerance)
                    for size in ([max(measured)] if s.bound == "largest" else measured)
                )
            ]
            # A mask measures its largest piece alone: of "right 24 mm, left 15 mm" it can bear out one.
            if wrong and (len(claim.sizes) <= len(measured) or len(wrong) == len(claim.sizes)):
                reasons.add("a size in the text is not that of the mask")
                spans += [view.text.span(s.start, s.end) for s in wrong]
            if claim.number is not None and not _counts(claim.number, there):
                reasons.add("the text counts otherwise than the mask")
                spans.append((claim.match.start, claim.match.end))
        return Flag("; ".join(sorted(reasons)), tuple(spans)) if spans else None


def _counts(said: tuple[int, bool], masks: Sequence[Mask]) -> bool:
    """Whether a count can be true: of all masks together, or of any one of them."""
    number, at_least = said
    total = sum(m.count for m in masks)
    return total >= number if at_least else number == total


class SectionsDisagree(_AgainstClaims):
    """Fires where the impression of a report says something else than its findings: presence, side or size."""

    tolerance_mm: float = Field(default=2.0, ge=0)
    tolerance: float = Field(default=0.2, ge=0, le=1)
    only_in_impression: bool = True
    """Whether a condition that the impression affirms and the findings never name counts."""

    def detect(self, view: View) -> Flag | None:
        """Compare the sections of one text; a text without both headings has nothing to compare."""
        place = impression_at(view.text)
        if place is None:
            return None
        said = self._claims(view.text)
        first = [c for c in said if c.match.start < place]
        last = [c for c in said if c.match.start >= place]
        spans: list[Span] = []
        reasons: set[str] = set()
        for claim in last:
            before = [c for c in first if c.match.key == claim.match.key]
            reason = self._reason(claim, before)
            if reason:
                reasons.add(reason)
                spans.append((claim.match.start, claim.match.end))
        return Flag("; ".join(sorted(reasons)), tuple(spans)) if spans else None

    def _reason(self, claim: Claim, before: Sequence[Claim]) -> str:
        if not before:
            return "the impression names what the findings do not" if self._alone(claim) else ""
        if claim.denied is not None and all(c.denied is (not claim.denied) for c in before):
            return "findings and impression disagree on presence"
        if claim.denied:
            return ""
        sides = frozenset().union(*(c.sides for c in before if not c.denied))
        if claim.sides and sides and not claim.sides & sides:
            return "findings and impression disagree on the side"
        measured = [s.high for c in before if not c.denied for s in c.sizes]
        near = (s.agrees(size, self.tolerance_mm, self.tolerance) for s in claim.sizes for size in measured)
        if claim.sizes and measured and not any(near):
            return "findings and impression disagree on the size"
        return ""

    def _alone(self, claim: Claim) -> bool:
        return self.only_in_impression and claim.denied is False


def impression_at(text: Text) -> int | None:
    """Return where the impression starts (offset in ``raw``) in a text that has findings before it, else None."""
    for heading in ("impression", "conclusion", "opinion"):
        for at in text.places.get(heading, ()):
            end = text.ends[at]
            if at and text.raw[end : end + 2].lstrip()[:1] == ":":
                return end
    return None
