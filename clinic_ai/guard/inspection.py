"""A pack for people to look at: its rules with the cases that prove them, and what sets two packs apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from clinic_ai.domain import Audience
from clinic_ai.guard.cases import Case
from clinic_ai.guard.engine import fired_rules, judge
from clinic_ai.guard.layers import laid_over
from clinic_ai.guard.packfiles import pack_texts, read_pack_files
from clinic_ai.guard.policy import Policy, build_policy
from clinic_ai.guard.proof import case_action, pack_info
from clinic_ai.tasks import PackChange, PackDescription, PackDifference, RuleCoverage

_TOLD = (
    "audiences",
    "scope",
    "kinds",
    "when",
    "action",
    "message",
    "template",
    "substitute",
    "row",
    "hazard",
    "shows_example",
)
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
        cases=tuple(f"{file} {number}" for file, number in policy.case_places),
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
        *_intents(before, after),
        *_terms_apart(dict(_lists(old_files)), dict(_lists(new_files))),
        *_templates(before, after),
    ]
    cases = dict.fromkeys(_key(c) for c in (*before.cases, *after.cases))
    fares = [(case, what) for key in cases if (what := _outcome(before, after, case := Case.model_validate_json(key)))]
    alike = Counter((case.text, case.audience) for case, _ in fares)
    outcomes = [
        PackChange(where=_named(case, alone=alike[case.text, case.audience] == 1), what=what) for case, what in fares
    ]
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
    one = {rule.entry.id: rule.entry for rule in before.rules}
    two = {rule.entry.id: rule.entry for rule in after.rules}
    yield from _entries("rule", one, two, {name: f"{rule.action.value}; {rule.hazard}" for name, rule in two.items()})


def _intents(before: Policy, after: Policy) -> Iterator[PackChange]:
    one = {intent.entry.id: intent.entry for intent in before.intents}
    two = {intent.entry.id: intent.entry for intent in after.intents}
    yield from _entries("intent", one, two, {name: intent.hazard for name, intent in two.items()})


def _entries(
    kind: str, old: Mapping[str, BaseModel], new: Mapping[str, BaseModel], told: Mapping[str, str]
) -> Iterator[PackChange]:
    """Yield what became of each rule or intent; ``told`` says what a new one does."""
    for name in sorted({*old, *new}):
        where = f"{kind} {name}"
        if name not in new:
            yield PackChange(where=where, what="is gone")
        elif name not in old:
            yield PackChange(where=where, what=f"is new: {told[name]}")
        else:
            one, two = old[name].model_dump(mode="json"), new[name].model_dump(mode="json")
            for field in (n for n in _TOLD if one.get(n) != two.get(n)):
                yield PackChange(where=where, what=f"{field}: {_apart(one[field], two[field])}")


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
                what = f"{name}: {_apart(one.get(name, ''), two.get(name, ''))}"
                yield PackChange(where=f"{where} [{table}]", what=what)


def _outcome(before: Policy, after: Policy, case: Case) -> str:
    """Return how a text fares otherwise than before; empty if it does not."""
    seen = []
    for policy in (before, after):
        verdict = judge(policy, case.task(policy.digest))
        out = " ".join(released.text for released in verdict.released)
        seen.append((case_action(case, verdict), out))
    (old_action, old_text), (new_action, new_text) = seen
    if old_action is not new_action:
        return f"{old_action.value} → {new_action.value}"
    return "" if old_text == new_text else f"says {_apart(old_text, new_text)}"


def _named(case: Case, *, alone: bool) -> str:
    """Return the text of a case; one that is not alone with its words with what stands beside it."""
    told = [] if case.audience is Audience.CLINICIAN else [case.audience.value]
    if not alone:  # what stands beside the text sets it apart from the others of the same words
        told.append(f"case of {case.rule}")
        beside = case.model_dump(mode="json", exclude_defaults=True, exclude={"rule", "kind", "audience", "text"})
        told += [f"{name} {_toml(value)}" for name, value in beside.items()]
    who = f" ({'; '.join(told)})" if told else ""
    return f"{_short(case.text)}{who}"


def _key(case: Case) -> str:
    return case.model_copy(update={"action": None, "released": None, "fires": None, "kind": "firing"}).model_dump_json()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _apart(old: object, new: object) -> str:
    """Return "old → new", long values cut so that the first place where they differ is shown."""
    one, two = (value if isinstance(value, str) else _toml(value) for value in (old, new))
    differing = (at for at, (left, right) in enumerate(zip(one, two, strict=False)) if left != right)
    same = next(differing, min(len(one), len(two)))
    start = max(0, same - _SHOWN // 3) if max(len(one), len(two)) > _SHOWN else 0
    shown = []
    for text, value in ((one, old), (two, new)):
        end = start + _SHOWN
        cut = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
        shown.append(repr(cut) if isinstance(value, str) else cut)
    return " → ".join(shown)


def _toml(value: object) -> str:
    """Return a value as it would stand in the pack."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items() if inner is not None) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
