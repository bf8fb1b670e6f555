"""All that is known of each condition of a study, findings and masks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinic_ai.domain import Finding, Presence
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.measuring import lesion_masks


@dataclass(frozen=True)
class Evidence:
    """All that is known of one condition; numbers are places in the analysis."""

    condition: str
    findings: tuple[int, ...]
    masks: tuple[int, ...]
    lesion: Lesion | None
    """None if no masks of it were made; without pieces if it was looked for and not found."""
    strongest: Finding | None
    """The finding with the highest probability."""

    @property
    def outlined(self) -> bool:
        """Whether a mask shows it."""
        return self.lesion is not None and bool(self.lesion.pieces)

    @property
    def unsure(self) -> bool:
        """Whether it is too near to its operating point to be called present or absent."""
        return self.strongest is not None and self.strongest.presence is Presence.UNCERTAIN

    @property
    def denied(self) -> bool:
        """Whether nothing speaks for it."""
        return not self.outlined and (self.strongest is None or self.strongest.presence is Presence.ABSENT)


def collected(findings: Sequence[Finding], lesions: Sequence[Lesion]) -> dict[str, Evidence]:
    """Return the evidence by condition: lesions first, in their order, then findings in theirs."""
    masks: dict[str, tuple[int, ...]] = {}
    total = 0
    for lesion in lesions:
        count = len(lesion_masks(lesion))
        masks[lesion.name] = tuple(range(total, total + count))
        total += count
    by_name = {lesion.name: lesion for lesion in lesions}
    evidence: dict[str, Evidence] = {}
    for condition in dict.fromkeys([*by_name, *(f.condition for f in findings)]):
        own = tuple(n for n, f in enumerate(findings) if f.condition == condition)
        strongest = max((findings[n] for n in own), key=lambda f: f.probability, default=None)
        evidence[condition] = Evidence(condition, own, masks.get(condition, ()), by_name.get(condition), strongest)
    return evidence
