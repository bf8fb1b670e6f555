"""The editor of a result: what it sends, and that no word of it is ever lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room
from review_exhibit import ROWS, SIGNER, TEXT, notices, reviewing, said, told, view
from screens import SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import TextArea

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import AmendReview
from clinic_ai.control.views import TopicView
from clinic_ai.domain import GuardAction, Presence
from clinic_ai.domain.reviews import Correction, Passage
from clinic_ai.errors import Conflict
from clinic_ai.settings import ReviewSettings
from clinic_ai.store import reviews
from clinic_ai.tui.amending import AmendScreen
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.screens import Confirm

FREE = ROWS[2]
MINE = "There may be pneumonia."
AS_SENT = (Passage(statement_id="f_1", text=MINE), Passage(statement_id="m_1", text="One view was sent."))


def editing(**answers: object) -> Exhibit:
    return reviewing((FREE,), **answers)  # type: ignore[arg-type]


async def edit(app: ClinicApp, pilot: Pilot[None], words: str = MINE) -> AmendScreen:
    """Open the editor on the selected result and write other words for its first statement."""
    await shows(pilot, TEXT)
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, AmendScreen), "the editor should open")
    opened = app.screen
    assert isinstance(opened, AmendScreen)
    await rewrite(opened, pilot, words)
    return opened


async def rewrite(opened: AmendScreen, pilot: Pilot[None], words: str) -> None:
    """Write these words in place of the line under the cursor; the last letter by its key."""
    await pilot.press("home", "shift+end")
    editor = opened.query_one("#amend-text", TextArea)
    editor.move_cursor(editor.replace(words[:-1], *editor.selection).end_location)
    await pilot.press(words[-1])


def text_of(opened: AmendScreen) -> str:
    return opened.query_one("#amend-text", TextArea).text


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_how_it_looks(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    async def after(app: ClinicApp, pilot: Pilot[None]) -> None:
        await edit(app, pilot)

    assert picture(reviewing((ROWS[0],)), "review", MINE, size=size, after=after) == pictures


def test_the_change_is_shown_while_one_writes_and_sent_after_asking() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        opened = await edit(app, pilot)
        await shows(pilot, f"+ {MINE}")
        assert f"- {TEXT}" in screen(app)
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, Confirm)
        assert all(words in app.screen.question for words in (SIGNER, "Doe, Jane", FREE.study_id))
        await pilot.press("n")
        assert exhibit.sent("amend") == []
        assert MINE in text_of(opened)
        await pilot.press("ctrl+s", "y")
        await told(pilot, "It is done.")
        assert not isinstance(app.screen, AmendScreen)
        assert exhibit.sent("amend") == [((FREE.artefact_id, AmendReview(digest="d" * 64, statements=AS_SENT)), {})]

    play(exhibit, script, place="review", size=(140, 40))


def test_corrections_alone_leave_the_words_to_the_appliance() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("c", "enter", "j", "enter")
        await shows(pilot, "you say: absent")
        await pilot.press("e")
        await shows(pilot, "corrected: pneumonia is absent")
        await pilot.press("ctrl+s", "y")
        await told(pilot, "It is done.")
        [((_, order), _)] = exhibit.sent("amend")
        assert order.statements is None
        assert order.corrections == (Correction(condition="pneumonia", presence=Presence.ABSENT),)

    play(exhibit, script, place="review", size=(140, 40))


def test_leaving_asks_only_if_something_was_written() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("e", "escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "nothing was written, so it should close")
        opened = await edit(app, pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        assert app.screen is opened
        assert MINE in text_of(opened)
        await pilot.press("ctrl+q")
        await told(pilot, "not signed yet")
        assert app.is_running
        await pilot.press("escape", "y")
        await until(pilot, lambda: len(app.screen_stack) == 1, "it should close")
        assert exhibit.sent("amend") == []

    play(exhibit, script, place="review")


def test_a_fetch_that_comes_meanwhile_takes_no_word_away() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        opened = await edit(app, pilot)
        exhibit.answers["review"] = lambda *_: view(FREE, digest="e" * 64, statements=(said("f_1", "Other words."),))
        fetched = len(exhibit.sent("review"))
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: len(exhibit.sent("review")) > fetched, "it should be fetched")
        exhibit.answers["reviews"] = []
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: app.query_one("#reviews").row_count == 0, "somebody decided about it")  # type: ignore[attr-defined]
        assert app.screen is opened
        assert MINE in text_of(opened)
        assert f"- {TEXT}" in screen(app), "the change is against what this person read"

    play(exhibit, script, place="review")


def test_a_lost_daemon_takes_no_word_away_and_the_words_go_when_it_is_back() -> None:
    exhibit = editing()
    status = exhibit.answers["status"]

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        opened = await edit(app, pilot)
        exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, "✗ no daemon: your text stays here")
        await pilot.press("ctrl+s")
        await shows(pilot, "Your text stays")
        assert exhibit.sent("amend") == []
        assert MINE in text_of(opened)
        exhibit.answers["status"] = status
        await until(pilot, lambda: app.linked, "the feed tries again every second")
        await pilot.press("ctrl+s", "y")
        await told(pilot, "It is done.")
        assert len(exhibit.sent("amend")) == 1

    play(exhibit, script, place="review")


def test_a_daemon_that_dies_with_the_order_leaves_the_words() -> None:
    exhibit = editing(amend=NoDaemon("The daemon went away in the middle.", remedy="Look whether it runs."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        opened = await edit(app, pilot)
        await pilot.press("ctrl+s", "y")
        await shows(pilot, "went away in the middle")
        assert MINE in text_of(opened)
        exhibit.answers["amend"] = exhibit.answers["accept"]
        await pilot.press("ctrl+s", "y")
        await told(pilot, "It is done.")

    play(exhibit, script, place="review")


def test_a_result_that_reads_otherwise_is_fetched_again_and_the_words_stay() -> None:
    exhibit = editing(amend=Conflict("It does not read as it did.", remedy="Look again."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        opened = await edit(app, pilot)
        other = said("f_1", "The image shows nothing.")
        exhibit.answers["review"] = lambda *_: view(FREE, digest="e" * 64, statements=(other,))
        await pilot.press("ctrl+s", "y")
        await shows(pilot, "It does not read as it did.")
        await shows(pilot, "- The image shows nothing.")
        assert MINE in text_of(opened)
        exhibit.answers["amend"] = exhibit.answers["accept"]
        await pilot.press("ctrl+s", "y")
        await told(pilot, "It is done.")
        orders = [arguments[1] for arguments, _ in exhibit.sent("amend")]
        assert [order.digest for order in orders] == ["d" * 64, "e" * 64]
        assert orders[1].statements == AS_SENT

    play(exhibit, script, place="review", size=(140, 40))


def test_a_text_that_cannot_be_meant_is_told_while_one_writes_and_not_sent() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await edit(app, pilot, "[m_1] Two views.")
        await shows(pilot, "[m_1] stands twice")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: screen(app).count("[m_1] stands twice") == 2, "it should be said why not")
        assert isinstance(app.screen, AmendScreen)
        assert exhibit.sent("amend") == []

    play(exhibit, script, place="review", size=(140, 40))


def test_nothing_changed_is_not_signed() -> None:
    exhibit = editing()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, TEXT)
        await pilot.press("e", "ctrl+s")
        await shows(pilot, "Nothing was changed.")
        assert exhibit.sent("amend") == []

    play(exhibit, script, place="review")


def test_over_the_monitor_socket_there_is_no_editor() -> None:
    exhibit = reviewing((FREE,), status=made_status(may_change=False))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "The monitor socket")
        await pilot.press("e")
        assert len(app.screen_stack) == 1
        assert notices(app) == ""

    play(exhibit, script, place="review")


# ---------------------------------------------------------------- over the sockets of a served control room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        served.guard.load()
        reviewers = ReviewSettings(reviewers=(SIGNER,))
        served.shared.settings = served.shared.settings.model_copy(update={"review": reviewers})
        yield served


def test_a_held_report_is_amended_and_signed(room: Room) -> None:
    study_id = room.add_study(state="DONE", stored=True)
    room.add_finding(study_id)
    room.add_result(study_id, GuardAction.HOLD)

    async def script() -> None:
        app = ClinicApp(room.home, clock=time.time)
        async with app.run_test(size=(140, 40)) as pilot:
            await app.action_go("review")
            await shows(pilot, "[f_1] The image most likely shows pneumonia on the left.")
            await shows(pilot, "test.rule (hold): Because.")
            await pilot.press("e")
            await shows(pilot, SIGNER)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, AmendScreen), "the editor should open")
            opened = app.screen
            assert isinstance(opened, AmendScreen)
            await rewrite(opened, pilot, "Call 555-123-4567 at once.")
            await pilot.press("ctrl+s", "y")
            await shows(pilot, "nothing was decided yet")  # the guard reads a signer's words too
            assert "Call 555-123-4567 at once." in text_of(opened)
            await rewrite(opened, pilot, MINE)
            await pilot.press("ctrl+s", "y")
            await told(pilot, "is amended and signed by")
            await shows(pilot, "Nothing waits for a review.")

    asyncio.run(script())
    with room.database.read() as c:
        [made] = reviews.reviews_of_version(c, study_id, 1)
    assert (made.decision.value, made.reviewer) == ("amend", SIGNER)
    assert made.job_id, "the signed report is to be made"
    assert made.document.said == (Passage(statement_id="f_1", text=MINE),)


def test_what_somebody_else_decided_meanwhile_is_said_and_no_word_is_lost(room: Room) -> None:
    study_id = room.add_study(state="DONE", stored=True)
    room.add_finding(study_id)
    room.add_result(study_id, GuardAction.HOLD)

    async def script() -> None:
        app = ClinicApp(room.home, clock=time.time)
        async with app.run_test(size=(140, 40)) as pilot:
            await app.action_go("review")
            await shows(pilot, "[f_1] The image most likely shows pneumonia on the left.")
            await pilot.press("e", "enter")
            await until(pilot, lambda: isinstance(app.screen, AmendScreen), "the editor should open")
            assert isinstance(app.screen, AmendScreen)
            await rewrite(app.screen, pilot, MINE)
            await asyncio.to_thread(_reject, room)
            await pilot.press("ctrl+s", "y")
            await shows(pilot, "was decided already: rejected by")
            assert MINE in text_of(app.screen)

    asyncio.run(script())
    with room.database.read() as c:
        assert [made.decision.value for made in reviews.reviews_of_version(c, study_id, 1)] == ["reject"]


def _reject(room: Room) -> None:
    from clinic_ai.control.review_views import RejectReview

    with ReviewClient(room.home) as client:
        [waits] = client.reviews(10)
        seen = client.review(waits.artefact_id, SIGNER)
        client.reject(waits.artefact_id, RejectReview(digest=seen.digest, reviewer=SIGNER, reason="wrong side"))
