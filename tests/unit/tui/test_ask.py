"""The screen of questions: what it shows, what it sends, and that nobody has to wait in front of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from review_exhibit import told
from screens import NOW, SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from clinic_ai.control.category_views import CategoryRow
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.question_views import AskedView, AskOrder
from clinic_ai.control.views import (
    ImageCategory,
    PluginsView,
    Role,
    StatusView,
    StudyPage,
    StudyRow,
    StudyView,
    TopicView,
    VersionView,
)
from clinic_ai.domain import StudyFacts, StudyState
from clinic_ai.errors import ChildTimedOut
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.screens import Choose, Prompt

STUDY = "S-20261121-7F3K9QXB"
QUESTION = "Is the liver enlarged?"
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def study(images: int = 1) -> StudyView:
    row = StudyRow(
        study_id=STUDY,
        version=1,
        state=StudyState.DONE,
        pseudonym="P-4711AAAA",
        source="us room",
        facts=StudyFacts(modalities=("US",), body_parts=("ABDOMEN",)),
        priority=0,
        opened_at=NOW - 900,
        last_instance_at=NOW - 800,
        closed_at=NOW - 800,
        closed_reason="",
        wait=None,
    )
    liver = ImageCategory(sha256="a" * 64, file="a", plugin="ultrasound", category="liver", label="Liver", note="")
    version = VersionView(study=row, instances=images, jobs=(), artefacts=(), categories=(liver,))
    return StudyView(study_id=STUDY, content=True, versions=(version,), files=())


def asked(number: int, outcome: str, **changes: Any) -> AskedView:
    values = {
        "question_id": f"Q-{number}",
        "study_id": STUDY,
        "version": 1,
        "audience": "clinician",
        "asked_by": "tess",
        "asked_at": NOW - 600 + number * 60,
        "question": QUESTION,
        "outcome": outcome,
        "text": "",
        "annotations": (),
        "marks": (),
        "reason": "",
        "remedy": "",
        "image": 1,
        "frame": None,
        "category": "liver",
        "adapter": "",
        "models": (),
        "confidence": None,
        "example": "",
        "seconds": 1.2,
        "policy_hash": "c" * 64,
    }
    return AskedView.model_validate(values | changes)


ANSWER = asked(
    4,
    "answered",
    text="The liver is not enlarged.",
    annotations=("A number was taken out.",),
    marks=("Investigational.",),
    adapter="liver",
    models=("ultrasound liver 1.0",),
    confidence=0.93,
)
ALL = (
    asked(1, "refused", reason="The plugin would not answer this.", remedy="Ask otherwise."),
    asked(2, "held", reason="The rule fetal-sex keeps it back.", remedy="Ask something else."),
    asked(3, "template", audience="patient", text="Please ask your doctor.", reason="Patients read templates."),
    ANSWER,
)


def asking(before: tuple[AskedView, ...] = ALL, *, status: StatusView | None = None, **answers: Any) -> Exhibit:
    category = CategoryRow(
        plugin="ultrasound",
        category="liver",
        label="Liver",
        aliases=(),
        codes=(),
        questions=(QUESTION, "Is there a focal lesion?"),
        answered_by="",
        note="",
    )
    other = category.model_copy(update={"category": "kidney", "questions": ("Is there a stone?",)})
    given = {
        "study": study(),
        "questions": list(before),
        "plugin_categories": [other, category],
        "plugins": PluginsView(plugins=(), problems=()),
        "studies": StudyPage(studies=(), next_before=None),
        "ask": ANSWER,
    }
    return Exhibit(given | answers, status=status or made_status())


async def take(app: ClinicApp, pilot: Pilot[None]) -> None:
    """Take the study in hand and open the screen."""
    app.study_id = STUDY
    await app.action_go("ask")
    await shows(pilot, "P-4711AAAA")


async def ask(app: ClinicApp, pilot: Pilot[None], question: str) -> None:
    """Write a question into the line and press Enter."""
    await pilot.press("a")
    line = app.query_one("#ask-question", Input)
    assert line.has_focus
    line.value = question
    await pilot.press("enter")


# ---------------------------------------------------------------- what is seen


@sizes
def test_no_study_is_in_hand(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(asking(), "ask", "No study is in hand", size=size) == pictures


@sizes
def test_what_was_asked(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(asking(), "ask", "✓ ANSWERED", size=size, after=take) == pictures


@sizes
def test_the_daemon_is_gone(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = asking()

    async def lose(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "ask", "No daemon answers", size=size, after=lose) == pictures


def test_the_verdict_stands_before_the_answer_with_reason_and_remedy() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await shows(pilot, "✗ REFUSED")
        shown = screen(app)
        for before, after in (
            ("✓ ANSWERED", "The liver is not enlarged."),
            ("The liver is not enlarged.", "note: A number was taken out."),
            ("≡ TEMPLATE", "why: Patients read templates."),
            ("why: Patients read templates.", "Please ask your doctor."),
            ("‖ HELD", "why: The rule fetal-sex keeps it back."),
            ("why: The rule fetal-sex keeps it back.", "what to do: Ask something else."),
            ("✗ REFUSED", "what to do: Ask otherwise."),
        ):
            assert shown.index(before) < shown.index(after)
        assert "probability of being right: 93 %" in shown

    play(asking(), script, size=(140, 50))


# ---------------------------------------------------------------- asking


def test_a_question_is_asked_and_its_answer_comes_while_one_is_elsewhere() -> None:
    answer, given = threading.Event(), asking(())
    given.answers["ask"] = lambda *_: (answer.wait(20), ANSWER)[1]

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await ask(app, pilot, QUESTION)
        await shows(pilot, "… ASKED 0 s ago")
        await ask(app, pilot, "And now?")
        await told(pilot, "One question at a time")
        assert app.query_one("#ask-question", Input).value == "And now?"
        assert given.sent("ask") == [((STUDY, AskOrder(question=QUESTION)), {})]
        await pilot.press("escape", "1")
        given.answers["questions"] = [ANSWER]
        answer.set()
        await told(pilot, "is answered; key 7 shows it")
        await pilot.press("7")
        await shows(pilot, "✓ ANSWERED")
        assert "… ASKED" not in screen(app)

    play(given, script)


def test_closing_the_terminal_does_not_wait_for_the_answer() -> None:
    answer, given = threading.Event(), asking(())
    given.answers["ask"] = lambda *_: (answer.wait(60), ANSWER)[1]

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await ask(app, pilot, QUESTION)
        await shows(pilot, "… ASKED")
        await pilot.press("q")

    try:
        play(given, script)
        assert not answer.is_set()
        assert any(thread.name == "question" for thread in threading.enumerate())
    finally:
        answer.set()


def test_why_there_is_no_answer_stays_on_the_screen() -> None:
    given = asking((), ask=ChildTimedOut("The engine took too long.", remedy="Ask again."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await ask(app, pilot, QUESTION)
        await shows(pilot, "✗ NOT ANSWERED")
        assert "The engine took too long. Ask again." in screen(app)

    play(given, script)


def test_a_fault_while_asking_ends_the_terminal_instead_of_leaving_the_question_on_its_way() -> None:
    def faulty(*_: Any) -> None:
        raise KeyError("no such field")

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await ask(app, pilot, QUESTION)
        await until(pilot, lambda: app.return_code == 1, "the fault should end it")

    with pytest.raises(KeyError, match="no such field"):
        play(asking((), ask=faulty), script)


def test_image_frame_and_reader_are_chosen_and_sent() -> None:
    given = asking((), study=study(images=3))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await ask(app, pilot, QUESTION)
        await told(pilot, "Which image is it about?")
        assert given.sent("ask") == []
        await pilot.press("escape", "i")
        assert isinstance(app.screen, Prompt)
        await pilot.press("2", "enter", "f", "7", "enter", "t")
        await shows(pilot, "for: patient (t)  image: 2 (i)  frame: 7 (f)")
        await pilot.press("a", "enter")
        await until(pilot, lambda: bool(given.sent("ask")), "it should be asked")
        order = AskOrder(question=QUESTION, audience="patient", image="2", frame=7)
        assert given.sent("ask") == [((STUDY, order), {})]

    play(given, script)


def test_what_is_no_image_is_told_and_the_question_stays() -> None:
    given = asking(())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await pilot.press("i", "x", "enter")
        await ask(app, pilot, QUESTION)
        await told(pilot, "Not sent: image")
        assert app.query_one("#ask-question", Input).value == QUESTION
        assert given.sent("ask") == []

    play(given, script)


def test_the_standard_questions_of_the_category_can_be_chosen() -> None:
    given = asking(())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await shows(pilot, "standard: 2")
        await pilot.press("s")
        assert isinstance(app.screen, Choose)
        assert "Is there a stone?" not in screen(app)
        await pilot.press("j", "enter", "enter")
        await until(pilot, lambda: bool(given.sent("ask")), "it should be asked")
        assert given.sent("ask")[0][0][1].question == "Is there a focal lesion?"

    play(given, script)


# ---------------------------------------------------------------- who may


def test_a_technician_asks_for_patients_and_reads_only_answers_of_this_terminal() -> None:
    given = asking(status=made_status(role=Role.TECHNICIAN), ask=ALL[2])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await shows(pilot, "Technicians ask in a patient's place")
        assert given.sent("questions") == []
        await pilot.press("t")
        await ask(app, pilot, QUESTION)
        await shows(pilot, "Please ask your doctor.")
        assert given.sent("ask")[0][0][1].audience == "patient"
        assert "not enlarged" not in screen(app)
        assert given.sent("questions") == []

    play(given, script)


def test_nothing_is_asked_over_the_monitor_socket() -> None:
    given = asking(status=made_status(may_change=False))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await shows(pilot, "The monitor socket only reads")
        await pilot.press("a", "x", "enter", "s", "i", "t")
        assert len(app.screen_stack) == 1
        assert given.sent("ask") == given.sent("questions") == []
        assert "Standard" not in screen(app)

    play(given, script)


def test_another_study_begins_anew() -> None:
    given = asking(())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await take(app, pilot)
        await pilot.press("i", "1", "enter", "f", "3", "enter")
        await shows(pilot, "frame: 3")
        app.study_id = None
        await pilot.press("7")
        await shows(pilot, "No study is in hand")
        app.study_id = STUDY
        await pilot.press("7")
        await shows(pilot, "frame: any")

    play(given, script)
