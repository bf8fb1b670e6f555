"""How urgent a study is: what its headers say, what its inbox or sender adds, and what a person ordered.

A number from -100 to 100; the highest goes first wherever studies or jobs wait for each other. The parts are kept
(``Urgency``), so that a later header can raise the number and a person can be told where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable

from clinic_ai.domain import InstanceHeader, Urgency

LIMIT = 100

TERMS = {"STAT": 50, "HIGH": 30, "MEDIUM": 0, "ROUTINE": 0, "LOW": -20}
"""What the defined terms of Requested Procedure Priority (0040,1003; PS3.3 C.4.11) and of the retired Study Priority
ID (0032,000C) are worth; any other text says nothing."""


def capped(priority: int) -> int:
    """Return a priority within -100..100."""
    return max(-LIMIT, min(LIMIT, priority))


def urgency_of(headers: Iterable[InstanceHeader], source: int) -> Urgency:
    """Return the urgency that headers give a study whose source adds ``source``; the most urgent term counts."""
    said = {term for header in headers for term in (header.requested_procedure_priority, header.study_priority_id)}
    known = said & TERMS.keys()
    if not known:
        return Urgency(source=source)
    term = max(known, key=lambda one: (TERMS[one], one))
    return Urgency(source=source, header=TERMS[term], term=term)


def raised_by(known: Urgency, new: Urgency) -> Urgency:
    """Return the urgency of a study with what arrived added: it may rise, and what a person ordered stays."""
    header, term = max((known.header, known.term), (new.header, new.term), key=_said)
    return known.model_copy(update={"source": max(known.source, new.source), "header": header, "term": term})


def _said(part: tuple[int | None, str]) -> tuple[int, str]:
    header, term = part
    return (-LIMIT - 1 if header is None else header, term)


def priority_of(urgency: Urgency) -> int:
    """Return the number: what a person ordered, else headers and source together."""
    if urgency.ordered is not None:
        return capped(urgency.ordered)
    return capped(urgency.source + (urgency.header or 0))


def sentence(urgency: Urgency) -> str:
    """Return where the priority comes from, for people; nothing if nobody said anything."""
    if urgency.ordered is not None:
        return f"set by {urgency.ordered_by}"
    parts = []
    if urgency.header is not None:
        parts.append(f"{urgency.header:+d} as its headers say {urgency.term}")
    if urgency.source:
        parts.append(f"{urgency.source:+d} for where it comes from")
    return ", ".join(parts)
