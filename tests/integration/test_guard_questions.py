"""Questions put to the real guard child: killed, hung, without a pack. Each time no model is asked."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic_ai.domain import Audience, GuardAction, ImageFacts, Released, StudyFacts
from clinic_ai.domain.words import MAX_QUESTION
from clinic_ai.guard.asking import QuestionTask, QuestionVerdict
from clinic_ai.guard.client import Guard, _implausible_answer
from clinic_ai.guard.intents import question_subject
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.processes import Crew

SUBJECT = question_subject(StudyFacts(), ImageFacts(), language="en")
ALERTS: list[str] = []


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return shutil.copytree(shipped_pack("default"), tmp_path / "trial")


@pytest.fixture
def guard(pack: Path) -> Iterator[Guard]:
    crew = Crew()
    ALERTS.clear()
    guard = Guard(crew, pack, timeout_s=2.0, on_alert=lambda code, *_: ALERTS.append(code))
    yield guard
    guard.close()
    crew.close()


def ask(guard: Guard, question: str = "Is my lung clear?") -> QuestionVerdict:
    return guard.ask(SUBJECT, Audience.PATIENT, question)


def assert_held(verdict: QuestionVerdict) -> None:
    assert (verdict.action, verdict.question, verdict.reply) == (GuardAction.HOLD, "", None)
    assert verdict.intent == "guard.unavailable"
    assert verdict.reason
    assert ALERTS[-1] == "guard_unavailable"


def test_a_living_guard_allows_or_answers(guard: Guard) -> None:
    assert ask(guard).question == "Is my lung clear?"
    told = ask(guard, "Do I have cancer?")
    assert told.reply is not None
    assert told.reply.sources == ("template:en/patient/question_alarming",)
    assert ask(guard, "a" * 10 * MAX_QUESTION).intent == "unclear"
    assert ALERTS == []


def test_a_killed_guard_holds_and_the_next_one_allows(guard: Guard) -> None:
    guard.load()
    assert guard.pid is not None
    os.kill(guard.pid, signal.SIGKILL)
    verdict = ask(guard)
    if verdict.action is GuardAction.HOLD:  # whether the death was seen before is chance
        assert_held(verdict)
        verdict = ask(guard)
    assert verdict.action is GuardAction.ALLOW


def test_a_hung_guard_holds(guard: Guard) -> None:
    guard.load()
    assert guard.pid is not None
    os.kill(guard.pid, signal.SIGSTOP)
    assert_held(ask(guard))


def test_a_broken_pack_holds(guard: Guard, pack: Path) -> None:
    (pack / "questions.toml").write_text("intent = []\ncase = []")
    assert_held(ask(guard))


def test_what_cannot_be_sent_is_held(guard: Guard) -> None:
    assert_held(ask(guard, "half a character: \ud800"))


def test_an_answer_that_no_sound_guard_gives_is_not_taken() -> None:
    task = QuestionTask(audience=Audience.PATIENT, subject=SUBJECT, question="x", policy_hash="a" * 64)
    reply = Released(
        statement_id="question",
        audience=Audience.PATIENT,
        text="Hi",
        sources=("template:en/patient/generic",),
        policy_hash="a" * 64,
    )
    good = QuestionVerdict(audience=Audience.PATIENT, action=GuardAction.REPLACE, reply=reply, policy_hash="a" * 64)
    assert _implausible_answer(good, task) == ""
    for update in (
        {"audience": Audience.CLINICIAN},
        {"policy_hash": "b" * 64},
        {"question": "Ask the model"},
        {"reply": None},
        {"reply": reply.model_copy(update={"sources": ()})},
        {"reply": reply.model_copy(update={"audience": Audience.CLINICIAN})},
        {"action": GuardAction.ALLOW},
        {"action": GuardAction.ALLOW, "reply": None},
    ):
        assert _implausible_answer(good.model_copy(update=update), task)
