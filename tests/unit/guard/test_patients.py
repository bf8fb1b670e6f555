"""What patients read, over the corpus and over any text at all: templates and glossary, and no word of a draft."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import Audience, Finding, GuardAction, PatientIdentity, Presence, Released, Statement, StudyFacts
from clinic_ai.guard.asking import QuestionTask
from clinic_ai.guard.engine import judge
from clinic_ai.guard.intents import question_subject
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.questions import ask
from clinic_ai.guard.reading import reading_grade
from clinic_ai.guard.templates import KINDS
from clinic_ai.guard.text import Text
from clinic_ai.guard.wording import ALL_WORDS
from clinic_ai.tasks import GuardSubject, GuardTask

CORPUS = Path(__file__).parent / "corpus"
STEMS: list[str] = tomllib.loads((CORPUS / "stems.toml").read_text())["stems"]
WHO = PatientIdentity(
    patient_name="Example^Maria", patient_id="PID-48213", birth_date="19610312", accession_number="ACC-99817"
)
PNEUMONIA = Finding(
    condition="pneumonia",
    label="Pneumonia",
    probability=0.82,
    threshold=0.5,
    presence=Presence.PRESENT,
    instance_sha256="0" * 64,
)


def drafts() -> Iterator[Any]:
    for path in sorted(CORPUS.glob("*.toml")):
        for group in tomllib.loads(path.read_text()).get("group", []):
            if group["kind"] == "draft":
                for text in group["texts"]:
                    yield pytest.param(text, group["language"], id=f"{path.stem}: {text[:40]}")


def task(policy: Policy, text: str, kind: str, language: str, finding: Finding | None = None) -> GuardTask:
    subject = GuardSubject(
        facts=StudyFacts(modalities=("DX",), body_parts=("CHEST",), slices=1),
        identity=WHO,
        findings=(PNEUMONIA,),
        validated=True,
        reference=False,
        signed_by="a named person",
        language=language,
    )
    statement = Statement.model_validate({"statement_id": "a_1", "kind": kind, "text": text, "finding": finding})
    return GuardTask(audience=Audience.PATIENT, subject=subject, statements=(statement,), policy_hash=policy.digest)


def told(policy: Policy, released: Released) -> str:
    """Return what the ids of a released text say that it must be, from the pack's files and nothing else."""
    slots: dict[str, str] = {}
    text = ""
    for source in released.sources:
        kind, _, name = source.partition(":")
        language, _, rest = name.partition("/")
        templates = policy.templates[language]
        if kind == "template":
            audience, _, template = rest.partition("/")
            assert audience == "patient"
            text = templates.patient[template]
        elif kind == "glossary":
            slots["condition"] = templates.glossary[rest]
        elif kind == "word":
            slots["word"] = templates.patient_words[rest]
    return text.format(**slots)


@pytest.mark.parametrize(("text", "language"), list(drafts()))
def test_every_sentence_for_a_patient_traces_to_the_pack_and_none_alarms(
    policy: Policy, text: str, language: str
) -> None:
    for kind in KINDS:
        verdict = judge(policy, task(policy, text, kind, language, PNEUMONIA if kind == "finding" else None))
        for released in verdict.released:
            assert released.text == told(policy, released)
            assert not [stem for stem in STEMS if stem in released.text.casefold()]
        assert verdict.released or verdict.action.severity >= GuardAction.HOLD.severity


def alarming() -> Iterator[Any]:
    for group in tomllib.loads((CORPUS / "alarming.toml").read_text())["group"]:
        if group["kind"] == "draft":
            for text in group["texts"]:
                if any(stem in text.casefold().replace(" ", "") for stem in STEMS):
                    yield pytest.param(text, group["language"], id=text[:60])


@pytest.mark.parametrize(("text", "language"), list(alarming()))
def test_a_draft_on_grave_illness_waits_for_a_person_in_either_polarity(
    policy: Policy, text: str, language: str
) -> None:
    assert judge(policy, task(policy, text, "answer", language)).action.severity >= GuardAction.HOLD.severity


def readable(policy: Policy) -> set[str]:
    """Return all texts that a patient could ever read about pneumonia: a set that knows no draft."""
    return {
        text.format(condition=t.glossary["pneumonia"], word=t.patient_words[word])
        for t in policy.templates.values()
        for text in t.patient.values()
        for word in ALL_WORDS
    }


@given(
    text=st.text(max_size=300) | st.text(alphabet="abcdefg .{}%:<>\u200b\u202e", max_size=100),
    kind=st.sampled_from(KINDS),
    language=st.sampled_from(["en", "de", "de-AT", "fr", ""]),
    probability=st.floats(0, 1),
    evidence=st.booleans(),
)
def test_no_text_leaks_into_what_a_patient_reads(
    policy: Policy, text: str, kind: str, language: str, probability: float, evidence: bool
) -> None:
    presence = Presence.PRESENT if probability >= 0.5 else Presence.ABSENT
    own = PNEUMONIA.model_copy(update={"probability": probability, "presence": presence})
    verdict = judge(policy, task(policy, text, kind, language, own if evidence else None))
    assert {r.text for r in verdict.released} <= readable(policy)
    asked = ask(
        policy,
        QuestionTask(
            audience=Audience.PATIENT,
            subject=question_subject(StudyFacts(), GuardSubject(facts=StudyFacts()).image, language=language),
            question=text,
            policy_hash=policy.digest,
        ),
    )
    assert asked.reply is None or asked.reply.text in readable(policy)
    assert (asked.action is GuardAction.ALLOW) is bool(asked.question)


def test_every_text_for_patients_is_short_easy_and_says_who_explains(policy: Policy) -> None:
    assert set(policy.templates) == {"en", "de"}
    for language, templates in policy.templates.items():
        for text in templates.patient.values():
            longest = max(templates.glossary.values(), key=len)
            spoken = text.format(condition=longest, word=max(templates.patient_words.values(), key=len))
            grade = reading_grade(Text(spoken), language)
            assert grade is not None
            assert grade <= 8
            assert len(spoken) <= 600
            assert templates.explains in spoken


def test_both_languages_are_complete(policy: Policy) -> None:
    english, german = policy.templates["en"], policy.templates["de"]
    for part in ("patient", "clinician", "technician", "marks", "glossary", "patient_words"):
        assert set(getattr(english, part)) == set(getattr(german, part))
    assert not {*english.patient.values()} & {*german.patient.values()}


def test_a_condition_without_an_entry_in_the_glossary_is_not_named(policy: Policy) -> None:
    rib = PNEUMONIA.model_copy(update={"condition": "bone_fracture", "label": "Fracture"})
    subject = task(policy, "x", "answer", "en").subject.model_copy(update={"findings": (rib,)})
    statement = Statement(statement_id="f_1", kind="finding", text="Fracture: likely.", finding=rib)
    verdict = judge(
        policy,
        GuardTask(audience=Audience.PATIENT, subject=subject, statements=(statement,), policy_hash=policy.digest),
    )
    assert [r.sources for r in verdict.released] == [("template:en/patient/finding",)]


@pytest.mark.parametrize(
    ("probability", "english", "german"),
    [
        (0.95, "most likely yes", "sehr wahrscheinlich ja"),
        (0.9, "likely yes", "eher ja"),
        (0.5, "maybe", "vielleicht"),
        (0.24, "unlikely", "eher nein"),
        (0.01, "very unlikely", "kaum"),
    ],
)
def test_probabilities_are_worded_in_the_language(
    policy: Policy, probability: float, english: str, german: str
) -> None:
    finding = PNEUMONIA.model_copy(update={"probability": probability})
    for language, word in (("en", english), ("de", german)):
        rendered: Callable[..., str | None] = policy.templates[language].render
        text = rendered(Audience.PATIENT, "finding", finding)
        assert text is not None
        assert f": {word}." in text
