"""Routing: the three modes, claims, and an explanation that always agrees with the decision."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.domain import StudyFacts
from clinic_ai.routing import Mode, Routing, Verdict, check_condition, render_explanation, route
from clinic_ai.settings import RoutingRule

CHEST = StudyFacts(
    source="ward",
    modalities=("DX",),
    body_parts=("CHEST",),
    views=("LL", "PA"),
    stations=("PORTABLE2",),
    study_description="Thorax [2 Ebenen]",
    series_descriptions=("pa", "lateral"),
    slices=2,
)


def plugin(name: str, *claims: Condition) -> PluginManifest:
    return PluginManifest(name=name, version="1", summary="", engine="a.b:C", claims=claims)


def rule(name: str, *plugins: str, priority: int = 0, enabled: bool = True, **when: object) -> RoutingRule:
    condition = Condition.model_validate(when)
    return RoutingRule(name=name, plugins=plugins, priority=priority, enabled=enabled, when=condition)


XRAY, CT, ALL = (
    plugin("xray", Condition(modality=("CR", "DX"))),
    plugin("ct", Condition(modality=("CT",), min_slices=10), Condition(modality=("PT",))),
    plugin("audit", Condition()),
)
MANIFESTS = {p.name: p for p in (XRAY, CT, ALL)}


def chosen(routing: Routing) -> list[tuple[str, str, int]]:
    return [(c.plugin, c.rule, c.priority) for c in routing.plugins]


# ------------------------------------------------------------ conditions


def matches(facts: StudyFacts = CHEST, **when: object) -> bool:
    return all(check.matched for check in check_condition(Condition.model_validate(when), facts))


def test_every_key_must_match_and_one_entry_of_a_list_is_enough() -> None:
    assert matches()
    assert matches(modality=("CR", "DX"), body_part=("CHEST",), source=("ward",))
    assert not matches(modality=("CR", "DX"), body_part=("HAND",))
    assert matches(view=("PA",))
    assert matches(series_description=("lat*",))


def test_patterns_ignore_case_and_know_only_star_and_question_mark() -> None:
    assert matches(modality=("dx",))
    assert matches(station=("portable?",))
    assert matches(study_description=("thorax [2*",))
    assert not matches(study_description=("thorax [2T]*",))
    assert not matches(station=("portable",))


def test_what_a_study_does_not_say_matches_nothing() -> None:
    assert not matches(StudyFacts(), study_description=("*",))
    assert not matches(StudyFacts(), modality=("*",))


def test_numbers_of_slices_include_their_bounds() -> None:
    assert matches(min_slices=2, max_slices=2)
    assert not matches(min_slices=3)
    assert not matches(max_slices=1)


# ------------------------------------------------------------ modes


def test_first_takes_the_first_enabled_rule_that_matches() -> None:
    rules = [
        rule("off", "ct", enabled=False),
        rule("hands", "ct", body_part=("HAND",)),
        rule("chests", "xray", priority=3, body_part=("CHEST",)),
        rule("rest", "ct", priority=9),
    ]
    routing = route(CHEST, rules, MANIFESTS, "first")
    assert chosen(routing) == [("xray", "chests", 3)]
    assert [c.verdict for c in routing.explanation if c.kind == "rule"] == [
        Verdict.DISABLED,
        Verdict.NO_MATCH,
        Verdict.DECIDED,
        Verdict.OUTRANKED,
    ]


def test_all_adds_every_matching_rule_and_names_a_plugin_once() -> None:
    rules = [rule("one", "xray", priority=1), rule("two", "ct", "xray", priority=5), rule("no", "audit", source=("x",))]
    assert chosen(route(CHEST, rules, MANIFESTS, "all")) == [("xray", "one", 5), ("ct", "two", 5)]


def test_priority_takes_the_highest_and_of_equals_the_first() -> None:
    rules = [rule("low", "ct"), rule("high", "xray", priority=2), rule("also high", "audit", priority=2)]
    routing = route(CHEST, rules, MANIFESTS, "priority")
    assert chosen(routing) == [("xray", "high", 2)]
    reasons = [c.reason for c in routing.explanation if c.kind == "rule"]
    assert reasons[0] == "matches, but “high” has a higher priority."
    assert reasons[2] == "matches, but “high” comes first."


# ------------------------------------------------------------ claims and missing plugins


def test_claims_are_asked_only_if_no_rule_matches() -> None:
    assert chosen(route(CHEST, [], MANIFESTS)) == [("audit", "claim of audit", 0), ("xray", "claim of xray", 0)]
    with_rule = route(CHEST, [rule("mine", "ct")], MANIFESTS)
    assert chosen(with_rule) == [("ct", "mine", 0)]
    assert {c.verdict for c in with_rule.explanation if c.kind == "claim"} == {Verdict.UNUSED}
    assert chosen(route(CHEST, [rule("off", "ct", enabled=False)], MANIFESTS))[0][0] == "audit"
    assert route(CHEST, [], MANIFESTS, use_claims=False).plugins == ()


def test_any_one_claim_of_a_plugin_is_enough_and_counts_once() -> None:
    both = StudyFacts(modalities=("CT", "PT"), slices=40)
    assert [c.plugin for c in route(both, [], {"ct": CT}).plugins] == ["ct"]
    assert route(StudyFacts(modalities=("CT",), slices=3), [], {"ct": CT}).plugins == ()


def test_a_rule_that_names_an_unknown_plugin_decides_and_says_so() -> None:
    routing = route(CHEST, [rule("bones", "bone_age"), rule("rest", "xray")], MANIFESTS)
    assert routing.plugins == ()
    assert [c.plugin for c in routing.missing] == ["bone_age"]
    lines = render_explanation(routing)
    assert lines[0] == "Waits for what is not installed: bone_age."
    assert lines[1] == "Rule “bones” wants plugin bone_age, which is not installed; install it or change the rule."


def test_the_explanation_says_what_was_wanted_and_what_was_found() -> None:
    rules = [rule("hands", "xray", body_part=("HAND", "WRIST"), min_slices=2), rule("chests", "xray", modality=("DX",))]
    assert render_explanation(route(CHEST, rules, {"xray": XRAY})) == [
        "Goes to xray (rule “chests”).",
        "Rule “hands”: does not match.",
        "    body_part: no; wanted HAND or WRIST, the study has CHEST",
        "    min_slices: yes; wanted at least 2, the study has 2 images",
        "Rule “chests”: matches; sends the study to xray, priority 0.",
        "    modality: yes; wanted DX, the study has DX",
        "A claim of xray: not asked, a rule matched.",
        "    modality: yes; wanted CR or DX, the study has DX",
    ]


# ------------------------------------------------------------ whatever the rules

modalities = st.sampled_from(["CR", "DX", "CT"])
conditions = st.builds(
    Condition,
    modality=st.lists(modalities | st.just("*"), max_size=2).map(tuple),
    source=st.lists(st.sampled_from(["ward", "er*"]), max_size=1).map(tuple),
    min_slices=st.none() | st.integers(0, 3),
)
rule_lists = st.lists(
    st.builds(
        RoutingRule,
        name=st.sampled_from(["a", "b", "c"]),
        plugins=st.lists(st.sampled_from(["xray", "ct", "ghost"]), min_size=1, max_size=2, unique=True).map(tuple),
        enabled=st.booleans(),
        priority=st.integers(-1, 1),
        when=conditions,
    ),
    max_size=4,
)
studies = st.builds(
    StudyFacts,
    modalities=st.lists(modalities, max_size=2, unique=True).map(tuple),
    source=st.sampled_from(["", "ward", "er1"]),
    slices=st.integers(0, 4),
)
modes = st.sampled_from(["first", "all", "priority"])


@given(studies, rule_lists, modes, st.booleans())
def test_decision_and_explanation_agree(
    facts: StudyFacts, rules: list[RoutingRule], mode: Mode, use_claims: bool
) -> None:
    routing = route(facts, rules, MANIFESTS, mode, use_claims)
    everything = [*routing.plugins, *routing.missing]
    names = [c.plugin for c in everything]
    assert len(names) == len(set(names))
    assert all(c.plugin in MANIFESTS for c in routing.plugins)
    assert not any(c.plugin in MANIFESTS for c in routing.missing)

    decided = [c for c in routing.explanation if c.verdict is Verdict.DECIDED]
    assert {p for c in decided for p in c.plugins} == set(names)
    assert len({c.kind for c in decided}) <= 1  # rules or claims, never both
    assert all(c.matched == all(check.matched for check in c.checks) for c in routing.explanation)
    assert len([c for c in routing.explanation if c.kind == "rule"]) == len(rules)

    matching = [r for r in rules if r.enabled and all(c.matched for c in check_condition(r.when, facts))]
    if matching and mode != "all":
        best = matching[0] if mode == "first" else max(matching, key=lambda r: r.priority)
        assert {(c.plugin, c.rule, c.priority) for c in everything} == {
            (p, best.name, best.priority) for p in best.plugins
        }
    if matching and mode == "all":
        assert set(names) == {p for r in matching for p in r.plugins}
    if not matching and not use_claims:
        assert not everything
    assert render_explanation(routing)


@given(studies, rule_lists, modes)
def test_a_disabled_rule_changes_nothing(facts: StudyFacts, rules: list[RoutingRule], mode: Mode) -> None:
    enabled = [r for r in rules if r.enabled]
    assert route(facts, rules, MANIFESTS, mode).plugins == route(facts, enabled, MANIFESTS, mode).plugins
