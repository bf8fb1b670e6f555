"""What may be asked of ultrasound images, and that the sex of a fetus is told to nobody unless the clinic allows it."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from clinic_ai.domain import Audience, GuardAction, GuardVerdict, ImageFacts, Statement, StudyFacts
from clinic_ai.errors import PolicyError
from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
from clinic_ai.guard.engine import judge
from clinic_ai.guard.inspection import compare_packs
from clinic_ai.guard.intents import QuestionSubject, question_subject
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.guard.questions import ask
from clinic_ai.tasks import GuardSubject, GuardTask

HERE = Path(__file__).parent
SETS = sorted((HERE / "ultrasound").glob("*.toml"))
IMAGES = tomllib.loads((HERE / "corpus" / "images.toml").read_text())
CATEGORIES = HERE.parents[2] / "plugins" / "ultrasound" / "clinic_ai_ultrasound" / "categories.toml"
LEAST = {"first": 0.98, "second": 0.98, "third": 0.9, "fourth": 0.98}
"""Of each set what must be told apart; the lists learned from all but the third."""
ULTRASOUND = StudyFacts(modalities=("US",), slices=1)


class Asked(NamedTuple):
    """A question of a set."""

    text: str
    image: str
    language: str
    audience: Audience
    answerable: bool


def asked_in(path: Path) -> Iterator[Asked]:
    for group in tomllib.loads(path.read_text())["group"]:
        about = group["image"], group.get("language", "en"), Audience(group["audience"]), group.get("answerable", False)
        yield from (Asked(text, *about) for text in group["texts"])


def facts_of(image: str) -> StudyFacts:
    of = IMAGES[image]
    return StudyFacts(modalities=(of["modality"],), body_parts=(of["body_part"],), slices=of["slices"])


def put(
    policy: Policy,
    text: str,
    facts: StudyFacts = ULTRASOUND,
    audience: Audience = Audience.CLINICIAN,
    *,
    calibrated: bool = False,
    language: str = "en",
) -> QuestionVerdict:
    about: QuestionSubject = question_subject(facts, ImageFacts(calibrated=calibrated, priors=0), language=language)
    return ask(policy, QuestionTask(audience=audience, subject=about, question=text, policy_hash=policy.digest))


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_most_questions_of_every_set_are_told_apart(policy: Policy, path: Path) -> None:
    asked = list(asked_in(path))
    verdicts = [put(policy, q.text, facts_of(q.image), q.audience, language=q.language) for q in asked]
    right = [(v.action is GuardAction.ALLOW) is q.answerable for q, v in zip(asked, verdicts, strict=True)]
    wrong = [(q.text, v.intent or "allowed") for q, v, ok in zip(asked, verdicts, right, strict=True) if not ok]
    print(f"\n{path.stem}: {len(wrong)} of {len(asked)} wrong", *wrong, sep="\n  ")
    for kind in (True, False):
        of_kind = [ok for q, ok in zip(asked, right, strict=True) if q.answerable is kind]
        assert sum(of_kind) >= LEAST[path.stem] * len(of_kind)


def test_every_standard_question_of_the_plugin_reaches_the_model(policy: Policy) -> None:
    categories = tomllib.loads(CATEGORIES.read_text())["category"]
    asked = [
        (question, StudyFacts(modalities=("US",), body_parts=tuple(filter(None, [part])), slices=1))
        for category in categories
        for question in category["questions"]
        for part in ("", *category.get("body_parts", ()))
    ]
    assert len(asked) >= len(categories)
    refused = [
        (q, f.body_parts, v.intent) for q, f in asked if (v := put(policy, q, f)).action is not GuardAction.ALLOW
    ]
    assert refused == []


def test_a_trimester_is_an_estimate_by_eye_and_an_age_is_not(policy: Policy) -> None:
    assert put(policy, "Which trimester is the fetus in?").action is GuardAction.ALLOW
    assert put(policy, "What is the gestational age?").intent == "fetal-age"
    assert put(policy, "What is the gestational age?", calibrated=True).action is GuardAction.ALLOW
    assert put(policy, "How long is the femur?").intent == "size"
    assert put(policy, "How long is the femur?", calibrated=True).action is GuardAction.ALLOW


def test_an_x_ray_may_be_asked_whether_a_pelvis_is_male(policy: Policy) -> None:
    question = "Is this a male pelvis?"
    x_ray = StudyFacts(modalities=("DX",), body_parts=("PELVIS",), slices=1)
    assert put(policy, question, x_ray).action is GuardAction.ALLOW
    assert put(policy, question).intent == "fetal-sex"
    assert put(policy, question, StudyFacts(slices=1)).intent == "fetal-sex"  # a PNG need not say what it is


@pytest.mark.parametrize("audience", [Audience.CLINICIAN, Audience.PATIENT])
@pytest.mark.parametrize("text", ["The fetus is male.", "It is a girl.", "boy", "Kein Junge, ein Mädchen."])
def test_an_answer_that_tells_the_sex_is_held(say: Callable[..., GuardVerdict], text: str, audience: Audience) -> None:
    verdict = say(text, audience=audience, facts=ULTRASOUND)
    assert verdict.action is GuardAction.HOLD
    assert verdict.released == ()
    assert "fetal-sex-told" in {decision.rule for decision in verdict.decisions}


def test_of_many_answers_those_that_tell_the_sex_are_held_and_no_others(say: Callable[..., GuardVerdict]) -> None:
    telling, harmless = (
        (HERE / "ultrasound" / "answers" / f"{kind}.txt").read_text().splitlines() for kind in ("telling", "harmless")
    )
    told = [text for text in telling if say(text, facts=ULTRASOUND).action is not GuardAction.HOLD]
    held = [text for text in harmless if say(text, facts=ULTRASOUND).action.severity >= GuardAction.HOLD.severity]
    assert (told, held) == ([], [])


def test_the_same_words_on_an_x_ray_are_not_held(say: Callable[..., GuardVerdict]) -> None:
    assert say("The pelvis is male.", facts=StudyFacts(modalities=("DX",))).action is not GuardAction.HOLD


# ---------------------------------------------------------------- a clinic that may tell

PAGE = HERE.parents[2] / "docs" / "guard.md"


@pytest.fixture
def may_tell(tmp_path: Path) -> Path:
    """Write the pack that the page shows beside the default pack."""
    part = PAGE.read_text().partition("## The sex of a fetus")[2].partition("\n## ")[0]
    head, cases = re.findall(r"^```toml\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    shutil.copytree(shipped_pack("default"), tmp_path / "default")
    pack = tmp_path / "may-tell"
    pack.mkdir()
    (pack / "policy.toml").write_text(head)
    (pack / "cases.toml").write_text(cases)
    return pack


def test_a_clinic_that_may_tell_leaves_the_rule_and_the_intent_out(policy: Policy, may_tell: Path) -> None:
    ours = load_policy(may_tell)
    question = "What is the sex of the fetus?"
    assert put(policy, question).intent == "fetal-sex"
    assert put(ours, question).action is GuardAction.ALLOW
    assert put(ours, "How long is the femur?").intent == "size"  # all else is as in the pack it extends
    subject = GuardSubject(facts=ULTRASOUND, validated=True, reference=False, signed_by="a person")
    said = Statement(statement_id="a_1", kind="answer", text="The fetus is male.")
    task = GuardTask(audience=Audience.CLINICIAN, subject=subject, statements=(said,), policy_hash=ours.digest)
    assert [released.text for released in judge(ours, task).released] == ["The fetus is male."]


def test_the_difference_of_two_packs_names_the_intents_that_are_gone_or_changed(may_tell: Path) -> None:
    default = may_tell.parent / "default"
    changes = {(change.where, change.what) for change in compare_packs(default, may_tell).changes}
    assert {("intent fetal-sex", "is gone"), ("rule fetal-sex-told", "is gone")} == changes
    (back,) = [c for c in compare_packs(may_tell, default).changes if c.where == "intent fetal-sex"]
    assert back.what == "is new: The sex of a fetus is told where the law or the clinic forbids it."
    changed = shutil.copytree(default, may_tell.parent / "changed")
    questions = changed / "questions.toml"
    questions.write_text(questions.read_text().replace("maximum = 500", "maximum = 400"))
    (change,) = compare_packs(default, changed).changes
    assert change.where == "intent unclear"
    assert "maximum = 500" in change.what
    assert "maximum = 400" in change.what


def test_a_wrong_name_of_an_intent_keeps_the_pack_from_loading(may_tell: Path) -> None:
    path = may_tell / "policy.toml"
    path.write_text(path.read_text().replace('["fetal-sex"]', '["fetal-sx"]'))
    with pytest.raises(PolicyError, match="without_intents: default has no intent fetal-sx"):
        load_policy(may_tell)


def test_a_pack_with_questions_of_its_own_leaves_no_intent_out(may_tell: Path) -> None:
    shutil.copy(may_tell.parent / "default" / "questions.toml", may_tell / "questions.toml")
    with pytest.raises(PolicyError, match=r"has a questions\.toml of its own; take the intents out of it there"):
        load_policy(may_tell)
