"""The queue: what it shows, in which order, and what its keys send; on made data."""

from __future__ import annotations

import pytest
from made_queue import S, busy, busy_status, made_row, queue_exhibit
from queue_stage import notified, question, ready, table
from screens import SIZES, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input, Static

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.views import CheckRow, DoneView, Role, RouteView, RuleRow, TopicView
from clinic_ai.domain import QueueSort, StudyFacts, StudyState
from clinic_ai.errors import Conflict
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.queue import StudyTable
from clinic_ai.tui.screens import Choose, Confirm, HelpScreen
from clinic_ai.tui.views.queue import QueueView

DONE = DoneView(sentence="It is done.")
ORDERS = ("r", "R", "c", "u", "plus", "minus")


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_an_empty_queue_says_where_scans_may_be_put(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    assert picture(queue_exhibit(), "queue", "No studies yet", size=size) == pictures


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_busy_noon(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    assert picture(queue_exhibit(busy()), "queue", "Press 3", size=size) == pictures


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_daemon_is_lost(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    exhibit = queue_exhibit(busy())

    async def lose(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        exhibit.answers["status"] = NoDaemon("No daemon answers at /run/x.sock.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "queue", "Trying again", size=size, after=lose) == pictures


def test_ten_thousand_studies_are_counted_with_commas() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 10_000)
        await shows(pilot, "Queue: 10,000 studies")
        await pilot.press("slash", *"p-", "enter")
        await shows(pilot, "Queue: p-: 10,000 of 10,000 studies")

    play(queue_exhibit([made_row(n) for n in range(10_000)]), script)


# ---------------------------------------------------------------- a long queue


def test_only_what_is_to_be_seen_and_a_page_each_side_is_asked_for() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(10_000)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 10_000)
        await pilot.press("G")
        await until(pilot, lambda: queue.selected is not None and queue.complete, "the last rows should come")
        assert queue.cursor == 9_999
        assert queue.selected == exhibit.answers["rows"][-1]
        await pilot.press("g", "pagedown", "pagedown", "pagedown")
        await until(pilot, lambda: queue.selected is not None and queue.complete, "rows further down should come")
        assert queue.cursor == 3 * queue.height
        await shows(pilot, exhibit.answers["rows"][queue.cursor].study_id)
        for _, asked in exhibit.sent("queue"):
            assert asked["limit"] <= 3 * queue.height
        assert {asked["offset"] for _, asked in exhibit.sent("queue")} >= {0, 10_000 - 2 * queue.height}

    play(exhibit, script)


def test_the_keys_move_within_what_is_there_without_asking() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(100)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 100)
        for key, place in (("j", 1), ("down", 2), ("k", 1), ("up", 0), ("up", 0), ("end", 99), ("home", 0)):
            await pilot.press(key)
            assert queue.cursor == place

    play(exhibit, script)


def test_the_cursor_stays_on_its_study_when_others_arrive_above() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(1000, 1400)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 400)
        await pilot.press(*["j"] * 30)
        await until(pilot, lambda: queue.complete and queue.selected is not None, "the rows should be there")
        chosen, line = queue.selected, queue.cursor - queue.top
        exhibit.answers["rows"] = [*(made_row(n) for n in range(7)), *exhibit.answers["rows"]]
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: queue.total == 407 and queue.complete, "the arrivals should be counted")
        assert queue.selected == chosen
        assert queue.cursor - queue.top == line
        exhibit.answers["rows"] = [*(made_row(n) for n in range(2000, 2200)), *exhibit.answers["rows"]]
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: queue.total == 607 and queue.complete, "more than a page should be counted too")
        assert queue.selected == chosen
        assert queue.cursor - queue.top == line

    play(exhibit, script)


def test_at_the_top_what_arrives_is_seen_and_the_cursor_stays() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(10, 14)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 4)
        chosen, new = queue.selected, made_row(1)
        exhibit.answers["rows"] = [new, *exhibit.answers["rows"]]
        exhibit.tell(TopicView(topic="start"))
        await shows(pilot, new.pseudonym)
        assert (queue.selected, queue.cursor) == (chosen, 1)

    play(exhibit, script)


def test_the_cursor_stays_where_it_was_when_its_study_goes() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(5)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 5)
        await pilot.press("G")
        exhibit.answers["rows"] = exhibit.answers["rows"][:3]
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: queue.total == 3, "two should go")
        assert queue.cursor == 2
        assert queue.selected == exhibit.answers["rows"][2]

    play(exhibit, script)


def test_the_mouse_chooses_opens_and_sorts() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(5)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 5)
        await pilot.click(StudyTable, offset=(30, 4))
        assert queue.cursor == 2
        await pilot.click(StudyTable, offset=(8, 1))
        await until(pilot, lambda: exhibit.sent("queue")[-1][1]["reverse"], "came should turn the order around")
        await pilot.click(StudyTable, offset=(12, 1))
        await until(
            pilot, lambda: exhibit.sent("queue")[-1][1]["sort"] is QueueSort.PATIENT, "patient should be sorted by"
        )
        assert not exhibit.sent("queue")[-1][1]["reverse"]
        await pilot.click(StudyTable, offset=(30, 3), times=2)
        await until(pilot, lambda: app.view is not None and app.view.NAME == "study", "two clicks should open it")

    play(exhibit, script)


def test_what_did_not_change_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exhibit = queue_exhibit(busy())
    drawn: list[object] = []

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 12)
        await shows(pilot, "Press 3")
        await pilot.pause(0.3)
        monkeypatch.setattr(queue, "refresh", lambda *regions, **_: drawn.append(regions))
        details, answers = app.query_one("#facts", Static).content, len(exhibit.sent("queue"))
        app.query_one(QueueView).refetch()
        await until(pilot, lambda: len(exhibit.sent("queue")) > answers, "it should be fetched again")
        await pilot.pause(0.1)
        assert not drawn
        assert app.query_one("#facts", Static).content is details
        exhibit.answers["rows"][3] = made_row(1, S.ROUTED, turns=1)
        exhibit.tell(TopicView(topic="start"))
        await until(pilot, lambda: bool(drawn), "the change should be drawn")
        assert [region.y for regions in drawn for region in regions] == [4]

    play(exhibit, script)


# ---------------------------------------------------------------- filter and sort


def test_words_are_looked_for_by_the_daemon_as_they_are_typed() -> None:
    exhibit = queue_exhibit(busy())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 12)
        await pilot.press("slash", *"us rule")
        await shows(pilot, "Queue: us rule: 1 of 12 studies")
        assert exhibit.sent("queue")[-1][1]["words"] == "us rule"
        await pilot.press(*" none", "enter")
        await shows(pilot, "No study has these words. Escape shows all.")
        await pilot.press("escape")
        await until(pilot, lambda: queue.total == 12, "all should be back")
        assert not app.query_one("#filter", Input).display

    play(exhibit, script)


def test_after_the_filter_the_cursor_is_on_the_study_that_was_found() -> None:
    exhibit = queue_exhibit([made_row(n) for n in range(500)])

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 500)
        wanted = exhibit.answers["rows"][333]
        await pilot.press("slash", *wanted.pseudonym.lower(), "enter")
        await until(pilot, lambda: queue.total == 1, "one should be found")
        await pilot.press("escape")
        await until(pilot, lambda: queue.total == 500 and queue.complete, "all should be back")
        assert (queue.cursor, queue.selected) == (333, wanted)

    play(exhibit, script)


def test_s_chooses_what_is_sorted_by_and_the_column_shows_it() -> None:
    exhibit = queue_exhibit(busy())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        await pilot.press("s")
        assert isinstance(app.screen, Choose)
        await pilot.press("j", "enter")
        await shows(pilot, "age▼")
        await shows(pilot, "by age of the wait, what waits longest first; urgent on top")
        assert exhibit.sent("queue")[-1][1]["sort"] is QueueSort.WAIT
        await pilot.press("S")
        await shows(pilot, "age▲")
        await shows(pilot, "what waits shortest first")
        assert exhibit.sent("queue")[-1][1]["reverse"] is True

    play(exhibit, script, size=(140, 40))


# ---------------------------------------------------------------- orders


ASKED: tuple[tuple[int, str, str, str, tuple[object, ...]], ...] = (
    (9, "r", "Try study S-20261121-00000025", "retry", ("S-20261121-00000025",)),
    (4, "r", "Whatever of it waits is tried at once", "retry", ("S-20261121-00000002",)),
    (5, "R", "What runs or waits of it is dropped", "reroute", ("S-20261121-00000004",)),
    (2, "c", "Go on with what has arrived of study", "close_study", ("S-20261121-00000000",)),
    (6, "u", "from 0 to 50?", "prioritise", ("S-20261121-00000009", 50)),
    (1, "u", "from 50 to 0?", "prioritise", ("S-20261121-00000003", 0)),
    (6, "plus", "from 0 to 10?", "prioritise", ("S-20261121-00000009", 10)),
    (1, "minus", "from 50 to 40?", "prioritise", ("S-20261121-00000003", 40)),
)


def test_each_order_asks_first_and_names_the_study() -> None:
    exhibit = queue_exhibit(busy(), **{method: DONE for _, _, _, method, _ in ASKED})

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 12)
        for place, key, asked, method, arguments in ASKED:
            queue.move(place)
            row, before = queue.selected, len(exhibit.sent(method))
            assert row is not None
            await pilot.press(key)
            assert asked in question(app)
            assert row.study_id in question(app)
            assert row.pseudonym in question(app)
            if not before:
                await pilot.press("n")
                assert not exhibit.sent(method)
                await pilot.press(key)
            await pilot.press("y")
            await until(pilot, lambda m=method, n=before: len(exhibit.sent(m)) > n, f"{method} should be sent")
            assert exhibit.sent(method)[-1] == (arguments, {})
        await notified(pilot, "It is done.")

    play(exhibit, script)


def test_what_makes_no_sense_is_said_and_not_asked() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        queue = await ready(pilot, 12)
        for place, key, said in (
            (2, "r", "00000000 is still arriving; c goes on with what is there"),
            (3, "r", "00000001 is about to be routed"),
            (2, "R", "00000000 is still arriving"),
            (8, "c", "00000017 is closed already"),
        ):
            queue.move(place)
            await pilot.press(key)
            assert not isinstance(app.screen, Confirm)
            await notified(pilot, said)

    play(queue_exhibit(busy()), script)


def test_a_priority_has_an_end() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 1)
        await pilot.press("plus")
        assert "from 95 to 100?" in question(app)
        await pilot.press("n", "u")
        assert "from 95 to 0?" in question(app)

    play(queue_exhibit([made_row(3, S.ROUTED, priority=95, urgent=True)]), script)


def test_what_the_daemon_refuses_is_said() -> None:
    exhibit = queue_exhibit([made_row(25, S.FAILED)], retry=Conflict("It cannot be.", remedy="Send it again."))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 1)
        await pilot.press("r", "y")
        await notified(pilot, "It cannot be. Send it again.")

    play(exhibit, script)


@pytest.mark.parametrize("change", ["monitor", "lost"])
def test_every_order_is_gone_where_nothing_may_be_changed(change: str) -> None:
    exhibit = queue_exhibit(busy())
    if change == "monitor":
        exhibit.answers["status"] = busy_status(busy(), may_change=False, role=Role.TECHNICIAN)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        if change == "lost":
            exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
            exhibit.tell(TopicView(topic="start"))
            await shows(pilot, "Trying again")
        for place in (0, 2, 9):
            table(app).move(place)
            await pilot.press(*ORDERS)
            assert len(app.screen_stack) == 1
        assert "Retry" not in screen(app)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        told = str(app.screen.query_one("#help Static", Static).render())
        there, missing = told.split("Keys that are not there now, and why")
        assert "(asks" not in there
        assert "Where the rules send it now" in there
        assert missing.count("(asks") == len(ORDERS)

    play(exhibit, script)


# ---------------------------------------------------------------- looking closer


def test_enter_opens_the_study_and_y_copies_its_id() -> None:
    exhibit = queue_exhibit(busy())

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        await pilot.press("j", "y")
        assert app.clipboard == "S-20261121-00000003"
        await pilot.press("enter")
        await until(pilot, lambda: app.view is not None and app.view.NAME == "study", "its screen should open")
        assert app.study_id == "S-20261121-00000003"

    play(exhibit, script)


def test_e_shows_where_the_rules_send_it_and_why() -> None:
    check = CheckRow(key="modality", wanted="CT", found="US", matched=False)
    rule = RuleRow(
        kind="rule", name="ct", plugins=("ct",), matched=False, verdict="no", reason="It is no CT.", checks=(check,)
    )
    route = RouteView(
        facts=StudyFacts(), plugins=(), missing=(), explanation=(rule,), lines=("no rule takes it", "ct: US is no CT")
    )
    exhibit = queue_exhibit(busy(), route=route)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        await pilot.press(*["j"] * 6, "e")
        await shows(pilot, "Where the rules send S-20261121-00000009 now")
        assert "ct: US is no CT" in screen(app)
        assert "routed by the rules of that time" not in screen(app)
        await pilot.press("escape", *["j"] * 2, "e")
        await shows(pilot, "It was routed by the rules of that time; R asks these ones.")
        assert [arguments for arguments, _ in exhibit.sent("route")] == [
            ("S-20261121-00000009",),
            ("S-20261121-00000017",),
        ]

    play(exhibit, script)


def test_the_help_of_the_queue_tells_every_key() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await ready(pilot, 12)
        await pilot.press("question_mark")
        told = str(app.screen.query_one("#help Static", Static).render())
        assert all(state.value in told for state in StudyState)
        assert all(str(binding.tooltip) in told for _, binding in app.query_one(QueueView)._bindings)
        await pilot.press("escape", "q")
        await until(pilot, lambda: not app.is_running, "q should close it")

    play(queue_exhibit(busy()), script)
