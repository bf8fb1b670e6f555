"""The sections of a written report: what was seen, what it means, what to do, and what is said of other things."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = {
    "findings": ("findings", "finding", "report", "befund", "befunde"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion", "summary", "beurteilung"),
    "recommendations": ("recommendations", "recommendation", "advice", "empfehlung", "empfehlungen"),
    "aside": (
        "history",
        "clinical history",
        "clinical information",
        "clinical indication",
        "indication",
        "reason for examination",
        "technique",
        "procedure",
        "protocol",
        "comparison",
        "comparison studies",
        "fragestellung",
        "technik",
        "anamnese",
        "klinische angaben",
    ),
}
_SECTION_OF = {name: section for section, names in _NAMES.items() for name in names}
_HEADING = re.compile(
    r"(?:(?<=\n)|(?<=[.!?] )|\A)[ \t]*[#*_]{0,4}("
    + "|".join(sorted(map(re.escape, _SECTION_OF), key=len, reverse=True))
    + r")[*_]{0,4}[ \t]*(?::[*_]{0,2}|(?=\n))",
    re.IGNORECASE,
)


class Sections(NamedTuple):
    """The text under each kind of heading, without the heading; what stands under none is ``findings``."""

    findings: str
    impression: str
    recommendations: str
    aside: str
    """Indication, history, technique, comparison: nothing that was seen on these images."""


def sections(report: str) -> Sections:
    """Return the sections of a report. Headings stand at the start of a line or sentence, with a colon or alone."""
    parts: dict[str, list[str]] = {name: [] for name in Sections._fields}
    heading, at = "findings", 0
    for match in _HEADING.finditer(report):
        parts[heading].append(report[at : match.start()])
        heading, at = _SECTION_OF[match[1].lower()], match.end()
    parts[heading].append(report[at:])
    return Sections(*("\n".join(filter(None, (p.strip() for p in parts[name]))) for name in Sections._fields))
