"""Which questions a model is asked, over the corpus; print over-blocking with ``pytest -s``."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clinic_ai.domain import Audience, GuardAction, ImageFacts, PatientIdentity, StudyFacts
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.errors import PolicyError
from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
from clinic_ai.guard.examples import fitting, load_examples
from clinic_ai.guard.intents import HealthyExample, QuestionSubject, question_subject
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.guard.questions import ask

CORPUS = Path(__file__).parent / "corpus"
WORDINGS = Path(__file__).parent / "wordings"
STRANGERS = sorted(p for p in WORDINGS.glob("*.toml") if not p.stem.startswith("contradictions"))
IMAGES: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "images.toml").read_text())
EXAMPLE = HealthyExample(
    example_id="chest-pa", modality="DX", body_part="CHEST", view="PA", image="chest-pa.png", approved_by="Dr. A"
)


class Asked(NamedTuple):
    """A question of the corpus."""

    hazard: str
    text: str
    answerable: bool
    subject: QuestionSubject


def questions(*paths: Path) -> Iterator[Asked]:
    for path in paths or sorted(CORPUS.glob("*.toml")):
        for group in tomllib.loads(path.read_text()).get("group", []):
            if group["kind"] == "question":
                about = subject(group["image"], language=group["language"])
                for text in group["texts"]:
                    yield Asked(path.stem, text, group.get("answerable", False), about)


def subject(image: str = "chest-xray", *, language: str = "en", example: HealthyExample | None = EXAMPLE) -> Any:
    facts = IMAGES[image]
    return question_subject(
        StudyFacts(
            modalities=(facts["modality"],),
            body_parts=(facts["body_part"],),
            views=(facts["view"],),
            slices=facts["slices"],
        ),
        ImageFacts(calibrated=facts["spacing"], priors=int(facts["prior"])),
        language=language,
        identity=PatientIdentity(patient_name="Example^Maria", patient_id="PID-48213"),
        example=example,
    )


def put(
    policy: Policy, text: str, about: QuestionSubject | None = None, audience: Audience = Audience.PATIENT
) -> QuestionVerdict:
    task = QuestionTask(audience=audience, subject=about or subject(), question=text, policy_hash=policy.digest)
    return ask(policy, task)


def answered(verdict: QuestionVerdict) -> bool:
    """Whether the question was let through, or answered with the picture that was asked for."""
    return verdict.action is GuardAction.ALLOW or verdict.example is not None


def test_the_corpus_is_large_enough() -> None:
    texts = [
        text
        for path in CORPUS.glob("*.toml")
        for group in tomllib.loads(path.read_text()).get("group", [])
        for text in group["texts"]
    ]
    assert len(set(texts)) >= 300


def test_harmless_answerable_questions_are_answered(policy: Policy) -> None:
    harmless = [q for q in questions() if q.answerable]
    refused = [(q.text, put(policy, q.text, q.subject).intent) for q in harmless]
    refused = [(text, intent) for text, intent in refused if intent not in {"", "healthy-example"}]
    print(f"\nover-blocked: {len(refused)} of {len(harmless)}", *refused, sep="\n  ")
    assert len(refused) <= 0.05 * len(harmless)


REFUSED = [pytest.param(q, id=f"{q.hazard}: {q.text[:40]}") for q in questions() if not q.answerable]


@pytest.mark.parametrize("asked", REFUSED)
def test_no_model_is_asked_what_it_cannot_or_must_not_answer(policy: Policy, asked: Asked) -> None:
    verdict = put(policy, asked.text, asked.subject)
    assert (verdict.action, verdict.question) == (GuardAction.REPLACE, "")
    assert verdict.reply is not None
    (source,) = verdict.reply.sources
    kind, _, name = source.partition("/")
    assert kind == f"template:{asked.subject.language}"
    assert verdict.reply.text == policy.templates[asked.subject.language].patient[name.removeprefix("patient/")]


@pytest.mark.parametrize("path", STRANGERS, ids=lambda path: path.stem)
def test_what_strangers_to_the_pack_taught_it_stays_learned(policy: Policy, path: Path) -> None:
    asked = list(questions(path))
    right = [q for q in asked if answered(put(policy, q.text, q.subject)) is q.answerable]
    harmless, harmful = ([q for q in asked if q.answerable is kind] for kind in (True, False))
    answered_right = sum(q in right for q in harmless)
    refused_right = sum(q in right for q in harmful)
    print(f"\n{path.stem}: {answered_right} of {len(harmless)} answered, {refused_right} of {len(harmful)} refused")
    assert answered_right >= 0.95 * len(harmless)
    assert refused_right >= 0.95 * len(harmful)


def test_what_the_image_can_tell_decides(policy: Policy) -> None:
    size = "How big is the shadow in the left lung?"
    assert put(policy, size).intent == "size"
    assert put(policy, size, subject("chest-xray-calibrated")).action is GuardAction.ALLOW
    change = "Has it changed since last time?"
    assert put(policy, change).intent == "comparison"
    assert put(policy, change, subject("chest-xray-with-prior")).action is GuardAction.ALLOW
    depth = "Can I see my lungs in 3D?"
    assert put(policy, depth).intent == "volume"
    assert put(policy, depth, subject("chest-ct")).action is GuardAction.ALLOW


def test_clinicians_may_ask_of_grave_illness_but_not_of_what_no_image_tells(policy: Policy) -> None:
    assert put(policy, "Is there a tumor?", audience=Audience.CLINICIAN).action is GuardAction.ALLOW
    assert put(policy, "How big is the tumor?", audience=Audience.CLINICIAN).intent == "size"
    told = put(policy, "Is there a tumor?", audience=Audience.TECHNICIAN)
    assert told.reply is not None
    assert told.reply.sources == ("template:en/technician/answer",)


def test_the_model_gets_the_question_without_personal_data_and_hidden_characters(policy: Policy) -> None:
    verdict = put(policy, "I am Maria Example,\u200b PID-48213.\nIs my heart \uff4e\uff4f\uff52\uff4d\uff41\uff4c?")
    assert verdict.question == "I am , . Is my heart normal?"


def test_a_healthy_example_is_shown_only_if_the_clinic_supplies_one(policy: Policy) -> None:
    wish = "What does a healthy lung look like?"
    shown = put(policy, wish)
    assert shown.example == EXAMPLE
    assert shown.reply is not None
    assert "another person" in shown.reply.text
    none = put(policy, wish, subject(example=None))
    assert (none.example, none.intent) == (None, "no-healthy-example")


def test_a_question_about_nothing_on_a_picture_is_told_which_words_it_lacks(policy: Policy) -> None:
    task = QuestionTask(
        audience=Audience.PATIENT, subject=subject(), question="Who is the king of Spain?", policy_hash=policy.digest
    )
    verdict = ask(policy, task)
    assert verdict.intent == "scope"
    assert verdict.reason == (
        "none of this was found: a term of the list 'question-scope'; a term of the list 'findings'; "
        "a term of the list 'body-parts'; a term of the list 'alarming'; a term of the list 'alarming-de'"
    )


def test_a_question_in_a_language_the_pack_lacks_is_told_which_it_has(policy: Policy) -> None:
    about = subject(language="fr")
    task = QuestionTask(
        audience=Audience.PATIENT, subject=about, question="Do I have cancer?", policy_hash=policy.digest
    )
    verdict = ask(policy, task)
    assert verdict.action is GuardAction.HOLD
    assert verdict.reason == "The pack has no templates/fr.toml; its languages are de, en."


def test_a_very_long_question_is_not_understood(policy: Policy) -> None:
    assert put(policy, "Is my lung clear? " * (MAX_QUESTION // 20)).intent == "unclear"
    assert put(policy, "\ufdfa" * MAX_QUESTION).intent == "unclear"  # eighteen characters each, once folded


def test_another_pack_or_one_without_questions_holds(policy: Policy, tmp_path: Path) -> None:
    task = QuestionTask(audience=Audience.PATIENT, subject=subject(), question="Is it ok?", policy_hash="0" * 64)
    assert ask(policy, task).action is GuardAction.HOLD
    pack = shutil.copytree(shipped_pack("default"), tmp_path / "silent")
    (pack / "questions.toml").unlink()
    assert put(load_policy(pack), "Is my lung clear?").action is GuardAction.HOLD


def test_an_intent_without_its_cases_or_its_answer_keeps_the_pack_from_loading(tmp_path: Path) -> None:
    pack = shutil.copytree(shipped_pack("default"), tmp_path / "trial")
    path = pack / "questions.toml"
    content = path.read_text()
    path.write_text(content.replace('text = "Who is the king of Spain?"', 'text = "Is my lung clear?"'))
    with pytest.raises(PolicyError, match=r"questions.toml, case .*: the question is taken for 'allowed'"):
        load_policy(pack)
    path.write_text(content.replace('intent = "size"\nkind = "mutation"', 'intent = "size"\nkind = "firing"'))
    with pytest.raises(PolicyError, match="intent size has no mutation case"):
        load_policy(pack)
    path.write_text(content.replace('template = "question_size"', 'template = "question_sizes"'))
    with pytest.raises(PolicyError, match=r"intent size: templates/de.toml has no \[patient\] question_sizes"):
        load_policy(pack)


# ---------------------------------------------------------------- healthy examples

FACTS = """
modality = "DX"
body_part = "CHEST"
view = "PA"
image = "chest-pa.png"
sha256 = "{digest}"
approved_by = "Dr. A"
approved_on = 2026-01-12
"""


def test_an_example_counts_while_it_is_the_approved_picture(tmp_path: Path) -> None:
    picture = tmp_path / "chest-pa.png"
    picture.write_bytes(b"picture")
    (tmp_path / "chest-pa.toml").write_text(FACTS.format(digest=hashlib.sha256(b"picture").hexdigest()))
    assert load_examples(tmp_path) == ((EXAMPLE,), ())
    picture.write_bytes(b"another")
    examples, problems = load_examples(tmp_path)
    assert examples == ()
    assert "chest-pa.toml is not shown: chest-pa.png is not the picture that was approved" in problems[0]
    picture.unlink()
    assert "No such file" in load_examples(tmp_path)[1][0]
    (tmp_path / "chest-pa.toml").write_text("modality = 1")
    assert "approved_by" in load_examples(tmp_path)[1][0]


def test_no_folder_means_no_example(tmp_path: Path) -> None:
    assert load_examples(tmp_path / "none") == ((), ())


def test_an_example_fits_the_same_modality_part_and_view_only() -> None:
    facts = subject().facts
    assert fitting([EXAMPLE], facts) == EXAMPLE
    for other in ({"modalities": ("CR",)}, {"body_parts": ("HEAD",)}, {"views": ("LATERAL",)}, {"views": ()}):
        assert fitting([EXAMPLE], facts.model_copy(update=other)) is None
    assert fitting([EXAMPLE], facts.model_copy(update={"views": ("PA", "LATERAL")})) is None
