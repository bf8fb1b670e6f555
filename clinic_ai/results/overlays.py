"""Which heat maps and outlines may be seen: those whose findings the guard released."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clinic_ai.domain import Audience, Finding, GuardVerdict, Mask, Presence, Segment, Segmentation
from clinic_ai.domain.reviews import SignOff
from clinic_ai.results.codes import finding_code
from clinic_ai.results.statements import parted
from clinic_ai.tasks import Outlines


def overlay_title(findings: Sequence[Finding], verdict: GuardVerdict, instance_sha256: str) -> str | None:
    """Return what the heat map of an image shows, in words, or None if it may not be shown.

    A heat map says where a finding is, so it goes out only with its finding: all findings of the image that
    have one must be released, for a file in the store does not tell which of them it belongs to.
    """
    own = [f for f in findings if f.instance_sha256 == instance_sha256 and f.heatmap is not None]
    released = [finding for finding, _ in parted(findings, verdict).findings]
    if not own or any(finding not in released for finding in own):
        return None
    if len({finding.heatmap for finding in own}) > 1:
        return "heat map"
    labels = dict.fromkeys(finding_code(finding.condition).label for finding in own)
    return f"heat map: {', '.join(labels)}"


def shown_conditions(
    findings: Sequence[Finding], verdict: GuardVerdict, sign_off: SignOff | None, places: Collection[int]
) -> frozenset[str]:
    """Return the conditions whose outlines and measures may be seen, of the findings at these places.

    An outline says that something is there: it goes out only with the released words of its finding, and not where
    software or signer say that it is absent. Only clinicians see any.
    """
    if verdict.audience is not Audience.CLINICIAN:
        return frozenset()
    released = {said.statement_id for said in verdict.released}
    own = (findings[place] for place in sorted(places) if f"f_{place + 1}" in released)
    return frozenset(
        finding.condition
        for finding in own
        if ((sign_off and sign_off.correction_of(finding)) or finding.presence) is not Presence.ABSENT
    )


def shown_segments(
    segmentation: Segmentation,
    findings: Sequence[Finding],
    verdict: GuardVerdict,
    sign_off: SignOff | None,
    places: Collection[int],
) -> tuple[Segment, ...]:
    """Return the segments that may be seen: those of ``shown_conditions``, and anatomy beside any released word.

    ``places`` are those of the findings of the same analysis. Anatomy alone, with nothing said of it, tells nothing.
    """
    shown = shown_conditions(findings, verdict, sign_off, places)
    released = {said.statement_id for said in verdict.released}
    spoken = verdict.audience is Audience.CLINICIAN and (
        any(f"f_{place + 1}" in released for place in places) or any(said.kind == "report" for said in verdict.released)
    )
    return tuple(
        segment for segment in segmentation.segments if (segment.name in shown if segment.role == "finding" else spoken)
    )


def shown_masks(
    outlines: Outlines, findings: Sequence[Finding], verdict: GuardVerdict, sign_off: SignOff | None
) -> tuple[Mask, ...]:
    """Return the masks of findings whose measures may be told; those that show nothing have none."""
    shown = shown_conditions(findings, verdict, sign_off, outlines.findings)
    return tuple(mask for mask in outlines.masks if mask.role == "finding" and mask.count and mask.name in shown)
