"""The constant words of PDF and SR, and how values are written in them. No text of a plugin passes here."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Sequence

from clinic_ai.domain import (
    Audience,
    Finding,
    GuardAction,
    GuardVerdict,
    Mask,
    ModelRef,
    Presence,
    ValidationFigures,
)
from clinic_ai.domain.reviews import SignOff
from clinic_ai.results.anatomy import place_code

PRELIMINARY = "Preliminary – not signed"
MACHINE_MADE = "Made by software. A clinician has to review it before anybody acts on it."
REVIEWED = "Drafted by software, reviewed and signed by the clinician named here."
NOTHING_RELEASED = "The guard released no statement for this report."
NO_RULE_FIRED = "No rule of the policy objected to any statement."
HEATMAP_NOTE = "Heat map: relative weight of each region in the score, 0 to 1. It does not outline a lesion."
OUTLINE_NOTE = (
    "Outlines are masks as a model drew them, on the slice with most of each; sizes are those of the whole mask."
)
NO_PICTURE = "The pixels of this image could not be decoded, so it is not shown here. The original is stored."
GLYPHS_REPLACED = "Characters that the report's fonts lack are shown as □; the stored study has them in full."

_ACTIONS = {
    GuardAction.ALLOW: "allowed",
    GuardAction.ANNOTATE: "annotated",
    GuardAction.HEDGE: "reworded to the probability",
    GuardAction.REDACT: "redacted",
    GuardAction.REPLACE: "replaced by a template",
    GuardAction.HOLD: "held back for review",
    GuardAction.BLOCK: "blocked",
}
_SIDES = {"left": "left", "right": "right", "bilateral": "both sides", "": ""}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, limit: int = 200) -> str:
    """Return ``text`` on one line without control, direction or unassigned characters, at most ``limit`` long."""
    kept = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def status_line(sign: SignOff | None) -> str:
    """Return how a report stands: preliminary, or final with who signed it and when."""
    return PRELIMINARY if sign is None else f"Final – signed by {printable(sign.name, 100)}, {utc(sign.at)}"


def origin_line(sign: SignOff | None) -> str:
    """Return by whom the words are."""
    return MACHINE_MADE if sign is None else REVIEWED


def person_name(name: str) -> str:
    """Return a DICOM person name (PN: groups by ``=``, components by ``^``) as people read it."""
    groups = [
        ", ".join(filter(None, (printable(part, 64) for part in group.split("^")))) for group in name.split("=")[:3]
    ]
    seen = [group for group in groups if group]
    return seen[0] + "".join(f" ({group})" for group in seen[1:]) if seen else ""


def date(value: str) -> str:
    """Return a DICOM date (DA, ``20260131``) as ``2026-01-31``; what is no date stays as it is."""
    text = printable(value, 32)
    digits = text.isascii() and text.isdigit() and len(text) == 8
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if digits else text


def utc(seconds: float) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def percent(probability: float) -> str:
    """Return a probability as a whole percentage that never claims certainty."""
    whole = round(probability * 100)
    if whole < 1:
        return "< 1 %"
    return "> 99 %" if whole > 99 else f"{whole} %"


def standing(finding: Finding) -> str:
    """Return how a finding's probability stands to its threshold, as the software has it and whatever anybody signs."""
    if finding.presence is Presence.UNCERTAIN:
        return "uncertain"
    return "above threshold" if finding.probability >= finding.threshold else "below threshold"


def correction(finding: Finding, sign: SignOff | None) -> str:
    """Return what the signer says in place of a finding's presence, empty if it stands or nobody signed."""
    presence = None if sign is None else sign.correction_of(finding)
    return "" if presence is None else f"corrected by the signer: {presence.value}"


_SIZES = {"diameter": "longest diameter", "depth": "depth"}


def measures(mask: Mask) -> str:
    """Return what was measured on a mask, and where: sizes, pieces and a place of the table of anatomy."""
    place = place_code(mask.level)
    parts = [
        "" if mask.size_mm is None else f"{_SIZES[mask.size_is]} {_whole_mm(mask.size_mm)} mm",
        "" if mask.volume_mm3 is None else f"volume {_volume(mask.volume_mm3)}",
        place.label.lower() if place is not None else _SIDES[mask.side],
        f"{mask.count} pieces" if mask.count > 1 else "",
    ]
    return ", ".join(filter(None, parts))


def _whole_mm(millimetres: float) -> str:
    return f"{millimetres:.1f}" if millimetres < 10 else f"{millimetres:.0f}"


def _volume(cubic_mm: float) -> str:
    """Return a volume with two or three digits that say something: in ml, small ones in mm³."""
    if cubic_mm < 1000:
        return f"{cubic_mm:.0f} mm³"
    return f"{cubic_mm / 1000:.1f} ml" if cubic_mm < 100_000 else f"{cubic_mm / 1000:.0f} ml"


def auroc(figures: ValidationFigures | None) -> str:
    """Return the validation AUROC with its 95 % interval."""
    if figures is None:
        return "not validated"
    return f"{figures.auroc:.2f} ({figures.auroc_low:.2f}–{figures.auroc_high:.2f})"


def operating_point(figures: ValidationFigures | None) -> str:
    """Return sensitivity and specificity at the threshold, a line each, with their 95 % intervals; empty if unknown."""
    if figures is None:
        return ""
    points = (
        ("sensitivity", figures.sensitivity, figures.sensitivity_low, figures.sensitivity_high),
        ("specificity", figures.specificity, figures.specificity_low, figures.specificity_high),
    )
    return "\n".join(
        f"{name} {value:.2f}" + (f" ({low:.2f}–{high:.2f})" if low is not None and high is not None else "")
        for name, value, low, high in points
        if value is not None
    )


def model_line(model: ModelRef) -> str:
    """Return a model as reports name it: label, adapter, and whether it is a reference model."""
    adapter = f" + {model.adapter.name} {model.adapter.version} ({model.adapter.digest[:12]})" if model.adapter else ""
    return f"{model.label()}{adapter}{', reference model' if model.reference else ''}"


def policy_line(verdict: GuardVerdict) -> str:
    """Return the policy pack and the beginning of its hash."""
    return f"{printable(verdict.policy_name)} ({verdict.policy_hash[:12]})"


def guard_lines(verdict: GuardVerdict) -> list[str]:
    """Return what the guard did, one line for each rule and reason; the withheld words are not in it."""
    counted = Counter((d.rule, d.action, d.reason) for d in verdict.decisions if d.action is not GuardAction.ALLOW)
    lines = [
        f"{printable(rule)}: {_ACTIONS[action]}{_times(count)} – {printable(reason, 300)}"
        for (rule, action, reason), count in counted.items()
    ]
    if not verdict.released:
        lines.insert(0, NOTHING_RELEASED)
    return lines or [NO_RULE_FIRED]


def no_findings_line(findings: Sequence[Finding], verdict: GuardVerdict) -> str:
    """Return what stands where the table of findings would, if it has no row."""
    if not findings:
        return "No model gave a finding with a probability."
    if not verdict.released:
        return "No finding was released."
    return "This report states none of the models' findings."


def shows_numbers(verdict: GuardVerdict) -> bool:
    """Return whether probabilities and figures may stand beside the words: they are for clinicians."""
    return verdict.audience is Audience.CLINICIAN


def _times(count: int) -> str:
    return "" if count == 1 else f" ({count} statements)"
