"""Contradictions of presence, side, size, number and level put into sentences that no template of ours produced.

Most sentences are built here from a radiologist's turns of phrase, with the evidence that makes them true. Each is then
made false, or the evidence is, and the guard has to say so; left true, it has to keep quiet. ``contradictions-*.toml``
hold snippets by people who had not seen the word lists.
"""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from clinic_ai.domain import Audience, Finding, Mask, Presence, Statement, StudyFacts
from clinic_ai.guard.detectors import View
from clinic_ai.guard.engine import fired_rules
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.text import Text
from clinic_ai.tasks import GuardSubject, GuardTask

SNIPPETS = sorted((Path(__file__).parent / "wordings").glob("contradictions-*.toml"))
KEYS = {
    "nodule": "lung_nodule",
    "fracture": "bone_fracture",
    "edema": "pulmonary_edema",
    "calcification": "arterial_wall_calcification",
}
OTHER_SIDE = {"left": "right", "right": "left"}
FLAGS = {"contradiction", "other-number", "other-level"}
SIDED = {
    "pleural_effusion": ["pleural effusion", "effusion", "pleural fluid"],
    "pneumothorax": ["pneumothorax"],
    "lung_nodule": ["nodule", "pulmonary nodule", "lung nodule"],
    "consolidation": ["consolidation", "airspace consolidation"],
    "atelectasis": ["atelectasis", "subsegmental atelectasis"],
}
BARE = {"cardiomegaly": ["cardiomegaly"], "emphysema": ["emphysema"], "hiatal_hernia": ["hiatal hernia"]}
FIRST = [
    "The trachea is midline. ",
    "",
    "",
    "Compared with what one expects at this age, little is remarkable. ",
    "Supine film. ",
]
LAST = ["", " The bony thorax is intact.", " Correlate clinically.", " The mediastinum is not widened."]
SIZE_WORDS = ["small", "moderate", "sizeable", "ill-defined", "subtle", "large"]
AFFIRM_SIDE = [
    "There is a {a} {side} {c}.",
    "A {a} {c} is seen on the {side}.",
    "{side}-sided {c}, {a}.",
    "Interval appearance of a {a} {c} in the {side} hemithorax.",
    "{a} {c} at the {side} base without mass effect.",
    "On the {side} one notes a {a} {c}; nothing else.",
]
AFFIRM = ["There is {c}.", "Findings in keeping with {c}.", "{c} is again evident.", "The appearance is that of {c}."]
DENY = [
    "No {c}.",
    "There is no evidence of {c}.",
    "No acute fracture, free air, or {c} is identified.",
    "{c} is not seen.",
    "The study is negative for {c}.",
    "Neither {c} nor free air.",
    "The lungs are free of {c}.",
    "{c} was not observed.",
]
SIZED = [
    "There is a {n} mm {c} in the {side} lung.",
    "A {c} measuring {cm} cm lies on the {side}.",
    "{side} {c}, {n} x {less} mm.",
    "A {side} {c} is present. It measures {n} mm.",
    "{c} ({n} millimetres) on the {side}.",
]
NUMBERS = ["two", "three", "four", "five"]
COUNTED = ["There are {k} nodules.", "{k} pulmonary nodules are seen.", "One counts {k} small lung nodules."]
VERTEBRAE = ["t5", "t7", "t9", "t11", "l1", "l3"]
LEVELS = ["Compression fracture of {v}.", "There is a wedge-shaped fracture at {v}.", "{v} shows a fracture."]


class Pair(NamedTuple):
    """A true sentence and a false one, each with its evidence."""

    true: tuple[str, GuardSubject]
    false: tuple[str, GuardSubject]


def finding(key: str, present: bool, side: str = "") -> Finding:
    presence = Presence.PRESENT if present else Presence.ABSENT
    known = {"label": key.replace("_", " "), "probability": 0.95 if present else 0.02, "threshold": 0.5}
    return Finding.model_validate(
        {**known, "condition": key, "presence": presence, "laterality": side, "instance_sha256": "0" * 64}
    )


def about(*evidence: Finding | Mask) -> GuardSubject:
    findings = tuple(e for e in evidence if isinstance(e, Finding))
    masks = tuple(e for e in evidence if isinstance(e, Mask))
    return GuardSubject(facts=StudyFacts(slices=40), findings=findings, masks=masks)


def cased(rng: random.Random, sentence: str) -> str:
    return rng.choice(FIRST) + sentence[0].upper() + sentence[1:] + rng.choice(LAST)


def presence(rng: random.Random) -> Pair:
    key, names = rng.choice(list({**SIDED, **BARE}.items()))
    affirms = rng.random() < 0.5
    said = cased(rng, rng.choice(AFFIRM if affirms else DENY).format(c=rng.choice(names)))
    return Pair((said, about(finding(key, affirms))), (said, about(finding(key, not affirms))))


def side(rng: random.Random) -> Pair:
    key, names = rng.choice(list(SIDED.items()))
    right = rng.choice(["left", "right"])
    wrong = "left" if right == "right" else "right"
    turn, word, name = rng.choice(AFFIRM_SIDE), rng.choice(SIZE_WORDS), rng.choice(names)
    true, false = (cased(rng, turn.format(a=word, side=s, c=name)) for s in (right, wrong))
    evidence = (
        about(finding(key, True, right))
        if rng.random() < 0.5
        else about(Mask.model_validate({"name": key, "side": right}))
    )
    return Pair((true, evidence), (false, evidence))


def size(rng: random.Random) -> Pair:
    key, names = rng.choice([(k, n) for k, n in SIDED.items() if k in {"lung_nodule", "consolidation"}])
    right = rng.randint(8, 60)
    wrong = right * 2 if rng.random() < 0.5 else right * 10
    turn, where, name = rng.choice(SIZED), rng.choice(["left", "right"]), rng.choice(names)
    true, false = (
        cased(rng, turn.format(n=n, cm=n / 10, less=max(1, n - 4), side=where, c=name)) for n in (right, wrong)
    )
    evidence = about(Mask.model_validate({"name": key, "side": where, "size_mm": right + rng.uniform(-1, 1)}))
    return Pair((true, evidence), (false, evidence))


def number(rng: random.Random) -> Pair:
    right, wrong = rng.sample(range(len(NUMBERS)), 2)
    turn = rng.choice(COUNTED)
    written = [rng.choice([NUMBERS[n], str(n + 2)]) for n in (right, wrong)]
    true, false = (cased(rng, turn.format(k=k)) for k in written)
    evidence = about(Mask(name="lung_nodule", count=right + 2))
    return Pair((true, evidence), (false, evidence))


def level(rng: random.Random) -> Pair:
    right, wrong = rng.sample(VERTEBRAE, 2)
    turn = rng.choice(LEVELS)
    true, false = (cased(rng, turn.format(v=v.upper())) for v in (right, wrong))
    evidence = about(Mask(name="bone_fracture", level=right.upper()))
    return Pair((true, evidence), (false, evidence))


def pairs(make: Callable[[random.Random], Pair], number_of: int) -> Iterator[Pair]:
    rng = random.Random(f"{make.__name__} 4711")
    return (make(rng) for _ in range(number_of))


@pytest.mark.parametrize("make", [presence, side, size, number, level], ids=lambda make: make.__name__)
def test_contradictions_are_flagged_and_true_sentences_are_not(
    policy: Policy, make: Callable[[random.Random], Pair], record_property: Callable[[str, object], None]
) -> None:
    def flagged(text: str, subject: GuardSubject) -> bool:
        statement = Statement(statement_id="a_1", kind="answer", text=text)
        task = GuardTask(
            audience=Audience.CLINICIAN, subject=subject, statements=(statement,), policy_hash=policy.digest
        )
        return bool(fired_rules(policy, task) & FLAGS)

    made = list(pairs(make, 400))
    missed = [pair.false[0] for pair in made if not flagged(*pair.false)]
    wrongly = [pair.true[0] for pair in made if flagged(*pair.true)]
    record_property("false_flag_rate", len(wrongly) / len(made))
    print(f"{make.__name__}: {1 - len(missed) / len(made):.1%} flagged, false flags {len(wrongly) / len(made):.1%}")
    assert len(missed) <= 0.05 * len(made), missed[:10]
    assert len(wrongly) <= 0.05 * len(made), wrongly[:10]


def held_against(policy: Policy, text: str, evidence: Finding | Mask) -> bool:
    """Whether a rule of presence, side or size fires; a mask made up for its size knows of no number."""
    statement = Statement(statement_id="a_1", kind="answer", text=text)
    view = View(Audience.CLINICIAN, about(evidence), statement, Text(text))
    fired = {r.entry.id: flag for r in policy.rules if r.entry.id in FLAGS and (flag := r.judge(view))}
    if isinstance(evidence, Mask):
        fired = {rule: flag for rule, flag in fired.items() if "size" in flag.reason}
    return bool(fired)


def against(item: dict[str, str]) -> Iterator[tuple[str, Finding | Mask, Finding | Mask]]:
    """Return kind, evidence that agrees with a snippet and evidence that does not."""
    key, present, lies = KEYS.get(item["condition"], item["condition"]), item["says"] == "present", item.get("side", "")
    yield "presence", finding(key, present, lies if present else ""), finding(key, not present)
    if present and lies in OTHER_SIDE:
        yield "side", finding(key, True, lies), finding(key, True, OTHER_SIDE[lies])
    if present and "size_mm" in item:
        for factor in (2, 0.5):
            masks = [{"name": key, "side": lies, "size_mm": float(item["size_mm"]) * f} for f in (1, factor)]
            right, wrong = (Mask.model_validate(m) for m in masks)
            yield "size", right, wrong


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_snippets_by_somebody_who_had_not_seen_the_lists(policy: Policy, path: Path) -> None:
    total, missed, wrongly = Counter[str](), Counter[str](), Counter[str]()
    told: list[str] = []
    for item in tomllib.loads(path.read_text())["item"]:
        for kind, right, wrong in against(item):
            total[kind] += 1
            if not held_against(policy, item["text"], wrong):
                missed[kind] += 1
                told.append(f"missed {kind}: {item['text']}")
            if held_against(policy, item["text"], right):
                wrongly[kind] += 1
                told.append(f"falsely {kind}: {item['text']}")
    for kind, of in total.items():
        print(f"{kind}: {1 - missed[kind] / of:.1%} of {of} flagged, false flags {wrongly[kind] / of:.1%}")
    assert set(total) == {"presence", "side", "size"}
    for kind, of in total.items():
        assert missed[kind] <= 0.05 * of, told
        assert wrongly[kind] <= 0.04 * of, told
