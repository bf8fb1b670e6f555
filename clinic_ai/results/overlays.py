"""Which heat maps may be seen: those whose findings the guard released, each and all."""

from __future__ import annotations

from collections.abc import Sequence

from clinic_ai.domain import Finding, GuardVerdict
from clinic_ai.results.codes import finding_code
from clinic_ai.results.statements import parted


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
