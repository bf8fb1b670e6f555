"""Which plugins see a study: decides from the clinic's rules and the plugins' claims, and says why; never runs.

Rules come first, in the order of the file. What a match means is the mode:

- ``first``: the first enabled rule that matches decides.
- ``all``: every enabled rule that matches adds its plugins, each plugin once.
- ``priority``: of the enabled rules that match, the one with the highest priority decides; among equals the first.

Only if no enabled rule matches, and ``use_claims`` is true, the study goes to every plugin that claims such
studies: claims have no order, so none of them can take a study away from another.

A rule that matches decides even if its plugin is not installed. The study is then not handed to some other plugin
behind the clinic's back; ``missing`` names what the rule wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from clinic_ai.contract import Condition, PluginManifest
from clinic_ai.domain import StudyFacts, Word
from clinic_ai.ingest.facts import facts_of
from clinic_ai.settings import RoutingRule

__all__ = [
    "Check",
    "Choice",
    "Considered",
    "Mode",
    "Routing",
    "Verdict",
    "check_condition",
    "facts_of",
    "render_explanation",
    "route",
]

Mode = Literal["first", "all", "priority"]


class Check(Word):
    """One key of a condition: what was wanted, what the study says, and whether that matches."""

    key: str
    wanted: str
    found: str
    matched: bool


class Verdict(StrEnum):
    """What became of a rule or claim."""

    DECIDED = "decided"
    NO_MATCH = "no match"
    OUTRANKED = "outranked"
    DISABLED = "disabled"
    UNUSED = "unused"


class Considered(Word):
    """A rule, or one claim of a plugin, held against the study.

    ``checks`` has an entry for each key the condition gives. A claim with verdict ``unused`` matched or not, but
    rules decided or claims are switched off.
    """

    kind: Literal["rule", "claim"]
    name: str
    plugins: tuple[str, ...]
    matched: bool
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...] = ()


class Choice(Word):
    """A plugin that is to see the study; ``rule`` is the name of the rule that chose it, or says that it claims it."""

    plugin: str
    rule: str
    priority: int = 0


class Routing(Word):
    """Where a study goes, and how that was decided.

    ``explanation`` may quote study descriptions: for people with access to the study, not for logs.
    """

    plugins: tuple[Choice, ...]
    missing: tuple[Choice, ...]
    """Chosen by a rule, but not installed."""
    explanation: tuple[Considered, ...]


def route(
    facts: StudyFacts,
    rules: Sequence[RoutingRule],
    manifests: Mapping[str, PluginManifest],
    mode: Mode = "first",
    use_claims: bool = True,
) -> Routing:
    """Return the plugins that are to see a study, in order, and the explanation; see the top of this file."""
    checks = [check_condition(rule.when, facts) for rule in rules]
    matching = [i for i, rule in enumerate(rules) if rule.enabled and all(c.matched for c in checks[i])]
    deciding = _deciding(rules, matching, mode)
    considered = [_considered_rule(rules, i, checks[i], deciding, mode) for i in range(len(rules))]
    chosen = _choices(rules[i] for i in deciding)
    claims = _claims(facts, manifests, asked=use_claims and not matching, use_claims=use_claims)
    chosen += [Choice(plugin=name, rule=_claim_of(name)) for name in _claimants(claims)]
    return Routing(
        plugins=tuple(c for c in chosen if c.plugin in manifests),
        missing=tuple(c for c in chosen if c.plugin not in manifests),
        explanation=(*considered, *claims),
    )


def check_condition(condition: Condition, facts: StudyFacts) -> tuple[Check, ...]:
    """Hold a condition against a study: one check for each key it gives; it matches if all of them do."""
    found = {
        "modality": facts.modalities,
        "body_part": facts.body_parts,
        "view": facts.views,
        "station": facts.stations,
        "source": (facts.source,),
        "study_description": (facts.study_description,),
        "series_description": facts.series_descriptions,
    }
    checks = [_check_patterns(key, getattr(condition, key), values) for key, values in found.items()]
    count = f"{facts.slices} image{'' if facts.slices == 1 else 's'}"
    if (low := condition.min_slices) is not None:
        checks.append(Check(key="min_slices", wanted=f"at least {low}", found=count, matched=facts.slices >= low))
    if (high := condition.max_slices) is not None:
        checks.append(Check(key="max_slices", wanted=f"at most {high}", found=count, matched=facts.slices <= high))
    return tuple(check for check in checks if check is not None)


def render_explanation(routing: Routing) -> list[str]:
    """Return the decision and how it came about, in lines for people."""
    lines = [_headline(routing)]
    lines += [
        f"Rule “{c.rule}” wants plugin {c.plugin}, which is not installed; install it or change the rule."
        for c in routing.missing
    ]
    for considered in routing.explanation:
        what = f"Rule “{considered.name}”" if considered.kind == "rule" else f"A claim of {considered.name}"
        lines.append(f"{what}: {considered.reason}")
        for check in considered.checks:
            answer = "yes" if check.matched else "no"
            lines.append(f"    {check.key}: {answer}; wanted {check.wanted}, the study has {check.found}")
    return lines


# ------------------------------------------------------------


def _check_patterns(key: str, patterns: Sequence[str], values: Sequence[str]) -> Check | None:
    if not patterns:
        return None
    present = [value for value in values if value]
    return Check(
        key=key,
        wanted=" or ".join(patterns),
        found=", ".join(present) or "none",
        matched=any(_matches(value, pattern) for value in present for pattern in patterns),
    )


def _matches(value: str, pattern: str) -> bool:
    # Only * and ? are special: descriptions hold brackets that mean themselves.
    return fnmatchcase(value.casefold(), pattern.casefold().replace("[", "[[]"))


def _deciding(rules: Sequence[RoutingRule], matching: Sequence[int], mode: Mode) -> list[int]:
    if mode == "all" or not matching:
        return list(matching)
    if mode == "priority":
        return [max(matching, key=lambda i: rules[i].priority)]  # of equals, max keeps the first
    return [matching[0]]


def _choices(rules: Iterable[RoutingRule]) -> list[Choice]:
    """Return each plugin once, under the first rule that names it and with the highest priority it was given."""
    chosen: dict[str, Choice] = {}
    for rule in rules:
        for plugin in rule.plugins:
            first = chosen.get(plugin)
            name, least = (first.rule, first.priority) if first else (rule.name, rule.priority)
            chosen[plugin] = Choice(plugin=plugin, rule=name, priority=max(least, rule.priority))
    return list(chosen.values())


def _considered_rule(
    rules: Sequence[RoutingRule], index: int, checks: tuple[Check, ...], deciding: Sequence[int], mode: Mode
) -> Considered:
    rule = rules[index]
    matched = all(check.matched for check in checks)
    targets = ", ".join(rule.plugins)
    if not rule.enabled:
        verdict, reason = Verdict.DISABLED, "is switched off in clinic.toml."
    elif not matched:
        verdict, reason = Verdict.NO_MATCH, "does not match."
    elif index in deciding:
        verdict, reason = Verdict.DECIDED, f"matches; sends the study to {targets}, priority {rule.priority}."
    else:
        why = (
            "comes first"
            if mode == "first" or rule.priority == rules[deciding[0]].priority
            else "has a higher priority"
        )
        verdict, reason = Verdict.OUTRANKED, f"matches, but “{rules[deciding[0]].name}” {why}."
    return Considered(
        kind="rule",
        name=rule.name,
        plugins=rule.plugins,
        matched=matched,
        verdict=verdict,
        reason=reason,
        checks=checks,
    )


def _claims(
    facts: StudyFacts, manifests: Mapping[str, PluginManifest], *, asked: bool, use_claims: bool
) -> list[Considered]:
    considered = []
    for name in sorted(manifests):
        for claim in manifests[name].claims:
            checks = check_condition(claim, facts)
            matched = all(check.matched for check in checks)
            if not asked:
                verdict = Verdict.UNUSED
                reason = "not asked, a rule matched." if use_claims else "not asked, routing.use_claims is false."
            elif matched:
                verdict, reason = Verdict.DECIDED, "matches; the study goes to it."
            else:
                verdict, reason = Verdict.NO_MATCH, "does not match."
            considered.append(
                Considered(
                    kind="claim",
                    name=name,
                    plugins=(name,),
                    matched=matched,
                    verdict=verdict,
                    reason=reason,
                    checks=checks,
                )
            )
    return considered


def _claimants(claims: Iterable[Considered]) -> list[str]:
    return list(dict.fromkeys(claim.name for claim in claims if claim.verdict is Verdict.DECIDED))


def _claim_of(plugin: str) -> str:
    return f"claim of {plugin}"


def _headline(routing: Routing) -> str:
    if routing.plugins:
        return "Goes to " + ", ".join(f"{c.plugin} ({_by(c)})" for c in routing.plugins) + "."
    if routing.missing:
        return "Waits for what is not installed: " + ", ".join(c.plugin for c in routing.missing) + "."
    return "Goes nowhere: no rule matches and no plugin claims it."


def _by(choice: Choice) -> str:
    return choice.rule if choice.rule == _claim_of(choice.plugin) else f"rule “{choice.rule}”"
