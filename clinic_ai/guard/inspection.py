"""A pack for people to look at: its rules with the cases that prove them, and what sets two packs apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from clinic_ai.domain import Audience
from clinic_ai.guard.cases import Case
from clinic_ai.guard.engine import fired_rules, judge
from clinic_ai.guard.layers import laid_over
from clinic_ai.guard.packfiles import pack_texts, read_pack_files
from clinic_ai.guard.policy import Policy, RuleEntry, build_policy
from clinic_ai.guard.proof import case_action, pack_info
from clinic_ai.tasks import PackChange, PackDescription, PackDifference, RuleCoverage

_TOLD = ("audiences", "scope", "kinds", "when", "action", "message", "template", "substitute", "row", "hazard")
_SHOWN = 60


def describe_pack(directory: Path) -> PackDescription:
    """Return a pack's rules, each with its cases. Raise PolicyError if the pack cannot be read."""
    files = read_pack_files(directory)
    policy = build_policy(directory.name, files)
    fired = [
        (number, case, fired_rules(policy, case.task(policy.digest))) for number, case in enumerate(policy.cases, 1)
    ]
    rules = tuple(
        RuleCoverage(
            rule=entry.id,
            row=entry.row,
            hazard=entry.hazard,
            audiences=entry.audiences,
            action=entry.action,
            firing=_count(policy.cases, entry.id, "firing"),
            non_firing=_count(policy.cases, entry.id, "non_firing"),
            mutations=_count(policy.cases, entry.id, "mutation"),
            fires_on=tuple(number for number, _, rules in fired if entry.id in rules),
        )
        for entry in (rule.entry for rule in policy.rules)
    )
    lexicons = {Path(name).stem: _terms(content) for name, content in _lists(files)}
    return PackDescription(
        pack=pack_info(policy),
        rules=rules,
        terms={name: len(terms) for name, terms in lexicons.items()},
        languages=tuple(sorted(policy.templates)),
    )


def compare_packs(old: Path, new: Path) -> PackDifference:
    """Return what the new pack changes, and which cases of either come out otherwise.

    Raise PolicyError if one of them cannot be read.
    """
    old_files, new_files = read_pack_files(old), read_pack_files(new)
    before, after = build_policy(old.name, old_files), build_policy(new.name, new_files)
    changes = [
        *_rules(before, after),
        *_terms_apart(dict(_lists(old_files)), dict(_lists(new_files))),
        *_templates(before, after),
    ]
    cases = dict.fromkeys(_key(c) for c in (*before.cases, *after.cases))
    outcomes = [change for key in cases if (change := _outcome(before, after, Case.model_validate_json(key)))]
    return PackDifference(
        old=pack_info(before), new=pack_info(after), changes=tuple(changes), outcomes=tuple(outcomes), cases=len(cases)
    )


def _count(cases: Iterable[Case], rule: str, kind: str) -> int:
    return sum(case.rule == rule and case.kind == kind for case in cases)


def _lists(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((n, c) for n, c in laid_over(pack_texts(files)).items() if n.startswith("lexicons/") and n.endswith(".txt"))


def _terms(content: bytes) -> frozenset[str]:
    """Return the entries of a word list as they are written, groups taken apart."""
    found: set[str] = set()
    for line in content.decode("utf-8").splitlines():
        key, colon, rest = line.partition("#")[0].strip().partition(":")
        found |= {f"{key}: {t.strip()}" for t in rest.split(",") if t.strip()} if colon else {key} if key else set()
    return frozenset(found)


def _rules(before: Policy, after: Policy) -> Iterator[PackChange]:
    old: dict[str, RuleEntry] = {rule.entry.id: rule.entry for rule in before.rules}
    new: dict[str, RuleEntry] = {rule.entry.id: rule.entry for rule in after.rules}
    for rule in sorted({*old, *new}):
        where = f"rule {rule}"
        if rule not in new:
            yield PackChange(where=where, what="is gone")
        elif rule not in old:
            yield PackChange(where=where, what=f"is new: {new[rule].action.value}; {new[rule].hazard}")
        else:
            one, two = old[rule].model_dump(mode="json"), new[rule].model_dump(mode="json")
            for name in (n for n in _TOLD if one[n] != two[n]):
                yield PackChange(where=where, what=f"{name}: {_short(one[name])} → {_short(two[name])}")


def _terms_apart(old: dict[str, bytes], new: dict[str, bytes]) -> Iterator[PackChange]:
    for name in sorted({*old, *new}):
        one, two = _terms(old.get(name, b"")), _terms(new.get(name, b""))
        if two - one:
            yield PackChange(where=name, what=f"adds {', '.join(sorted(two - one))}")
        if one - two:
            yield PackChange(where=name, what=f"loses {', '.join(sorted(one - two))}")


def _templates(before: Policy, after: Policy) -> Iterator[PackChange]:
    for language in sorted({*before.templates, *after.templates}):
        where = f"templates/{language}.toml"
        if language not in before.templates or language not in after.templates:
            yield PackChange(where=where, what="is gone" if language in before.templates else "is new")
            continue
        old, new = before.templates[language].model_dump(), after.templates[language].model_dump()
        for table in old:
            one, two = (value if isinstance(value, dict) else {table: value} for value in (old[table], new[table]))
            for name in sorted(n for n in {*one, *two} if one.get(n) != two.get(n)):
                what = f"{name}: {_short(one.get(name, ''))} → {_short(two.get(name, ''))}"
                yield PackChange(where=f"{where} [{table}]", what=what)


def _outcome(before: Policy, after: Policy, case: Case) -> PackChange | None:
    """Return how a text fares otherwise than before, or None."""
    seen = []
    for policy in (before, after):
        verdict = judge(policy, case.task(policy.digest))
        out = " ".join(released.text for released in verdict.released)
        seen.append((case_action(case, verdict), out))
    (old_action, old_text), (new_action, new_text) = seen
    if old_action is new_action and old_text == new_text:
        return None
    what = f"{old_action.value} → {new_action.value}"
    if old_action is new_action:
        what = f"says {_short(old_text)} → {_short(new_text)}"
    who = "" if case.audience is Audience.CLINICIAN else f" ({case.audience.value})"
    return PackChange(where=f"{_short(case.text)}{who}", what=what)


def _key(case: Case) -> str:
    return case.model_copy(update={"action": None, "released": None, "fires": None, "kind": "firing"}).model_dump_json()


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…") if isinstance(value, str) else text
