"""What a text claims of its conditions: how far a denial reaches, whose side and length it is, what claims nothing."""

from __future__ import annotations

import pytest

from clinic_ai.domain import Audience, Finding, Mask
from clinic_ai.guard.detectors import View
from clinic_ai.guard.detectors.base import Detector
from clinic_ai.guard.detectors.claims import Claim, claims
from clinic_ai.guard.detectors.contradiction import Contradiction, NumberMismatch
from clinic_ai.guard.detectors.evidence import OmittedFinding, UnsupportedFinding
from clinic_ai.guard.lexicon import Lexicon, parse_lexicon
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.text import Text
from tests.unit.guard.test_contradictions import about, finding

LEXICONS = {
    name: parse_lexicon(name, (shipped_pack("default") / "lexicons" / f"{name}.txt").read_text())
    for name in ("findings", "negations", "normals", "kinds")
}
BOTH = {"left", "right"}


def said(text: str) -> tuple[Claim, ...]:
    return claims(Text(text), LEXICONS["findings"], LEXICONS["negations"], LEXICONS["normals"])


def one(text: str) -> Claim:
    (claim,) = said(text)
    return claim


def flagged(
    text: str, *evidence: Finding | Mask, detector: type[Detector] = Contradiction, without: tuple[str, ...] = ()
) -> bool:
    judge = detector()
    lexicons: dict[str, Lexicon] = {name: lexicon for name, lexicon in LEXICONS.items() if name not in without}
    judge.bind(lexicons)
    said = Text(text)
    return judge.detect(View(Audience.CLINICIAN, about(*evidence), None, said, (said,))) is not None


@pytest.mark.parametrize(
    "text",
    [
        "The effusion is no longer visible.",
        "There is no longer any sign of an effusion.",
        "The left effusion has completely resolved.",
        "Resolved effusion.",
        "Interval resolution of the effusion.",
        "An effusion has been excluded.",
        "Effusion: none.",
        "Lungs free of effusion.",
        "The effusion, known since March, is not seen.",
        "Pleura: no effusion.",
        "Pleural spaces are clear.",
        "Negative examination for effusion.",
        "Effusion: no.",
        "The lungs are clear, an effusion is not.",
        "Effusion neither on the right nor on the left.",
        "Interval clearance of the effusion.",
        "CP angles clear.",
    ],
)
def test_a_denial_is_understood(text: str) -> None:
    assert one(text).denied is True


@pytest.mark.parametrize(
    "text",
    [
        "The effusion has not resolved.",
        "The effusion has partially resolved.",
        "No change of the effusion.",
        "No significant change in the effusion.",
        "Effusion; not in heart failure.",
        "The effusion is not large.",
    ],
)
def test_what_denies_something_else_does_not_deny_the_condition(text: str) -> None:
    assert one(text).denied is False


def test_what_cannot_be_excluded_is_left_open() -> None:
    assert one("Pneumonia cannot be excluded.").denied is None


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("No nodule, no effusion, pneumothorax present.", [True, True, False]),
        ("No nodule, effusion or pneumothorax.", [True, True, True]),
        ("No nodule, effusion, pneumothorax.", [True, True, True]),
        ("No nodule, effusion is detected.", [True, True]),
        ("No nodule, small effusion.", [True, False]),
        ("No nodule, heart is enlarged.", [True, False]),
        ("No nodule; effusion.", [True, False]),
        ("Nodule, effusion and pneumothorax are not seen.", [True, True, True]),
        ("Nodule in the left lung and pneumothorax is not seen.", [False, True]),
        ("Nodule none, effusion none.", [True, True]),
        ("No pleural or pericardial effusion.", [True, True]),
        ("Nodule of the left lung. No new nodule.", [False, None]),
        ("No new nodule.", [True]),
        ("Enlarged left axillary lymph node. No hilar lymphadenopathy.", [False, None]),
        ("No hilar lymphadenopathy.", [True]),
        ("Effusion without pneumothorax.", [False, True]),
    ],
)
def test_how_far_a_denial_reaches(text: str, denied: list[bool | None]) -> None:
    assert [claim.denied for claim in said(text)] == denied


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("Right effusion with mediastinal shift to the left.", {"right"}),
        ("Right effusion with displacement of the mediastinum to the left.", {"right"}),
        ("Left chest tube, right effusion.", {"right"}),
        ("Nodule in the middle lobe.", {"right"}),
        ("Nodule in the left middle lobe.", {"left"}),
        ("Nodule in the lingula.", {"left"}),
        ("Effusion on the right and on the left.", BOTH),
        ("Effusions, R>L.", BOTH),
        ("Effusion on the right, not on the left.", {"right"}),
        ("Left lung clear; right effusion.", {"right"}),
        ("Erguss links.", {"left"}),
        ("Right: chest drain, effusion.", {"right"}),
    ],
)
def test_whose_side_it_is(text: str, sides: set[str]) -> None:
    assert one(text).sides == sides


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("A 2.2 cm nodule.", [22]),
        ("Nodule, grown from 6 mm to 11 mm.", [11]),
        ("Nodules ranging from 6 mm to 11 mm.", [11]),
        ("Nodule, now 9 mm (prior 5 mm).", [9]),
        ("Nodule of 9 mm, previously 5 mm.", [9]),
        ("The nodule was 5 mm.", [5]),
        ("Nodule of 9 mm, larger by 3 mm.", [9]),
        ("1 mm slices. Nodule of 9 mm.", [9]),
        ("Nodule of 9 mm, 2 cm from the pleura.", [9]),
        ("Nodule. It measures 9 mm.", [9]),
        ("Nodules. The largest is 9 mm.", [9]),
        ("Nodule of 9 mm. The tube ends at 4 cm.", [9]),
        ("Nodule increased to 9 mm from 4 mm.", [9]),
        ("Cavitating nodule, 9 mm, wall 3 mm.", [9]),
        ("Nodule, max. diameter 9 mm.", [9]),
        ("Heart size at 18 cm is increased.", [180]),
    ],
)
def test_whose_length_it_is(text: str, lengths: list[float]) -> None:
    assert [size.high for size in one(text).sizes] == lengths


def test_what_is_taken_for_a_condition_lies_where_that_lies() -> None:
    opacity, pneumonia = said("Opacity of the right lower lobe, in keeping with pneumonia.")
    assert opacity.sides == pneumonia.sides == {"right"}
    pneumonia, opacity = said("Pneumonic infiltrate of the right lower lobe.")
    assert opacity.sides == pneumonia.sides == {"right"}


@pytest.mark.parametrize("inside", ["18 cm", "left", "not", "two", "nodule", "3 mm effusion"])
def test_a_term_with_a_gap_holds_whatever_stands_in_it(inside: str) -> None:
    gapped = [t for name in ("findings", "normals") for _, t in LEXICONS[name].terms if "..." in t]
    assert len(gapped) > 50
    for term in gapped:
        assert said(f"No edema, {term.replace('...', inside)}, right 4 mm. It measures 2 cm.")


def test_a_length_belongs_to_the_condition_in_its_part_of_the_sentence() -> None:
    nodule, effusion = said("Nodule in the left lung, 27 mm, lobulated; effusion of 8 mm.")
    assert [[s.high for s in claim.sizes] for claim in (nodule, effusion)] == [[27], [8]]


def test_a_decimal_is_no_count() -> None:
    assert one("A 2.2 cm nodule.").number is None
    assert one("2 nodules.").number == (2, False)


def test_the_largest_is_held_against_the_largest() -> None:
    masks = (Mask(name="lung_nodule", size_mm=30), Mask(name="lung_nodule", size_mm=12))
    assert flagged("Nodules measuring up to 12 mm.", *masks, detector=NumberMismatch)
    assert not flagged("Nodules measuring up to 30 mm.", *masks, detector=NumberMismatch)
    assert not flagged("A nodule of 12 mm.", *masks, detector=NumberMismatch)


@pytest.mark.parametrize(
    "text",
    [
        "INDICATION: Follow-up of effusion. FINDINGS: Normal.",
        "CLINICAL HISTORY: Effusion, cough. IMPRESSION: Normal.",
        "Comparison: effusion in March. Lungs clear.",
        "Reason for examination: effusion?\nFindings: normal.",
        "HISTORY:\nEffusion.\n\nNormal lungs.",
    ],
)
def test_sections_about_something_else_claim_nothing(text: str) -> None:
    assert said(text) == ()


def test_what_stands_behind_such_a_section_counts() -> None:
    assert one("INDICATION: Nodule? FINDINGS: Effusion.").match.key == "pleural_effusion"
    assert one("HISTORY: Nodule. There is an effusion.").match.key == "pleural_effusion"
    assert one("LUNGS: clear. PLEURA: effusion.").match.key == "pleural_effusion"


def test_a_normal_statement_denies_without_a_name() -> None:
    assert flagged("Heart size is normal.", finding("cardiomegaly", True))
    assert not flagged("Heart size is normal.", finding("cardiomegaly", False))
    assert not flagged("Heart size is upper normal.", finding("cardiomegaly", True))


def test_a_pack_may_do_without_normals_and_kinds() -> None:
    assert not flagged("Heart size is normal.", finding("cardiomegaly", True), without=("normals", "kinds"))
    with pytest.raises(ValueError, match="negations"):
        flagged("No effusion.", finding("pleural_effusion", True), without=("negations",))


def test_a_kind_implies_the_general_condition_and_not_the_other_way_about() -> None:
    kind, general = "mediastinal_lymphadenopathy", "lymphadenopathy"
    assert flagged("Mediastinal lymphadenopathy.", finding(general, False))
    assert not flagged("Mediastinal lymphadenopathy.", finding(general, False), finding(kind, True))
    assert flagged("No lymphadenopathy.", finding(kind, True))
    assert not flagged("No mediastinal lymphadenopathy.", finding(general, True))
    assert not flagged("Lymphadenopathy.", finding(kind, True))
    assert not flagged("Lymphadenopathy.", finding(kind, False))


def test_a_kind_is_supported_by_the_general_condition_and_mentions_it() -> None:
    text = "Hydropneumothorax on the left."
    both = (finding("pneumothorax", True), finding("pleural_effusion", True))
    assert not flagged(text, *both, detector=UnsupportedFinding)
    assert flagged(text, *both, detector=UnsupportedFinding, without=("kinds",))
    assert flagged(text, finding("lung_nodule", True), detector=UnsupportedFinding)
    assert not flagged(
        "Calcification of the aorta.", finding("coronary_calcification", True), detector=UnsupportedFinding
    )
    assert not flagged(text, *both, detector=OmittedFinding)
    assert flagged(text, *both, finding("lung_nodule", True), detector=OmittedFinding)


def test_a_side_that_is_free_contradicts_no_finding_without_a_side() -> None:
    effusion = finding("pleural_effusion", True)
    assert not flagged("No effusion on the right. Effusion on the left.", effusion)
    assert flagged("No effusion on the right.", effusion)
