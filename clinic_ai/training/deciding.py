"""Whether a candidate passes: the figures of both models, the guard's view of their words, and the clinic's rules."""

from __future__ import annotations

from typing import NamedTuple

from clinic_ai.gating import Compared, Comparison, GateRules, GuardOutcome, Interval, Metric

CHANCE: dict[Metric, float] = {"auroc": 0.5, "mean": 0.0}
"""What a model reaches that knows nothing."""
_NAMED = 5
ONE_BY_LUCK = 0.025
"""Chance that a candidate which is no better passes where an improvement has to be proven."""
MANY_TRIED = 4
"""From so many earlier candidates on, a person should know of them: one of five passes by luck with 12 %."""


class Decided(NamedTuple):
    """Whether it passed, why or why not, what a person should look at first, and how groups were judged."""

    passed: bool
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


def decide(comparison: Comparison, guard: GuardOutcome, rules: GateRules) -> Decided:
    """Hold a candidate to the rules."""
    overall, alone = comparison.overall, comparison.alone
    if overall.why_not:
        against = [overall.why_not]
    elif alone:
        against = _against_chance(comparison, rules)
    else:
        against = _against_incumbent(comparison, rules)
    worse, doubts = _groups(comparison, rules)
    against += worse
    if guard.new:
        against.append(_kept_back(guard, alone=alone))
    notes = [] if alone else _how_groups(comparison, rules)
    if against:
        return Decided(False, tuple(against), tuple(doubts), tuple(notes))
    words = f"The guard keeps back nothing new of what it says about {guard.examples} test images."
    return Decided(True, (_figures(comparison, alone=alone), words), tuple(doubts), tuple(notes))


def fishing(others: int) -> tuple[str, ...]:
    """Return the doubt about a candidate that passed after ``others`` were held against the same model; none if few.

    Each model that is no better passes with a chance of 2.5 %: its interval of 95 % lies above zero by luck.
    """
    if others < MANY_TRIED:
        return ()
    luck = 1 - (1 - ONE_BY_LUCK) ** (others + 1)
    return (
        f"{others} others were held against the same model before, on the same patients; of {others + 1} that are no "
        f"better, one passes by luck with a chance of up to {luck:.0%}. New test patients would tell.",
    )


def _against_chance(comparison: Comparison, rules: GateRules) -> list[str]:
    value, interval = comparison.overall.candidate, comparison.overall.candidate_interval
    assert value is not None
    assert interval is not None
    chance = CHANCE[comparison.metric]
    good = interval[0] > chance if rules.improvement == "proven" else value > chance
    if good:
        return []
    return [
        f"No model is in use in its slot, and alone it is not better than chance ({chance:g}): {comparison.figure} "
        f"{value:.3f} ({between(interval)})."
    ]


def _against_incumbent(comparison: Comparison, rules: GateRules) -> list[str]:
    difference, interval = comparison.overall.difference, comparison.overall.interval
    assert difference is not None
    assert interval is not None
    if rules.improvement == "proven":
        if interval[0] > 0:
            return []
        return [f"An improvement is not proven: {_figures(comparison, alone=False)}"]
    if interval[1] < 0:
        return [f"It is worse than the model in use: {_figures(comparison, alone=False)}"]
    if -difference > rules.largest_loss:
        return [
            f"It loses more than {rules.largest_loss:g}, the largest loss that training.gate.largest_loss permits: "
            f"{_figures(comparison, alone=False)}"
        ]
    return []


def _groups(comparison: Comparison, rules: GateRules) -> tuple[list[str], list[str]]:
    """Return what speaks against it and what is doubtful, of groups that lose more than the clinic permits."""
    against, doubts = [], []
    for group in comparison.groups:
        difference, interval = group.difference, group.interval
        if difference is None or interval is None or -difference <= rules.subgroup_loss:
            continue
        sentence = (
            f"Among the {group.examples} test examples of {group.title} ({group.patients} patients) it loses "
            f"{-difference:.3f}, more than the {rules.subgroup_loss:g} of training.gate.subgroup_loss: "
            f"{group.candidate:.3f} instead of {group.incumbent:.3f}, difference {between(interval, '+')}"
        )
        if interval[1] < 0:
            against.append(f"{sentence}.")
        else:
            doubts.append(f"{sentence}; with {comparison.judged_groups} groups this may be chance.")
    return against, doubts


def _how_groups(comparison: Comparison, rules: GateRules) -> list[str]:
    small = [group.title for group in comparison.groups if group.why_not]
    judged = comparison.judged_groups
    notes = []
    if judged:
        notes.append(
            f"{judged} groups of patients and scanners were large enough to tell. Each may lose "
            f"{rules.subgroup_loss:g}: where the loss is larger and its interval lies below zero, the candidate is "
            "refused; where the interval reaches zero, it is a doubt. The intervals of groups are so wide that all of "
            "them hold at once with 95 % (Bonferroni), for of many groups one looks worse by chance."
        )
    if small:
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        notes.append(f"Too small to tell: {', '.join(small[:_NAMED])}{more}.")
    return notes


def _kept_back(guard: GuardOutcome, *, alone: bool) -> str:
    first = guard.new[0]
    before = "no model is in use there" if alone else "it releases what the model in use says of them"
    return (
        f"The guard keeps back what it says of {len(guard.new)} of {guard.examples} test images, and {before}; of the "
        f"image {first.sha256[:12]} by the rule {first.rule}."
    )


def _figures(comparison: Comparison, *, alone: bool) -> str:
    overall = comparison.overall
    if alone:
        return f"{comparison.figure} {_with_interval(overall.candidate, overall.candidate_interval)}; none is in use."
    return (
        f"{comparison.figure} {_with_interval(overall.candidate, overall.candidate_interval)} instead of "
        f"{_with_interval(overall.incumbent, overall.incumbent_interval)}, difference "
        f"{_difference(overall)} on {overall.examples} test examples of {overall.patients} patients."
    )


def _with_interval(value: float | None, interval: Interval | None) -> str:
    assert value is not None
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({between(interval)})"


def _difference(compared: Compared) -> str:
    assert compared.difference is not None
    assert compared.interval is not None
    return f"{compared.difference:+.3f} (95 % interval {between(compared.interval, '+')})"


def between(interval: Interval, sign: str = "") -> str:
    """Return an interval for people; ``sign`` "+" where it is one of differences."""
    low, high = interval
    return f"{low:{sign}.3f} to {high:{sign}.3f}"
