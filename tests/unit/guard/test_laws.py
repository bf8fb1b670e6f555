"""What holds for every text and all evidence: the guard answers, the strictest action wins, and more evidence of
harm never lets more out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinic_ai.contract import Condition
from clinic_ai.domain import (
    Audience,
    Distance,
    Finding,
    GuardAction,
    GuardVerdict,
    ImageFacts,
    Mask,
    PatientIdentity,
    Presence,
    Statement,
    StudyFacts,
)
from clinic_ai.guard.detectors.quantities import levels, same_level, sizes
from clinic_ai.guard.engine import judge
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.templates import KINDS
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask, PluginScope

CONDITIONS = ["pneumonia", "pleural_effusion", "lung_nodule", "bone_fracture", "made_up"]
PHRASES = [
    "pleural effusion", "no", "left", "right", "both", "nodule", "12 mm", "2.3 x 1,4 cm", "3-5 mm", "two", "T8", "L4/5",
    "4th rib", "right upper lobe", "Findings:", "Impression:", "pneumonia", "is likely", "suspicious of", "1.", ";",
    ",", "and", "but", "fracture", "<b>", "\u200b", "not observed", "history of", "\n", "0 mm", "999 cm", "c0",
    "rib 99", "mm",
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(st.sampled_from(PHRASES), st.text(max_size=6)), max_size=40).map(" ".join),
)
sides = st.sampled_from(["left", "right", "bilateral", ""])
lengths = st.none() | st.floats(0.1, 500)
findings = st.builds(
    Finding,
    condition=st.sampled_from(CONDITIONS),
    label=st.text(max_size=20),
    probability=st.floats(0, 1),
    threshold=st.just(0.5),
    presence=st.sampled_from(Presence),
    instance_sha256=st.just("0" * 64),
    laterality=sides,
)
masks = st.builds(
    Mask,
    name=st.sampled_from([*CONDITIONS, "t8", "l1"]),
    role=st.sampled_from(["finding", "anatomy"]),
    side=sides,
    level=st.sampled_from(["", "T8", "rib 4", "right upper lobe", "?", "T8 to T9"]),
    centroid=st.none() | st.tuples(*[st.floats(-1e4, 1e4)] * 3),
    count=st.integers(0, 9),
    size_mm=lengths,
    volume_mm3=lengths,
)
subjects = st.builds(
    GuardSubject,
    facts=st.builds(
        StudyFacts,
        modalities=st.lists(st.sampled_from(["DX", "US", "", "MR"]), max_size=2).map(tuple),
        slices=st.integers(0, 3),
    ),
    identity=st.builds(PatientIdentity, patient_id=st.text(max_size=8), patient_name=st.text(max_size=12)),
    findings=st.lists(findings, max_size=3).map(tuple),
    masks=st.lists(masks, max_size=4).map(tuple),
    image=st.builds(ImageFacts, calibrated=st.none() | st.booleans(), priors=st.none() | st.integers(0, 2)),
    scopes=st.lists(
        st.builds(PluginScope, plugin=st.just("x"), claims=st.just((Condition(modality=("D*",)),))), max_size=1
    ).map(tuple),
    distances=st.lists(
        st.builds(Distance, model=st.just("m"), value=st.floats(0, 1e9), limit=st.floats(0.1, 1e9)), max_size=2
    ).map(tuple),
    validated=st.booleans(),
    reference=st.booleans(),
    signed_by=st.sampled_from(["", " ", "a person"]),
    language=st.sampled_from(["en", "de", "xx", ""]),
)
audiences = st.sampled_from(Audience)
LAWS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def verdict_of(policy: Policy, audience: Audience, subject: GuardSubject, said: list[tuple[str, Any]]) -> GuardVerdict:
    statements = tuple(
        Statement(statement_id=f"s_{n}", kind=kind, text=text, finding=next(iter(subject.findings), None))
        for n, (text, kind) in enumerate(said)
    )
    return judge(
        policy, GuardTask(audience=audience, subject=subject, statements=statements, policy_hash=policy.digest)
    )


@LAWS
@given(audiences, subjects, st.lists(st.tuples(texts, st.sampled_from(KINDS)), max_size=3))
def test_the_guard_answers_whatever_it_is_asked(
    policy: Policy, audience: Audience, subject: GuardSubject, said: list[tuple[str, Any]]
) -> None:
    verdict = verdict_of(policy, audience, subject, said)
    assert verdict.action is max(
        (d.action for d in verdict.decisions), key=lambda a: a.severity, default=GuardAction.ALLOW
    )
    assert bool(verdict.released) <= (verdict.action.severity < GuardAction.HOLD.severity)
    for decision in verdict.decisions:
        text = said[int(decision.statement_id[2:])][0] if decision.statement_id else ""
        assert all(0 <= start < end <= len(text) for start, end in decision.spans), decision
    # The same question gets the same answer: nothing is kept between two.
    assert verdict_of(policy, audience, subject, said) == verdict


@LAWS
@given(audiences, subjects, texts, texts)
def test_one_more_statement_never_lets_more_out(
    policy: Policy, audience: Audience, subject: GuardSubject, one: str, other: str
) -> None:
    quiet = subject.model_copy(update={"findings": (), "masks": ()})  # without them nothing can be left out
    alone = verdict_of(policy, audience, quiet, [(one, "answer")])
    both = verdict_of(policy, audience, quiet, [(one, "answer"), (other, "answer")])
    assert both.action.severity >= alone.action.severity


@given(st.lists(st.sampled_from(GuardAction), min_size=1))
def test_actions_are_a_lattice(actions: list[GuardAction]) -> None:
    def join(one: GuardAction, other: GuardAction) -> GuardAction:
        return max(one, other, key=lambda action: action.severity)

    one, other, third = (actions * 3)[:3]
    assert join(one, other) is join(other, one)
    assert join(join(one, other), third) is join(one, join(other, third))
    assert join(one, one) is one
    assert join(one, GuardAction.ALLOW) is one
    assert join(one, GuardAction.BLOCK) is GuardAction.BLOCK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 12 mm nodule", [(12, 12, "")]),
        ("2.3 x 1,4 cm", [(23, 23, "")]),
        ("1 cm x 5 mm x 3 mm", [(10, 10, "")]),
        ("3-5 mm", [(3, 5, "")]),
        ("twelve-millimetre", [(12, 12, "")]),
        ("less than 5 mm", [(5, 5, "below")]),
        ("at least 2 cm", [(20, 20, "above")]),
        ("5 mm and 7 mm", [(5, 7, "")]),
        ("15 mm3, 4 mmol, T8, 7 minutes, 500 mg", []),
        ("mm", []),
    ],
)
def test_lengths_are_read_as_they_are_written(text: str, expected: list[tuple[float, float, str]]) -> None:
    assert [(s.low, s.high, s.bound) for s in sizes(Text(text))] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fracture of t8", {"t8"}),
        ("th8 and d9", {"t8", "t9"}),
        ("l4/5 disc", {"l4", "l5"}),
        ("the eighth thoracic vertebra", {"t8"}),
        ("4th left posterior rib", {"rib 4"}),
        ("rib 11", {"rib 11"}),
        ("right upper lobe, rll", {"right upper lobe", "right lower lobe"}),
        ("c9, t13, l7", set()),
        ("t2 weighted", {"t2"}),
    ],
)
def test_levels_have_one_spelling(text: str, expected: set[str]) -> None:
    assert levels(text) == expected


def test_levels_of_different_families_say_nothing_of_each_other() -> None:
    assert same_level("t8", "t9") is False
    assert same_level("upper lobe", "left upper lobe") is True
    assert same_level("right upper lobe", "left upper lobe") is False
    assert same_level("t8", "rib 8") is None


def test_a_task_survives_the_wire() -> None:
    subject = GuardSubject(
        facts=StudyFacts(),
        masks=(Mask(name="lung_nodule", centroid=(1.0, 2.0, 3.0), size_mm=4.0),),
        distances=(Distance(model="m", value=1.0, limit=2.0),),
        scopes=(PluginScope(plugin="x", claims=(Condition(modality=("DX",)),)),),
    )
    assert GuardSubject.model_validate(json.loads(subject.model_dump_json())) == subject
