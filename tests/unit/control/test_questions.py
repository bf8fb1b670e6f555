"""Questions about images over the control socket: real guard, real engine child, a plugin that does as it is asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import answering_engine
import pytest
from answering_engine import ANSWERING, NAME, NOTE, QUESTION, TEXT
from control_room import Room, control_room
from harness import wait_until
from sqlalchemy import text

from clinic_ai.control.question_client import QuestionClient
from clinic_ai.control.question_views import AskedView, AskOrder
from clinic_ai.control.views import Role
from clinic_ai.domain import Answer
from clinic_ai.errors import ChildDied, ChildMisbehaved, ChildTimedOut, ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.settings import QuestionSettings


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(answering_engine.__file__).parent))
        with control_room(tmp_path_factory.mktemp("r") / "h", ANSWERING) as made:
            made.guard.load()
            yield made


@pytest.fixture(autouse=True)
def as_before(room: Room) -> Iterator[None]:
    before = room.shared.settings
    yield
    room.shared.settings = before


def ask(room: Room, study: str, question: str = QUESTION, **order: object) -> AskedView:
    with QuestionClient(room.home) as client:
        return client.ask(study, AskOrder.model_validate({"question": question, **order}))


def kept(room: Room, study: str) -> list[AskedView]:
    with QuestionClient(room.home) as client:
        return client.questions(study)


def kill_guard(room: Room) -> None:
    assert room.guard.pid is not None
    os.kill(room.guard.pid, signal.SIGKILL)
    wait_until(lambda: room.guard.pid is None, "the end of the guard")


def everything_stored(room: Room) -> str:
    with room.database.read() as c:
        rows = [*c.execute(text("SELECT document FROM questions")), *c.execute(text("SELECT details FROM audit"))]
    return "\n".join(str(row[0]) for row in rows)


def test_an_answer_comes_with_its_certainty_its_notes_and_the_marks_of_the_pack(room: Room) -> None:
    study = room.add_study(stored=True)

    asked = ask(room, study)

    assert asked.outcome == "answered"
    assert asked.text == f"{QUESTION} {TEXT} The model's confidence in this answer is very high. {NOTE}"
    assert asked.marks
    assert (asked.image, asked.frame, asked.confidence) == (1, None, 0.93)
    assert kept(room, study) == [asked]
    with room.database.read() as c:
        row = c.execute(text("SELECT actor, details FROM audit WHERE action = 'study.question'")).one()
    assert row.actor == asked.asked_by
    assert json.loads(row.details)["outcome"] == "answered"
    assert "sharp" not in row.details


@pytest.mark.parametrize(
    ("question", "audience", "said"),
    [
        ("How big is it?", "clinician", "spacing"),
        ("Do I have cancer?", "patient", "care team"),
        ("Is it a boy or a girl?", "clinician", "sex of a fetus"),
        ("Is it a him?", "patient", "sex of a baby"),
    ],
)
def test_a_template_starts_no_engine(room: Room, question: str, audience: str, said: str) -> None:
    study = room.add_study(stored=True, modality="US" if "sex" in said else "CT")
    room.engines.close()

    asked = ask(room, study, question, audience=audience)

    assert asked.outcome == "template"
    assert said in asked.text
    assert asked.models == ()
    assert room.engines.views() == []


def test_a_looping_answer_is_held_and_kept_nowhere(room: Room) -> None:
    asked = ask(room, room.add_study(stored=True), "Is the picture grey?")

    assert (asked.outcome, asked.text) == ("held", "")
    assert asked.reason
    assert "Lungs, lungs" not in everything_stored(room)


def test_a_patient_reads_templates_only_and_a_technician_may_ask_for_one(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = room.add_study(stored=True)
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: Role.TECHNICIAN)

    asked = ask(room, study, audience="patient")
    refused = ask(room, study, "Is it dark?", audience="patient")

    assert asked.outcome == "answered"
    assert "care team" in asked.text
    assert TEXT not in asked.model_dump_json()
    assert refused.outcome == "refused"
    assert "too dark" not in refused.model_dump_json()
    with pytest.raises(NotAllowed, match="clinician"):
        ask(room, study)
    with pytest.raises(NotAllowed, match="clinician"):
        kept(room, study)


def test_text_burnt_into_an_ultrasound_keeps_no_words_back_for_no_picture_goes_with_them(room: Room) -> None:
    asked = ask(room, room.add_study(stored=True, modality="US"), audience="patient")

    assert (asked.outcome, "care team" in asked.text) == ("answered", True)
    assert not any("burnt" in mark for mark in asked.marks)


def test_the_monitor_socket_neither_asks_nor_tells(room: Room) -> None:
    study = room.add_study(stored=True)
    with QuestionClient(room.home, monitor=True) as client:
        with pytest.raises(NotAllowed):
            client.ask(study, AskOrder(question=QUESTION))
        with pytest.raises(NotAllowed):
            client.questions(study)


def test_a_refusal_in_words_goes_through_the_guard(room: Room) -> None:
    study = room.add_study(stored=True)

    asked = ask(room, study, "Is it dark?")
    named = ask(room, study, "Is it bright?")

    assert (asked.outcome, asked.reason, asked.remedy) == (
        "refused",
        "The picture is too dark.",
        "Send a brighter one.",
    )
    assert (named.outcome, named.reason) == ("refused", "[removed] is not suitable.")
    assert NAME not in everything_stored(room)


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("Is the picture turned?", ChildMisbehaved),
        ("Where does it end?", ChildDied),
        ("Must the picture wait?", ChildTimedOut),
    ],
)
def test_an_engine_that_lies_dies_or_hangs_is_buried_and_the_next_answers(
    room: Room, monkeypatch: pytest.MonkeyPatch, question: str, error: type[ClinicError]
) -> None:
    study = room.add_study(stored=True)
    monkeypatch.setattr("clinic_ai.engines.ANSWER_GRACE_S", 0.5)
    quick = QuestionSettings(answer_timeout_s=1)
    room.shared.settings = room.shared.settings.model_copy(update={"questions": quick})

    with pytest.raises(error):
        ask(room, study, question)

    assert room.engines.views() == []
    assert [(one.outcome, one.text) for one in kept(room, study)] == [("refused", "")]
    assert ask(room, study).outcome == "answered"


def test_a_question_waits_for_its_turn_and_then_says_that_the_engine_is_busy(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(room.engines).ask, "__kwdefaults__", {"wait_s": 0.05})
    study = room.add_study(stored=True)

    with room.engines._turn("answering"), pytest.raises(Conflict, match="busy"):
        ask(room, study)


def test_a_guard_that_is_gone_holds_everything(room: Room) -> None:
    study = room.add_study(stored=True)
    room.engines.close()
    room.guard.max_restarts = -1
    try:
        kill_guard(room)
        asked = ask(room, study)
    finally:
        room.guard.max_restarts = 5

    assert (asked.outcome, asked.text) == ("held", "")
    assert room.engines.views() == []


def test_a_guard_that_dies_before_it_judged_an_answer_holds_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    study, answered = room.add_study(stored=True), []
    asking = room.engines.ask

    def ask_and_kill(*task: Any) -> Answer:
        answered.append(asking(*task))
        monkeypatch.setattr(room.guard, "max_restarts", -1)
        kill_guard(room)
        return answered[0]

    monkeypatch.setattr(room.engines, "ask", ask_and_kill)
    asked = ask(room, study)

    assert [answer.text for answer in answered] == [TEXT]
    assert (asked.outcome, asked.text) == ("held", "")
    assert TEXT not in str([one.model_dump() for one in kept(room, study)])


def test_an_answer_is_judged_by_the_pack_that_let_its_question_through(
    room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study, asking, before = room.add_study(stored=True), room.engines.ask, room.guard.policy_hash
    pack = shutil.copytree(shipped_pack("default"), tmp_path / "other")
    (pack / "policy.toml").write_text((pack / "policy.toml").read_text() + "\n# edited\n")

    def ask_and_replace(*task: Any) -> Answer:
        answer = asking(*task)
        room.guard.reload(pack)
        return answer

    monkeypatch.setattr(room.engines, "ask", ask_and_replace)
    asked = ask(room, study)

    assert room.guard.policy_hash != before
    assert (asked.outcome, asked.text) == ("held", "")


def test_what_cannot_be_asked_about_is_said_with_what_to_do(room: Room) -> None:
    with pytest.raises(NotFound):
        ask(room, "S-20260101-AAAAAAAA")
    with pytest.raises(Conflict, match="still arriving"):
        ask(room, room.add_study(state="RECEIVING"))
    with pytest.raises(Conflict, match="answers questions") as nobody:
        ask(room, room.add_study(modality="DX"))
    assert "answering" in nobody.value.remedy
    gone = room.add_study(state="DONE")
    with room.database.write() as c:
        c.execute(text("UPDATE studies SET originals_removed_at = 1.0 WHERE study_id = :id"), {"id": gone})
    with pytest.raises(Conflict, match="removed by retention"):
        ask(room, gone)
    with pytest.raises(ClinicError, match="no frame 2"):
        ask(room, room.add_study(stored=True), frame=2)


def test_a_question_of_a_name_reaches_no_model_with_it(room: Room) -> None:
    """The model is asked the redacted question, and answers that one."""
    asked = ask(room, room.add_study(stored=True), f"Is the picture of {NAME.replace('^', ' ')} sharp?")

    assert "Doe" not in asked.text
