"""Labels of a report by rules: which conditions its clauses affirm. For measuring generated reports, and as reward.

The rules are data (``labels/``). A condition counts as present if any clause affirms it, surely or not; one that is
only denied, or only of another time, counts as absent (CT-RATE labels likewise).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from clinic_ai_ct.sections import sections

_BREAK = re.compile(r"(?<!\d)[.!?;]+(?=\s|$)|(?<=\d)[.;](?=\s+[a-z(]|$)|\n+|\"+|(?<=\w)\.(?=[a-z]{2})|\u2022")
_CLAUSE = re.compile(
    r",? (?:but|however|although|whereas|while|except for|apart from this|apart from that)\b,?"
    r"|, (?=(?:and )?(?:there (?:is|are)|no |a few |in the |minimal |millimetric ))"
)
_BLANKS = re.compile(r"\s+")


class Rule(BaseModel):
    """What speaks for one label; see the head of the files in ``labels/``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    condition: str
    find: str
    unless: str = ""
    ignore: str = ""


class _Cues(NamedTuple):
    ahead: re.Pattern[str]
    behind: re.Pattern[str]
    stops: re.Pattern[str]
    affirms: re.Pattern[str]
    other_times: re.Pattern[str]
    gone: re.Pattern[str]


@lru_cache(maxsize=4)
def rules(label_set: str) -> dict[str, Rule]:
    """Return the rules of a label set, ``ct_rate`` or ``vlm3d``, by label, in the order of its columns."""
    entries = {name: entry.get("same", entry) for name, entry in _read(label_set).items()}
    return {n: rules("ct_rate")[e] if isinstance(e, str) else Rule.model_validate(e) for n, e in entries.items()}


def labels(report: str, label_set: str = "ct_rate") -> dict[str, bool]:
    """Return for each label of a set whether the report affirms it, in its findings or its impression."""
    parts = sections(report)
    clauses = (*_clauses(parts.findings), *_clauses(parts.impression))
    return {name: any(_affirms(clause, rule) for clause in clauses) for name, rule in rules(label_set).items()}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files("clinic_ai_ct").joinpath("labels", f"{name}.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _cues() -> _Cues:
    read = _read("negation")
    return _Cues(**{name: re.compile(str(read[name])) for name in _Cues._fields})


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _clauses(report: str) -> Iterator[str]:
    folded = report.lower().replace("\u2019", "'").replace("\u201d", '"').replace("\u201c", '"')
    for sentence in _BREAK.split(folded):
        for clause in _CLAUSE.split(sentence):
            tidy = _BLANKS.sub(" ", clause).strip(" -,:")
            if tidy:
                yield tidy


def _affirms(clause: str, rule: Rule) -> bool:
    cues = _cues()
    if cues.other_times.search(clause) or cues.gone.search(clause):
        return False
    if rule.unless and _compiled(rule.unless).search(clause):
        return False
    searched = re.sub(rule.ignore, " ", clause) if rule.ignore else clause
    return any(not _denied(searched, m.start(), m.end()) for m in _compiled(rule.find).finditer(searched))


def _denied(clause: str, start: int, end: int) -> bool:
    """Whether a denial reaches what stands from ``start`` to ``end``: from before it, or back from behind it."""
    cues = _cues()
    for cue in cues.ahead.finditer(clause, 0, end):
        between = clause[cue.end() : start] if cue.end() <= start else ""
        if not cues.stops.search(between) and not cues.affirms.search(between):
            return True
    for cue in cues.behind.finditer(clause, start):
        between = clause[end : cue.start()]
        if not cues.stops.search(between) and not cues.affirms.search(between):
            return True
    return False
