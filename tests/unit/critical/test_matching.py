"""Which results are critical: whole words, only a denial right before them, and every strength of finding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.critical.matching import REPEATS_MIN, hits, plain, says, unknown_conditions
from clinic_ai.domain import Analysis, Answer, Finding, Mask, Presence, ReportSentence
from clinic_ai.settings import CriticalSettings

WORD = st.text(alphabet="abcdefgh", min_size=1, max_size=8)


def analysis(*, presence: Presence | None = None, text: str = "") -> Analysis:
    findings = ()
    if presence is not None:
        findings = (
            Finding(
                condition="pneumothorax",
                label="Pneumothorax",
                probability=0.5,
                threshold=0.5,
                presence=presence,
                instance_sha256="a" * 64,
            ),
        )
    answers = (Answer(question="What is there?", text=text),) if text else ()
    return Analysis(plugin="p", plugin_version="1", models=(), findings=findings, answers=answers)


@pytest.mark.parametrize(
    ("presence", "uncertain", "met"),
    [
        (Presence.PRESENT, True, True),
        (Presence.PRESENT, False, True),
        (Presence.UNCERTAIN, True, True),
        (Presence.UNCERTAIN, False, False),
        (Presence.ABSENT, True, False),
    ],
)
def test_a_condition_is_met_by_what_the_operating_point_says(presence: Presence, uncertain: bool, met: bool) -> None:
    entry = CriticalSettings(condition="pneumothorax", uncertain=uncertain)
    assert bool(hits([entry], analysis(presence=presence))) is met
    assert not hits([CriticalSettings(condition="pneumonia")], analysis(presence=presence))


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("A TENSION  pneumothorax on the left.", True),
        ("There is a tension\npneumothorax.", True),
        ("No tension pneumothorax.", False),
        ("without tension pneumothorax", False),
        ("There is no evidence of tension pneumothorax.", False),
        ("Kein Hinweis auf tension pneumothorax", False),
        ("No doubt: tension pneumothorax.", True),
        ("Not only effusion; no. Tension pneumothorax!", True),
        ("No tension pneumothorax before, but now a tension pneumothorax.", True),
        ("hypertension pneumothorax", False),
        ("tension pneumothoraxes", True),
        ("tension pneumothoraces", True),
        ("tension-pneumothorax", True),
        ("tension_pneumothorax", True),
        ('tension "pneumothorax"', True),
        ("tensionpneumothorax", True),
        ("ten\u00adsion pneumo\u200bthorax", True),
        ("tension pneumo-\nthorax", True),
        ("tension pneumoth\u043erax", True),
        ("tension pnuemothorax", True),
        ("no\u200b tension-pneumothorax", False),
        ("tension of the pneumothorax", False),
        ("Ｔｅｎｓｉｏｎ pneumothorax", True),
    ],
)
def test_a_term_is_met_by_whole_words_unless_denied_right_before(text: str, met: bool) -> None:
    assert bool(hits([CriticalSettings(term="Tension pneumothorax")], analysis(text=text))) is met


@pytest.mark.parametrize(
    ("question", "text", "met"),
    [
        ("Is there a tension pneumothorax?", "Yes, on the left.", True),
        ("Is there a tension pneumothorax?", "On the left.", True),
        ("Is there a tension pneumothorax?", "Yes, with no shift of the mediastinum.", True),
        ("Is there a tension pneumothorax?", "That cannot be excluded.", True),
        ("Ist ein tension-pneumothorax da?", "Ja.", True),
        ("Is there no tension pneumothorax?", "There is one.", True),
        ("Is there a tension pneumothorax?", "No.", False),
        ("Is there a tension pneumothorax?", "There is none.", False),
        ("Is there a tension pneumothorax?", "It is excluded.", False),
        ("Ist ein tension pneumothorax da?", "Nein.", False),
        ("Is there an effusion?", "Yes.", False),
    ],
)
def test_a_term_of_a_question_is_met_by_an_answer_that_does_not_deny_it(question: str, text: str, met: bool) -> None:
    answered = Analysis(plugin="p", plugin_version="1", models=(), answers=(Answer(question=question, text=text),))
    assert bool(hits([CriticalSettings(term="tension pneumothorax")], answered)) is met


@pytest.mark.parametrize("presence", Presence)
@pytest.mark.parametrize("uncertain", [True, False])
def test_a_term_is_met_by_a_finding_of_that_name_as_a_condition_is(presence: Presence, uncertain: bool) -> None:
    by_term, by_condition = (
        bool(hits([entry], analysis(presence=presence)))
        for entry in (
            CriticalSettings(term="Pneumothoraces", uncertain=uncertain),
            CriticalSettings(condition="pneumothorax", uncertain=uncertain),
        )
    )
    assert by_term is by_condition


@pytest.mark.parametrize(
    ("mask", "met"),
    [
        (Mask(name="pneumothorax", count=2, size_mm=40.0), True),
        (Mask(name="pneumothorax_left"), True),
        (Mask(name="pneumothorax", count=0), False),
        (Mask(name="pneumothorax", role="anatomy"), False),
        (Mask(name="lung_nodule"), False),
    ],
)
@pytest.mark.parametrize("entry", [CriticalSettings(condition="pneumothorax"), CriticalSettings(term="pneumothorax")])
def test_a_positive_mask_meets_the_condition_and_the_term_of_its_name(
    entry: CriticalSettings, mask: Mask, met: bool
) -> None:
    assert bool(hits([entry], Analysis(plugin="p", plugin_version="1", models=(), masks=(mask,)))) is met


@given(before=st.lists(WORD), term=WORD, after=st.lists(WORD))
def test_a_term_that_stands_in_a_text_is_always_found(before: list[str], term: str, after: list[str]) -> None:
    text = " ".join([*before, "seen:", term, *after]).upper()
    assert says(plain(text), plain(term))


def test_one_thing_is_told_once_by_its_most_urgent_entry() -> None:
    entries = [
        CriticalSettings(condition="pneumothorax", category=3),
        CriticalSettings(condition="pneumothorax", category=1, repeat_min=(2.0,)),
        CriticalSettings(condition="pneumothorax", category=2),
    ]
    (hit,) = hits(entries, analysis(presence=Presence.PRESENT))
    assert (hit.what, hit.category, hit.waits_s) == ("condition:pneumothorax", 1, (120.0,))


@pytest.mark.parametrize("category", [1, 2, 3])
def test_the_schedule_follows_the_category_where_none_is_named(category: int) -> None:
    entry = CriticalSettings(condition="pneumothorax", category=category)
    (hit,) = hits([entry], analysis(presence=Presence.PRESENT))
    assert hit.waits_s == tuple(60 * wait for wait in REPEATS_MIN[category])


def test_conditions_that_no_finding_has_are_named() -> None:
    entries = [
        CriticalSettings(condition="pneumothorax"),
        CriticalSettings(condition="pnoimonia"),
        CriticalSettings(term="x"),
    ]
    assert unknown_conditions(entries, ["pneumothorax", "pneumonia"]) == ["pnoimonia"]


def test_a_written_report_is_read_as_well() -> None:
    written = Analysis(
        plugin="p",
        plugin_version="1",
        models=(),
        report=(ReportSentence(section="impression", text="Tension pneumothorax on the left."),),
    )
    entry = CriticalSettings(term="tension pneumothorax", category=1)
    assert [hit.what for hit in hits([entry], written)] == ["term:tension pneumothorax"]
