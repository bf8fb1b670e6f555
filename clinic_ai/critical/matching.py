"""Which entries of the clinic's list of critical findings a result meets.

It looks at what the engine answered, before any guard or renderer: an alert must not depend on whether the rest goes
well. Whatever it reads stays inside: an alert names the entry of the list, never the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from clinic_ai.domain import Analysis, Finding, Presence
from clinic_ai.settings import CriticalSettings
from clinic_ai.store.critical import Hit

REPEATS_MIN = {1: (5.0, 5.0, 10.0, 15.0), 2: (60.0,), 3: (1440.0,)}
"""Waits in minutes between notices, by category, where the entry names none."""

# Only a negation that stands right before the term counts: a miss costs more than an alarm too many.
_NEGATED = re.compile(
    r"(?:\b(?:no|without|no evidence of|no sign of|no signs of|kein|keine|keinen|ohne|kein hinweis auf)) $"
)
_SPACE = re.compile(r"\s+")


def hits(entries: Iterable[CriticalSettings], analysis: Analysis) -> list[Hit]:
    """Return the entries that a result meets, each thing once, by its most urgent entry."""
    texts = [plain(text) for text in _texts(analysis)]
    found: dict[str, Hit] = {}
    for entry in entries:
        if entry.condition:
            met = any(_meets(entry, finding) for finding in analysis.findings)
        else:
            met = any(says(text, plain(entry.term)) for text in texts)
        if not met:
            continue
        hit = _hit(entry)
        if hit.what not in found or hit.category < found[hit.what].category:
            found[hit.what] = hit
    return list(found.values())


def unknown_conditions(entries: Iterable[CriticalSettings], known: Iterable[str]) -> list[str]:
    """Return the conditions of the list that no result can have."""
    there = set(known)
    return sorted({entry.condition for entry in entries if entry.condition and entry.condition not in there})


def plain(text: str) -> str:
    """Return a text in one form: no capitals, one space between words, compatible characters made one."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def says(text: str, term: str) -> bool:
    """Return whether a text in plain form has a term as whole words, not denied by the words right before it."""
    if not term:
        return False
    places = re.finditer(rf"(?<!\w){re.escape(term)}(?!\w)", text)
    return any(not _NEGATED.search(text[: place.start()]) for place in places)


def _meets(entry: CriticalSettings, finding: Finding) -> bool:
    if finding.condition != entry.condition:
        return False
    return finding.presence is Presence.PRESENT or (entry.uncertain and finding.presence is Presence.UNCERTAIN)


def _texts(analysis: Analysis) -> Sequence[str]:
    return (*(answer.text for answer in analysis.answers), *analysis.remarks)


def _hit(entry: CriticalSettings) -> Hit:
    waits = entry.repeat_min or REPEATS_MIN[entry.category]
    return Hit(
        what=f"condition:{entry.condition}" if entry.condition else f"term:{plain(entry.term)}",
        category=entry.category,
        waits_s=tuple(60.0 * wait for wait in waits),
        escalate_after=entry.escalate_after,
        escalate_to=entry.escalate_to,
    )
