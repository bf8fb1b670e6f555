"""The written report: FINDINGS, IMPRESSION and RECOMMENDATIONS from findings and masks, with no language model.

Every sentence names the findings and masks it rests on. Sizes, sides, places and amounts are those measured; how sure
a sentence sounds follows from the calibrated probability alone. What is outlined and neither present nor absent is
measured in the findings, and is no more than a likelihood in the impression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from clinic_ai.domain import Finding, Presence, ReportSentence
from clinic_ai.guard.wording import probability_word
from clinic_ai_ct.describing import describe, is_mass
from clinic_ai_ct.evidence import Evidence, collected
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.recommending import recommend
from clinic_ai_ct.wording import Wording, capital

Section = Literal["findings", "impression", "recommendations"]
_URGENCY = ("pneumothorax", "pericardial_effusion", "pleural_effusion", "lung_mass", "consolidation", "lung_nodule")
"""What an impression begins with."""
_RARE = 0.25
"""A finding below this probability is worded as unlikely: where it is absent, it is denied without a word of doubt."""


def write_report(
    findings: Sequence[Finding],
    lesions: Sequence[Lesion],
    language: str = "en",
    *,
    wording: Wording | None = None,
) -> tuple[ReportSentence, ...]:
    """Return the sentences of the report, in the order in which they are read; none if nothing was looked for.

    ``masks`` of a sentence count the masks of ``measuring.masks_of(lesions)``. Raise ValueError for a language that
    reports are not written in. ``wording`` chooses other templates than the first ones.
    """
    if not findings and not lesions:
        return ()
    return _Report(findings, lesions, wording or Wording(language)).sentences()


def location_phrases(lesions: Iterable[Lesion]) -> list[str]:
    """Return what a language model is told of the masks, as "[FINDING] Lung nodule detected in right upper lobe".

    The largest piece of each place is enough for one phrase; what has no place has none.
    """
    phrases: dict[str, None] = {}
    for lesion in lesions:
        name = capital(Wording().name(lesion.name))
        for piece in lesion.pieces:
            if piece.place:
                preposition = "" if piece.place.startswith("around") else "in "
                phrases[f"[FINDING] {name} detected {preposition}{piece.place}"] = None
    return list(phrases)


def report_text(sentences: Iterable[ReportSentence]) -> str:
    """Return sentences as one text with the headings FINDINGS:, IMPRESSION: and RECOMMENDATIONS:."""
    parts: dict[str, list[str]] = {}
    for sentence in sentences:
        parts.setdefault(sentence.section, []).append(f"- {sentence.text}")
    return "\n\n".join("\n".join([f"{section.upper()}:", *lines]) for section, lines in parts.items())


class _Report:
    def __init__(self, findings: Sequence[Finding], lesions: Sequence[Lesion], wording: Wording) -> None:
        self._wording = wording
        self._lesions = tuple(lesions)
        self._evidence = self._in_order(collected(findings, lesions))
        nodules = (piece for lesion in lesions if lesion.name == "lung_nodule" for piece in lesion.pieces)
        self._mass = any(map(is_mass, nodules))  # then it would be false to say that there is none

    def sentences(self) -> tuple[ReportSentence, ...]:
        return (*self._findings(), *self._impression(), *self._recommendations())

    def _in_order(self, evidence: dict[str, Evidence]) -> dict[str, list[Evidence]]:
        """Return the evidence by system, in the order of the report; what is of none comes last."""
        systems: dict[str, list[Evidence]] = {}
        for system, conditions in self._wording.table("systems").items():
            systems[system] = [evidence.pop(c) for c in conditions if c in evidence]
        systems["others"] = list(evidence.values())
        return systems

    # ------------------------------------------------------------ findings

    def _findings(self) -> Iterable[ReportSentence]:
        for known in self._evidence.values():
            for one in known:
                if not one.denied:
                    yield from (self._of(one, "findings", text) for text in self._affirmed(one))
            absent = [one for one in known if one.denied and not (one.condition == "lung_mass" and self._mass)]
            for key, some in (
                ("none", [one for one in absent if not doubtful(one)]),
                ("none_definite", [one for one in absent if doubtful(one)]),
            ):
                if some:
                    yield self._none(key, some)

    def _affirmed(self, one: Evidence) -> tuple[str, ...]:
        if not one.outlined:
            text = self._by_probability(one)
            if one.lesion is not None and one.strongest is not None:
                key = "unlikely_not_outlined" if one.strongest.probability < _RARE else "not_outlined"
                text = self._wording.sentence("findings", key, sentence=text.removesuffix("."))
            return (text,)
        assert one.lesion is not None
        said = describe(one.lesion, self._wording).findings
        if one.strongest is None or one.strongest.presence is Presence.PRESENT:
            return said
        word, name = probability_word(one.strongest.probability), self._wording.name(one.condition)
        denied = "rated_low" if one.strongest.probability < _RARE else "rated_absent"
        key = denied if one.strongest.presence is Presence.ABSENT else "rated_unsure"
        return (*said, self._wording.sentence("findings", key, name=name, word=word))

    def _by_probability(self, one: Evidence) -> str:
        finding = one.strongest
        assert finding is not None
        name = self._wording.name(one.condition, finding.label)
        return self._wording.sentence(
            "likelihood",
            probability_word(finding.probability),
            name=name,
            a_name=self._a_name(one.condition, finding),
            side=self._side(finding),
        )

    def _a_name(self, condition: str, finding: Finding) -> str:
        several = self._wording.table("several")
        if finding.laterality == "bilateral" and condition in several:
            return str(several[condition])
        return self._wording.a_name(condition, finding.label)

    def _side(self, finding: Finding) -> str:
        if not finding.laterality:
            return ""
        both = finding.laterality == "bilateral"
        return " " + self._wording.phrase("both_sides" if both else "side_of", side=finding.laterality)

    def _none(self, key: str, absent: Sequence[Evidence]) -> ReportSentence:
        names = [self._wording.name(one.condition, one.strongest.label if one.strongest else "") for one in absent]
        return ReportSentence(
            section="findings",
            text=self._wording.sentence("findings", key, list=self._wording.listed(names, "or")),
            conditions=tuple(one.condition for one in absent),
            findings=tuple(n for one in absent for n in one.findings),
            masks=tuple(n for one in absent for n in one.masks),
            normal=True,
        )

    # ------------------------------------------------------------ impression and recommendations

    def _impression(self) -> Iterable[ReportSentence]:
        everything = [one for known in self._evidence.values() for one in known]
        matters = [one for one in everything if not one.denied]
        for one in sorted(matters, key=_urgency):
            if one.outlined and not one.unsure:
                assert one.lesion is not None
                yield self._of(one, "impression", describe(one.lesion, self._wording).impression)
            else:
                yield self._of(one, "impression", self._by_probability(one))
        if not matters:
            nothing = "nothing_definite" if any(map(doubtful, everything)) else "nothing"
            yield ReportSentence(
                section="impression",
                text=self._wording.sentence("impression", nothing),
                conditions=tuple(one.condition for one in everything),
                findings=tuple(n for one in everything for n in one.findings),
                masks=tuple(n for one in everything for n in one.masks),
                normal=True,
            )

    def _recommendations(self) -> Iterable[ReportSentence]:
        by_name = {one.condition: one for known in self._evidence.values() for one in known}
        for advice in recommend(self._lesions, self._wording):
            if by_name[advice.lesion].unsure:
                continue  # a guideline advises on what is there
            yield self._of(by_name[advice.lesion], "recommendations", advice.text)

    @staticmethod
    def _of(one: Evidence, section: Section, text: str) -> ReportSentence:
        return ReportSentence(
            section=section, text=text, conditions=(one.condition,), findings=one.findings, masks=one.masks
        )


def doubtful(one: Evidence) -> bool:
    """Return whether a condition is rated absent although its probability is not worded as unlikely."""
    return one.strongest is not None and one.strongest.probability >= _RARE


def _urgency(one: Evidence) -> tuple[int, float]:
    large = one.condition == "lung_nodule" and one.lesion is not None and any(map(is_mass, one.lesion.pieces))
    condition = "lung_mass" if large else one.condition
    place = _URGENCY.index(condition) if condition in _URGENCY else len(_URGENCY)
    return place, -(one.strongest.probability if one.strongest else 1.0)
