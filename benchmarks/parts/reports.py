"""Real reports for the guard: read from any folder, judged as drafts, and with contradictions put in by hand.

A folder holds CSV files with a column of text and 0/1 columns named after conditions, or JSON lists with "findings" and
"impression". Nothing of them is kept.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clinic_ai.domain import Audience, Finding, ImageFacts, Mask, Presence, Statement, StudyFacts
from clinic_ai.guard.detectors import CATALOGUE, View
from clinic_ai.guard.detectors.contradiction import Contradiction, NumberMismatch
from clinic_ai.guard.engine import fired_rules
from clinic_ai.guard.lexicon import Lexicon
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_DENIAL = re.compile(r"\b(?:no|not|without|absent|free|negative|nor|none|resolved)\b", re.IGNORECASE)
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_ANY_SIDE = re.compile(r"\b(?:left|right|both|bilateral\w*|rul|rml|rll|lul|lll|lingula\w*)\b", re.IGNORECASE)
_BOUND = re.compile(r"less|small|under|below|up to|reach|exceed|more|larg|greater|over|above", re.IGNORECASE)
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?(mm|cm)\b")
MAX_TEXT = 4000


class Report(NamedTuple):
    """A text and what its labels say of each condition; no labels where there are none."""

    text: str
    labels: dict[str, bool]


class Score(NamedTuple):
    """How many contradictions were put in and flagged, and how many sentences were left alone and flagged."""

    injected: int
    flagged: int
    untouched: int
    false_flags: int


def read_reports(folder: Path, names: Lexicon) -> Iterator[tuple[str, list[Report]]]:
    """Return the reports of each file by the file's name."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".csv":
            with path.open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            column = next((c for c in (rows[0] if rows else {}) if "text" in c or c == "report"), None)
            if column:
                keys = {c: found[0].key for c in rows[0] if c != column and (found := names.find(Text(c)))}
                yield (
                    path.name,
                    [Report(row[column][:MAX_TEXT], {k: row[c] == "1" for c, k in keys.items()}) for row in rows],
                )
        elif path.suffix == ".json":
            rows = json.loads(path.read_text())
            if isinstance(rows, list) and rows and "findings" in rows[0]:
                texts = (f"Findings: {r['findings']} Impression: {r.get('impression', '')}" for r in rows)
                yield path.name, [Report(text[:MAX_TEXT], {}) for text in texts]


def finding(key: str, present: bool, side: str = "") -> Finding:
    """Return a sure finding."""
    return Finding.model_validate(
        {
            "condition": key,
            "label": key.replace("_", " "),
            "probability": 0.97 if present else 0.02,
            "threshold": 0.5,
            "presence": Presence.PRESENT if present else Presence.ABSENT,
            "instance_sha256": "0" * 64,
            "laterality": side,
        }
    )


def firing(policy: Policy, reports: list[Report]) -> dict[str, float]:
    """Return for each clinician rule the share of reports on which it fires, each judged as an answer."""
    counts: Counter[str] = Counter({r.entry.id: 0 for r in policy.rules if Audience.CLINICIAN in r.entry.audiences})
    for report in reports:
        subject = GuardSubject(
            facts=StudyFacts(slices=100),
            findings=tuple(finding(key, present) for key, present in report.labels.items()),
            image=ImageFacts(calibrated=True, priors=0, burned_in="no"),
            validated=True,
            reference=False,
            signed_by="a named person",
        )
        statement = Statement(statement_id="a_1", kind="answer", text=report.text)
        task = GuardTask(
            audience=Audience.CLINICIAN, subject=subject, statements=(statement,), policy_hash=policy.digest
        )
        counts.update(fired_rules(policy, task))
    return {rule: count / len(reports) for rule, count in counts.items()}


class Injector:
    """Takes single sentences of real reports, holds them against what they say, then against the contrary."""

    def __init__(self, lexicons: dict[str, Lexicon]) -> None:
        self.names = lexicons["findings"]
        self._contradiction = Contradiction()
        self._number = NumberMismatch()
        for detector in (self._contradiction, self._number):
            assert type(detector) in CATALOGUE.values()
            detector.bind(lexicons)

    def score(self, kind: str, reports: list[Report]) -> Score:
        """Return the score for ``kind``: presence, side or size."""
        pairs = {"presence": self._presence, "side": self._side, "size": self._size}[kind]
        tally = Counter[str]()
        for report in reports:
            for untouched, injected in pairs(report):
                tally["untouched"] += 1
                tally["false"] += untouched
                tally["injected"] += 1
                tally["flagged"] += injected
        return Score(tally["injected"], tally["flagged"], tally["untouched"], tally["false"])

    def _presence(self, report: Report) -> Iterator[tuple[bool, bool]]:
        """A condition that one sentence names, against the report's label and against its contrary."""
        sentences = _SENTENCE.split(report.text)
        keys = [{m.key for m in self.names.find(Text(s))} for s in sentences]
        for key, present in report.labels.items():
            naming = [s for s, named in zip(sentences, keys, strict=True) if key in named]
            # Labels were mined from whole reports: they count for a sentence if a denial in it agrees with them.
            if len(naming) == 1 and present is not bool(_DENIAL.search(naming[0])):
                yield self._flags(naming[0], finding(key, present)), self._flags(naming[0], finding(key, not present))

    def _side(self, report: Report) -> Iterator[tuple[bool, bool]]:
        """A sentence that names one side and one condition, and the same with the other side."""
        for sentence in self._affirming(report):
            sides = _ANY_SIDE.findall(sentence)
            keys = {m.key for m in self.names.find(Text(sentence))}
            if len(sides) == 1 and len(keys) == 1 and _SIDE.fullmatch(sides[0]):
                side = sides[0].lower()
                swapped = _SIDE.sub("left" if side == "right" else "right", sentence)
                right = finding(keys.pop(), True, side)
                yield self._flags(sentence, right), self._flags(swapped, right)

    def _size(self, report: Report) -> Iterator[tuple[bool, bool]]:
        """A sentence with one length and one condition, and the same with a length half or twice as long."""
        for sentence in self._affirming(report):
            found = list(_SIZE.finditer(sentence))
            keys = {m.key for m in self.names.find(Text(sentence))}
            if len(found) != 1 or len(keys) != 1 or len(re.findall(r"\d+(?:\.\d+)?", sentence)) != 1:
                continue
            if _BOUND.search(sentence):
                continue  # half of "up to 8 mm" is no contradiction
            value, unit = float(found[0][1]), found[0][2]
            millimetres = value * (10 if unit == "cm" else 1)
            if millimetres < 5:
                continue  # half of it is within what two readers differ by
            mask = Mask(name=keys.pop(), size_mm=millimetres)
            start, end = found[0].span(1)
            other = value * 2 if int(millimetres) % 2 else value / 2
            yield self._flags(sentence, mask), self._flags(f"{sentence[:start]}{other:g}{sentence[end:]}", mask)

    def _affirming(self, report: Report) -> Iterator[str]:
        return (s for s in _SENTENCE.split(report.text) if not _DENIAL.search(s))

    def _flags(self, sentence: str, evidence: Finding | Mask) -> bool:
        statement = Statement(statement_id="a_1", kind="answer", text=sentence)
        findings, masks = ((evidence,), ()) if isinstance(evidence, Finding) else ((), (evidence,))
        subject = GuardSubject(facts=StudyFacts(slices=100), findings=findings, masks=masks)
        text = Text(sentence)
        view = View(Audience.CLINICIAN, subject, statement, text, (text,))
        flags = (d.detect(view) for d in (self._contradiction, self._number))
        # A mask that was made up for its size knows of no number.
        return any(flag is not None and ("size" in flag.reason or not masks) for flag in flags)
