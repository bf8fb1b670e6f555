"""How values become words: safe, on one line, and never surer than they are."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import AdapterRef, Audience, Decision, Finding, GuardAction, GuardVerdict, ModelRef, Presence
from clinic_ai.ml import report_text as words
from clinic_ai.ml.dicom_common import date_value, name_value, short_text
from clinic_ai.ml.uids import derived_uid, is_uid


@given(st.text(max_size=400), st.integers(1, 300))
def test_printable_is_one_visible_line_of_bounded_length(text: str, limit: int) -> None:
    line = words.printable(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn"} for c in line)
    assert words.printable(line, limit) == line


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^^Dr.^", "Doe, Jane, Dr."),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎) (やまだ, たろう)"),
        ("^^^^", ""),
        ("", ""),
        ("=王^小东", "王, 小东"),
        ("Do\u202ee^\x00Jane", "Do e, Jane"),
    ],
)
def test_a_person_name_is_read_as_people_write_it(raw: str, read: str) -> None:
    assert words.person_name(raw) == read


@pytest.mark.parametrize(("raw", "read"), [("19700131", "1970-01-31"), ("1970", "1970"), ("soon", "soon"), ("", "")])
def test_dates(raw: str, read: str) -> None:
    assert words.date(raw) == read


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "< 1 %"),
        (0.004, "< 1 %"),
        (0.01, "1 %"),
        (0.5, "50 %"),
        (0.99, "99 %"),
        (0.996, "> 99 %"),
        (1.0, "> 99 %"),
    ],
)
def test_percentages_at_the_ends(probability: float, said: str) -> None:
    assert words.percent(probability) == said


@given(st.floats(0, 1))
def test_a_percentage_never_claims_certainty(probability: float) -> None:
    assert words.percent(probability) not in {"0 %", "100 %"}


def test_what_the_guard_did_is_counted_by_rule_and_reason() -> None:
    def decision(statement: str, action: GuardAction, reason: str) -> Decision:
        return Decision(statement_id=statement, rule="wording", action=action, reason=reason)

    verdict = GuardVerdict(
        audience=Audience.CLINICIAN,
        action=GuardAction.HOLD,
        decisions=(
            decision("f_1", GuardAction.HEDGE, "Too sure."),
            decision("f_2", GuardAction.HEDGE, "Too sure."),
            decision("f_3", GuardAction.HOLD, "Out of scope."),
            decision("f_4", GuardAction.ALLOW, "Fine."),
        ),
        released=(),
        policy_hash="b" * 64,
        policy_name="default",
    )
    assert words.guard_lines(verdict) == [
        words.NOTHING_RELEASED,
        "wording: reworded to the probability (2 statements) – Too sure.",
        "wording: held back for review – Out of scope.",
    ]


def test_every_action_has_words() -> None:
    for action in GuardAction:
        decision = Decision(statement_id="f_1", rule="r", action=action, reason="x")
        verdict = GuardVerdict(
            audience=Audience.CLINICIAN,
            action=action,
            decisions=(decision,),
            released=(),
            policy_hash="b" * 64,
            policy_name="p",
        )
        assert len(words.guard_lines(verdict)) == (1 if action is GuardAction.ALLOW else 2)


def test_a_model_is_named_with_its_adapter_and_standing() -> None:
    adapter = AdapterRef(name="night", version="7", digest="d" * 64)
    model = ModelRef(plugin="xray", name="net", version="2", digest="c" * 64, adapter=adapter, reference=False)
    assert words.model_line(model) == "xray/net/2 (cccccccccccc) + night 7 (dddddddddddd)"
    assert words.model_line(model.model_copy(update={"reference": True})).endswith(", reference model")


@given(st.text(max_size=400))
def test_a_name_value_is_valid_for_its_vr(text: str) -> None:
    value = name_value(text)
    groups = value.split("=")
    assert len(groups) <= 3
    assert all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    assert "\\" not in value


def test_a_common_name_is_carried_over_unchanged() -> None:
    for name in ("Doe^Jane", "Yamada^Tarou=山田^太郎=やまだ^たろう", "O'Neil^Seán^^Dr.^PhD", "=王^小东", ""):
        assert name_value(name) == name


@pytest.mark.parametrize(("text", "value"), [("20240229", "20240229"), ("20230229", ""), ("2023-01-01", ""), ("", "")])
def test_a_date_value_is_a_day_that_exists(text: str, value: str) -> None:
    assert date_value(text) == value


def test_short_text_has_no_separator_and_fits() -> None:
    assert short_text("a\\b " + "x" * 100, 16) == "a/b xxxxxxxxxxxx"


@given(st.text(max_size=40), st.integers(1, 99), st.text(max_size=40))
def test_derived_uids_are_valid_and_always_the_same(study: str, version: int, role: str) -> None:
    uid = derived_uid(study, version, role)
    assert is_uid(uid)
    assert uid == derived_uid(study, version, role)
    assert uid != derived_uid(study, version + 1, role)


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "1..2", "1.02", "1.a", "999.999.2", "../../etc", "1.2\n", "1." + "2" * 63, "१.२"]
)
def test_what_is_no_uid(text: str) -> None:
    assert not is_uid(text)


@pytest.mark.parametrize(
    ("probability", "presence", "read"),
    [
        (0.98, Presence.PRESENT, "above threshold"),
        (0.47, Presence.PRESENT, "above threshold"),
        (0.46, Presence.ABSENT, "below threshold"),
        (0.98, Presence.ABSENT, "above threshold"),  # whatever is said of it, 98 % is not below 47 %
        (0.48, Presence.UNCERTAIN, "uncertain"),
    ],
)
def test_what_stands_beside_a_threshold_follows_from_the_numbers(
    probability: float, presence: Presence, read: str
) -> None:
    finding = Finding(
        condition="pneumonia",
        label="Pneumonia",
        probability=probability,
        threshold=0.47,
        presence=presence,
        instance_sha256="a" * 64,
    )
    assert words.standing(finding) == read
    assert words.correction(finding, None) == ""
