"""Questions about images over the control socket: real guard, real engine child, a plugin that does as it is asked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import answering_engine
import pytest
from answering_engine import ANSWERING, NAME, NOTE, QUESTION, TEXT
from control_room import Room, control_room
from sqlalchemy import text

from clinic_ai.control.question_client import QuestionClient
from clinic_ai.control.question_views import AskedView, AskOrder
from clinic_ai.control.views import Role
from clinic_ai.errors import ChildDied, ChildMisbehaved, ChildTimedOut, ClinicError, Conflict, NotAllowed, NotFound
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


def test_a_template_starts_no_engine(room: Room) -> None:
    study = room.add_study(stored=True)
    room.engines.close()

    asked = ask(room, study, "How big is it?")

    assert asked.outcome == "template"
    assert "spacing" in asked.text
    assert asked.models == ()
    assert room.engines.views() == []


def test_a_looping_answer_is_held_and_kept_nowhere(room: Room) -> None:
    asked = ask(room, room.add_study(stored=True), "Is the picture grey?")

    assert (asked.outcome, asked.text) == ("held", "")
    assert asked.reason
    assert "cec" not in everything_stored(room)


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
        ("Must it wait?", ChildTimedOut),
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
        assert room.guard.pid is not None
        os.kill(room.guard.pid, 9)
        while room.guard.pid is not None:
            time.sleep(0.01)
        asked = ask(room, study)
    finally:
        room.guard.max_restarts = 5

    assert (asked.outcome, asked.text) == ("held", "")
    assert room.engines.views() == []


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
