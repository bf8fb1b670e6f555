"""The written report: complete, tied to its evidence, and such that the guard agrees with all of it."""

from __future__ import annotations

import random
from dataclasses import replace

import chests
import pytest
from guarding import guard

from clinic_ai.domain import GuardAction, Presence, ReportSentence
from clinic_ai_ct.lesions import LESIONS, Lesion
from clinic_ai_ct.measuring import masks_of
from clinic_ai_ct.report import location_phrases, report_text, write_report

DRAW = random.Random(7)
ABSENT = tuple(Lesion(name) for name in LESIONS)


def nodule(long: float, short: float, **values: object) -> Lesion:
    known = {"axial_mm": long, "axial_short_mm": short, "core_hu": 30.0, "side": "right", "place": "right upper lobe"}
    return chests.lesion("lung_nodule", chests.piece("lung_nodule", DRAW, **{**known, **values}))


def effusion(side: str, depth: float, **values: object) -> Lesion:
    known = {"side": side, "place": f"{side} lower posterior region", "depth_mm": depth}
    return chests.lesion("pleural_effusion", chests.piece("pleural_effusion", DRAW, **{**known, **values}))


def told(sentences: tuple[ReportSentence, ...], section: str) -> list[str]:
    return [s.text for s in sentences if s.section == section]


def test_the_guard_lets_every_sentence_go_without_a_word() -> None:
    for seed in range(15):
        findings, lesions = chests.evidence(seed)
        sentences = write_report(findings, lesions)
        verdict = guard((s.text for s in sentences), findings, masks_of(lesions))
        assert [d for d in verdict.decisions if d.statement_id] == [], seed
        assert {d.rule for d in verdict.decisions} <= {"investigational", "reference-model", "preliminary"}
        assert len(verdict.released) == len(sentences)


def test_the_guard_holds_the_same_sentences_against_other_evidence() -> None:
    findings, lesions = (), (nodule(8, 6), effusion("right", 20), *ABSENT[:1], *ABSENT[2:4])
    said = [s.text for s in write_report(findings, lesions)]

    def rules(*other: Lesion) -> set[str]:
        return {d.rule for d in guard(said, findings, masks_of(other)).decisions if d.statement_id}

    rest = (*ABSENT[:1], *ABSENT[2:4])
    assert rules(*lesions) == set()
    assert "contradiction" in rules(nodule(8, 6), Lesion("pleural_effusion"), *rest)
    assert "contradiction" in rules(nodule(8, 6), effusion("left", 20), *rest)
    assert "other-number" in rules(nodule(19, 14), effusion("right", 20), *rest)
    assert "other-level" in rules(nodule(8, 6, place="right lower lobe"), effusion("right", 20), *rest)
    assert "unsupported-finding" in rules(effusion("right", 20), *rest)
    to_a_patient = guard(said, findings, masks_of((nodule(8, 6), effusion("left", 20), *rest)), "patient")
    assert to_a_patient.action is GuardAction.HOLD
    assert not to_a_patient.released


def test_every_sentence_rests_on_what_speaks_for_it() -> None:
    for seed in range(40):
        findings, lesions = chests.evidence(seed)
        masks = masks_of(lesions)
        sentences = write_report(findings, lesions)
        for sentence in sentences:
            assert sentence.conditions
            assert sentence.findings or sentence.masks
            assert {findings[n].condition for n in sentence.findings} <= set(sentence.conditions)
            assert {masks[n].name for n in sentence.masks} <= set(sentence.conditions)
            if sentence.normal:
                assert not any(masks[n].count for n in sentence.masks)
        named = {c for s in sentences if s.section == "findings" for c in s.conditions}
        assert named == {*(f.condition for f in findings), *(lesion.name for lesion in lesions)}


def test_a_single_nodule_is_told_with_both_diameters_and_its_lobe() -> None:
    sentences = write_report((), (nodule(8.2, 6.4),))
    assert told(sentences, "findings") == [
        "There is an 8 x 6 mm nodule in the right upper lobe (median attenuation 30 HU)."
    ]
    assert told(sentences, "impression") == ["8 x 6 mm nodule in the right upper lobe."]


def test_what_was_looked_for_and_not_found_is_said_and_nothing_else() -> None:
    sentences = write_report((chests.finding("emphysema", 0.1),), ABSENT)
    assert told(sentences, "findings") == [
        "No lung nodule, consolidation, ground-glass opacity or emphysema.",
        "No pleural effusion.",
        "No pericardial effusion.",
    ]
    assert told(sentences, "impression") == ["Nothing of what was looked for was found."]
    assert told(sentences, "recommendations") == []
    assert all(s.normal for s in sentences)
    assert write_report((), ()) == ()


def test_what_is_absent_but_not_unlikely_is_denied_with_a_doubt() -> None:
    found = tuple(
        chests.finding(name, probability, presence=Presence.ABSENT)
        for name, probability in (("emphysema", 0.3), ("lung_nodule", 0.24), ("pleural_effusion", 0.25))
    )
    sentences = write_report(found, (Lesion("lung_nodule"), Lesion("pleural_effusion")))
    assert told(sentences, "findings") == ["No lung nodule.", "No definite emphysema.", "No definite pleural effusion."]
    assert told(sentences, "impression") == ["Nothing definite of what was looked for was found."]
    verdict = guard((s.text for s in sentences), found, masks_of((Lesion("lung_nodule"), Lesion("pleural_effusion"))))
    assert [d for d in verdict.decisions if d.statement_id] == []


@pytest.mark.parametrize(
    ("depth", "word"), [(12, "small"), (30, "small"), (31, "moderate"), (100, "moderate"), (101, "large")]
)
def test_a_pleural_effusion_is_graded_by_its_depth(depth: float, word: str) -> None:
    assert told(write_report((), (effusion("left", depth),)), "impression") == [
        f"{word.capitalize()} left pleural effusion."
    ]


def test_effusions_on_both_sides_are_told_side_by_side() -> None:
    both = chests.lesion("pleural_effusion", *effusion("right", 18).pieces, *effusion("left", 45).pieces)
    sentences = write_report((), (both,))
    assert told(sentences, "impression") == [
        "Pleural effusions on both sides: small on the right and moderate on the left."
    ]
    assert "18 mm deep" in told(sentences, "findings")[0]
    assert "45 mm deep" in told(sentences, "findings")[0]
    assert told(sentences, "recommendations") == []


def test_effusions_that_are_alike_are_told_together() -> None:
    both = chests.lesion("pleural_effusion", *effusion("right", 40).pieces, *effusion("left", 45).pieces)
    assert told(write_report((), (both,)), "impression") == ["Moderate pleural effusions on both sides."]


def test_the_attenuation_of_fluid_is_that_of_its_inside() -> None:
    inside = effusion("right", 18, core_hu=9.0, mean_hu=-50.0, volume_mm3=123_000.0)
    assert told(write_report((), (inside,)), "findings") == [
        "There is a small right pleural effusion, 18 mm deep (about 120 mL, median attenuation 9 HU)."
    ]


def test_a_finding_without_a_mask_sounds_as_sure_as_it_is() -> None:
    found = (
        chests.finding("emphysema", 0.95),
        chests.finding("hiatal_hernia", 0.6),
        chests.finding("lung_nodule", 0.8),
    )
    assert told(write_report(found, (Lesion("lung_nodule"),)), "findings") == [
        "The scan likely shows a lung nodule, but none was outlined.",
        "The scan most likely shows emphysema.",
        "The appearance may represent a hiatal hernia.",
    ]


def test_a_mask_that_the_classifier_does_not_believe_in_is_said_to_be_one() -> None:
    sentences = write_report((chests.finding("lung_nodule", 0.1),), (nodule(8, 6),))
    assert told(sentences, "findings")[1].startswith("The classifier rates lung nodule unlikely although")


@pytest.mark.parametrize(
    ("sizes", "core", "words"),
    [
        ([(5, 4)], 30.0, "no routine follow-up at low risk"),
        ([(8, 6)], 30.0, "CT after 6 to 12 months, then at 18 to 24"),
        ([(8, 8)], 30.0, "CT after 6 to 12 months, then at 18 to 24"),
        ([(9, 8)], 30.0, "considering CT after 3 months"),
        ([(6, 5)], 30.0, "CT after 6 to 12 months, then at 18 to 24"),
        ([(8, 2.4), (7, 7)], 30.0, "Nodules, of which one of 7 x 7 mm decides"),
        ([(8, 2.4), (7, 7)], 30.0, "CT after 3 to 6 months"),
        ([(10, 8)], 30.0, "considering CT after 3 months"),
        ([(5, 4), (4, 4)], 30.0, "no routine follow-up at low risk"),
        ([(9, 8), (5, 4)], 30.0, "CT after 3 to 6 months, then at 18 to 24"),
        ([(5, 4)], -600.0, "no routine follow-up (non-solid)"),
        ([(9, 8)], -600.0, "then every 2 years up to 5 years"),
        ([(9, 8), (8, 7)], -600.0, "the nodule that stands out decides"),
    ],
)
def test_follow_up_of_nodules_is_that_of_the_fleischner_society(
    sizes: list[tuple[float, float]], core: float, words: str
) -> None:
    pieces = [p for long, short in sizes for p in nodule(long, short, core_hu=core).pieces]
    (advice,) = told(write_report((), (chests.lesion("lung_nodule", *pieces),)), "recommendations")
    assert words in advice
    assert "Fleischner Society (2017)" in advice
    assert "35 years or older" in advice


def test_of_several_nodules_the_one_decides_for_which_most_is_asked() -> None:
    solid, hazy = nodule(5.4, 5).pieces + nodule(5.2, 5, core_hu=-600.0).pieces
    (advice,) = told(write_report((), (chests.lesion("lung_nodule", solid, hazy),)), "recommendations")
    assert advice.startswith("Nodules, of which one of 5 x 5 mm decides: ")
    assert "CT after 3 to 6 months and, if they persist" in advice


def test_a_calcified_nodule_asks_for_nothing_and_a_cavity_is_not_called_non_solid() -> None:
    granuloma = nodule(10, 9, core_hu=780.0)
    assert told(write_report((), (granuloma,)), "recommendations") == []
    beside = chests.lesion("lung_nodule", *granuloma.pieces, *nodule(7, 6).pieces)
    (advice,) = told(write_report((), (beside,)), "recommendations")
    assert advice.startswith("Nodules, of which one of 7 x 6 mm decides: ")
    assert "CT after 6 to 12 months" in advice, "as for one alone"
    cavity = write_report((), (nodule(22, 20, core_hu=-880.0),))
    assert "non-solid" not in report_text(cavity)
    assert told(cavity, "recommendations")[0].startswith("Nodule of 22 x 20 mm, if solid: ")


def test_more_than_a_nodule_is_a_mass_in_every_section_and_none_is_denied() -> None:
    absent = chests.finding("lung_mass", 0.05)
    sentences = write_report((absent, chests.finding("atelectasis", 0.02)), (nodule(45, 38), Lesion("consolidation")))
    assert "mass" not in " ".join(s for s in told(sentences, "findings") if s.startswith("No "))
    assert told(sentences, "impression") == ["45 x 38 mm nodule in the right upper lobe, by its size a mass."]
    assert "by its size" not in report_text(write_report((absent,), (nodule(30.3, 24),))), "it is told as 30 mm"
    effusions = (chests.finding("consolidation", 0.9),)
    first = write_report(effusions, (nodule(45, 38),))
    assert told(first, "impression")[0].startswith("45 x 38 mm"), "as urgent as a mass"


def test_what_is_not_absent_is_in_the_impression_however_unlikely() -> None:
    open_one = chests.finding("lung_mass", 0.22, presence=Presence.UNCERTAIN)
    sentences = write_report((open_one, chests.finding("atelectasis", 0.02)), (Lesion("consolidation"),))
    assert told(sentences, "impression") == ["Lung mass is unlikely."]
    assert not any(s.normal for s in sentences if s.section == "impression")
    nodule_open = chests.finding("lung_nodule", 0.22, presence=Presence.UNCERTAIN)
    said = told(write_report((nodule_open,), (Lesion("lung_nodule"),)), "findings")
    assert said == ["Lung nodule is unlikely, and none was outlined."]


def test_what_is_outlined_and_open_is_told_in_a_whole_sentence() -> None:
    findings = (chests.finding("lung_nodule", 0.45, presence=Presence.UNCERTAIN),)
    assert told(write_report(findings, (nodule(8, 6),)), "findings")[1] == (
        "The classifier leaves lung nodule open, too near to its threshold to call it; the images decide."
    )


@pytest.mark.parametrize(
    ("probability", "presence"),
    [(0.45, Presence.UNCERTAIN), (0.4, Presence.ABSENT), (0.1, Presence.ABSENT), (0.22, Presence.UNCERTAIN)],
)
def test_the_guard_lets_go_what_is_said_of_masks_that_are_not_believed_in(
    probability: float, presence: Presence
) -> None:
    for lesion in (nodule(8, 6), nodule(45, 38), effusion("left", 120)):
        findings = (chests.finding(lesion.name, probability, presence=presence), chests.finding("lung_mass", 0.05))
        sentences = write_report(findings, (lesion,))
        verdict = guard((s.text for s in sentences), findings, masks_of((lesion,)))
        assert [d for d in verdict.decisions if d.statement_id] == []


def test_findings_on_both_sides_are_several() -> None:
    both = (chests.finding("pleural_effusion", 0.95, laterality="bilateral"),)
    assert told(write_report(both, ()), "findings") == ["The scan most likely shows pleural effusions on both sides."]


def test_how_many_effusions_of_no_side_there_are_is_left_open() -> None:
    two = [replace(p, side="", place="") for p in (*effusion("right", 40).pieces, *effusion("left", 45).pieces)]
    sentences = write_report((), (chests.lesion("pleural_effusion", *two),))
    assert told(sentences, "findings")[0].startswith("There is pleural effusion: moderate on an undetermined side")
    assert told(sentences, "impression") == ["Pleural effusion: moderate on an undetermined side."]


def test_a_mass_gets_no_advice_for_nodules_and_a_small_nodule_the_condition_that_it_be_solid() -> None:
    mass = write_report((), (nodule(41, 30),))
    assert told(mass, "recommendations") == []
    assert told(mass, "findings")[1] == "At more than 30 mm it is called a mass by definition."
    (advice,) = told(write_report((), (nodule(7, 6, core_hu=None),)), "recommendations")
    assert advice.startswith("Nodule of 7 x 6 mm, if solid: where found incidentally")


def test_of_several_areas_the_largest_is_told() -> None:
    known = {"side": "right", "place": "right lower lobe", "lung_share": 0.03}
    pieces = [chests.piece("consolidation", DRAW, axial_mm=size, **known) for size in (41.0, 22.0)]
    sentences = write_report((), (chests.lesion("consolidation", *pieces),))
    assert told(sentences, "findings") == [
        "There are several areas of consolidation in the right lower lobe, the largest 41 mm across, about 6 % of the "
        "right lung (minimal extent)."
    ]


def test_location_phrases_name_each_place_once() -> None:
    heart = chests.lesion("pericardial_effusion", chests.piece("pericardial_effusion", DRAW))
    nowhere = chests.lesion("consolidation", replace(chests.piece("consolidation", DRAW), place="", side=""))
    lesions = (effusion("right", 20), heart, nodule(8, 6), nowhere)
    assert location_phrases(lesions) == [
        "[FINDING] Pleural effusion detected in right lower posterior region",
        "[FINDING] Pericardial effusion detected around the heart",
        "[FINDING] Lung nodule detected in right upper lobe",
    ]


def test_the_report_reads_as_one_text_with_headings() -> None:
    text = report_text(write_report((), (nodule(8, 6),)))
    assert text.startswith("FINDINGS:\n- There is an 8 x 6 mm nodule")
    assert "\n\nIMPRESSION:\n- " in text


def test_a_language_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="not in 'fr'"):
        write_report((), ABSENT, "fr")


def test_what_is_outlined_and_not_called_present_is_no_fact() -> None:
    findings = (chests.finding("pleural_effusion", 0.3, presence=Presence.UNCERTAIN),)
    report = write_report(findings, (effusion("left", 120), *ABSENT[:1], *ABSENT[2:]))
    said = " ".join(told(report, "findings"))
    assert "120 mm" in said
    assert "too near to its threshold to call it" in said
    (impression,) = told(report, "impression")
    assert "Large left pleural effusion" not in impression
    assert "effusion" in impression
    assert told(report, "recommendations") == []
    sure = write_report((chests.finding("pleural_effusion", 0.9),), (effusion("left", 120), *ABSENT[:1], *ABSENT[2:]))
    assert "Large left pleural effusion." in told(sure, "impression")
    assert told(sure, "recommendations")
