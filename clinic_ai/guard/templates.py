"""Templates: the only text a patient ever reads, and what takes the place of text that may not go out.

Slots are filled from the evidence alone: ``{word}`` and ``{percent}`` from the calibrated probability,
``{condition}`` from the file's own glossary, and for clinicians ``{label}`` from the finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from clinic_ai.domain import Audience, Finding, StatementKind
from clinic_ai.guard.wording import missing_words, percent, probability_word

KINDS: tuple[str, ...] = get_args(StatementKind)
STAND_INS = {"report": "remark"}
"""Kinds that came later, and the template that is taken where a file from before has none of theirs."""
KNOWN_FINDING = "finding_known"
"""Stands in for ``finding`` where the glossary has a word for the condition; a file may leave it out."""
_SLOT = re.compile(r"\{([^{}]*)\}")
_ALLOWED = {
    Audience.CLINICIAN: frozenset({"label", "word", "percent", "condition"}),
    Audience.PATIENT: frozenset({"word", "percent", "condition"}),
    Audience.TECHNICIAN: frozenset[str](),
}


class Rendered(NamedTuple):
    """Text, and the ids of the templates, glossary entries and words it was made of; none for a draft."""

    text: str
    sources: tuple[str, ...] = ()


class Templates(BaseModel):
    """``templates/<language>.toml``: by audience, name → text; marks by rule id; glossary by condition key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explains: str = ""
    """Who explains next; these words stand in every text for patients."""
    words: dict[str, str] = Field(default_factory=dict)
    """How the language says the probability words, by the English ones; English needs none."""
    patient_words: dict[str, str] = Field(default_factory=dict)
    """How they are said to patients; none given means as in ``words``."""
    clinician: dict[str, str]
    patient: dict[str, str]
    technician: dict[str, str]
    marks: dict[str, str] = Field(default_factory=dict)
    glossary: dict[str, str] = Field(default_factory=dict)

    def of(self, audience: Audience) -> Mapping[str, str]:
        """Return the audience's templates."""
        by_audience = {
            Audience.CLINICIAN: self.clinician,
            Audience.PATIENT: self.patient,
            Audience.TECHNICIAN: self.technician,
        }
        return by_audience[audience]

    def render(self, audience: Audience, name: str, finding: Finding | None) -> str | None:
        """Return the text of ``fill`` alone."""
        rendered = self.fill(audience, name, finding, "")
        return rendered.text if rendered else None

    def fill(self, audience: Audience, name: str, finding: Finding | None, language: str) -> Rendered | None:
        """Return a template with its slots filled; None if it is not there or a slot has nothing to stand in it.

        ``language`` is that of this file; it stands in the ids.
        """
        template = self.of(audience).get(name)
        if template is None:
            return self.fill(audience, STAND_INS[name], finding, language) if name in STAND_INS else None
        if name == "finding" and (known := self.fill(audience, KNOWN_FINDING, finding, language)) is not None:
            return known
        values = self._values(audience, finding)
        slots = _SLOT.findall(template)
        if any(not values.get(slot) for slot in slots):
            return None
        text = _SLOT.sub(lambda slot: values[slot[1]], template)
        sources = [f"template:{language}/{audience.value}/{name}"]
        if finding is not None:
            ids = {
                "condition": f"glossary:{language}/{finding.condition}",
                "word": f"word:{language}/{probability_word(finding.probability)}",
                "percent": "percent",
                "label": "label",
            }
            sources += [ids[slot] for slot in dict.fromkeys(slots)]
        return Rendered(text, tuple(sources))

    def _values(self, audience: Audience, finding: Finding | None) -> dict[str, str]:
        if finding is None:
            return {}
        word = probability_word(finding.probability)
        words = self.patient_words if audience is Audience.PATIENT and self.patient_words else self.words
        values = {
            "word": words.get(word, word),
            "percent": percent(finding.probability),
            "condition": self.glossary.get(finding.condition, ""),
        }
        if audience is Audience.CLINICIAN:
            values["label"] = finding.label
        return values


def template_problems(templates: Templates) -> list[str]:
    """Return what is wrong with a template file: missing kinds, empty texts, slots that an audience does not have."""
    problems: list[str] = []
    for audience in Audience:
        entries = templates.of(audience)
        # Clinicians read the statement itself; the others only ever read a template, so every kind needs one.
        if audience is not Audience.CLINICIAN:
            problems += [f"[{audience.value}] lacks {kind}" for kind in KINDS if kind not in {*entries, *STAND_INS}]
        for name, text in entries.items():
            slots = set(_SLOT.findall(text))
            unknown = slots - _ALLOWED[audience]
            if unknown:
                problems.append(f"[{audience.value}] {name} has the slot {{{min(unknown)}}}, which it may not have")
            if not text.strip() or _SLOT.sub("", text).count("{") or _SLOT.sub("", text).count("}"):
                problems.append(f"[{audience.value}] {name} is empty or has a brace without its other half")
    constants = {
        **{f"[marks] {k}": v for k, v in templates.marks.items()},
        **{f"[glossary] {k}": v for k, v in templates.glossary.items()},
    }
    problems += [
        f"{name} is empty or holds a brace" for name, v in constants.items() if not v.strip() or set("{}") & set(v)
    ]
    for name, table in (("words", templates.words), ("patient_words", templates.patient_words)):
        if table and (wrong := missing_words(table)):
            problems.append(f"[{name}] lacks, or has without being one of the five: {', '.join(wrong)}")
    return [*problems, *_left_alone(templates)]


def _left_alone(templates: Templates) -> list[str]:
    """Return the texts that do not tell the patient who explains next."""
    who = templates.explains.strip()
    if not who:
        return ['explains is missing: the words for those who explain next, such as "care team"']
    return [
        f"[patient] {name} does not say who explains next ({who!r})"
        for name, text in templates.patient.items()
        if who.casefold() not in text.casefold()
    ]
