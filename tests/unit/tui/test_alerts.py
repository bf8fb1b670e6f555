"""All alerts: the few lines below the header, the list that ! opens, and how one is acknowledged."""

from __future__ import annotations

from typing import Any

import pytest
from screens import NOW, SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.views import DoneView, InboxRow, Role, TopicView
from clinic_ai.domain import Alert
from clinic_ai.tui.alerts_screen import AlertsScreen
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.header import ALERT_LINES, CRITICAL, alerts_text, header_text
from clinic_ai.tui.screens import Confirm

by_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def alert(number: int, code: str = "test", **changes: Any) -> Alert:
    values: dict[str, Any] = {
        "alert_id": number,
        "code": code,
        "subject": f"S-{number}",
        "sentence": f"Number {number}: the disk has less room than its reserve.",
        "remedy": "Let retention remove more, or put in a larger disk.",
        "count": number,
        "first_at": NOW - 7200 * number,
        "last_at": NOW - 60 * number,
    }
    return Alert.model_validate(values | changes)


CRITICAL_ALERT = alert(1, CRITICAL, sentence="Study S-1 has a critical finding of category 1.", remedy="Act.")
MANY = (CRITICAL_ALERT, *(alert(number) for number in range(2, 16)))


async def opened(pilot: Pilot[None]) -> None:
    await shows(pilot, "linked")
    await pilot.press("exclamation_mark")
    await until(pilot, lambda: isinstance(pilot.app.screen, AlertsScreen), "the list of alerts")


def notes(app: ClinicApp) -> str:
    return " ".join(notice.message for notice in app._notifications)


# ---------------------------------------------------------------- the lines below the header


def test_what_has_no_room_is_counted_with_the_key_that_shows_it() -> None:
    lines = str(alerts_text(made_status(alerts=MANY, more_alerts=7), width=140)).splitlines()
    assert len(lines) == ALERT_LINES
    assert lines[0].startswith("◆ Study S-1")
    assert lines[-1] == "… and 19 more alerts: ! shows all"


def test_one_long_alert_leaves_room_for_what_else_is_wrong() -> None:
    inbox = InboxRow(name="ct", path="/in", online=False, sentence="The share of the CT is gone.")
    long = alert(2, sentence="It is long. " * 60)
    lines = str(alerts_text(made_status(alerts=(long, alert(3)), inboxes=(inbox,)), width=78)).splitlines()
    assert lines[0].endswith("…")
    assert len(lines[0]) < 2 * 78
    assert lines[1:] == ["… and 1 more alert: ! shows all", "▲ The share of the CT is gone."]


def test_what_an_alert_says_is_not_said_twice() -> None:
    inbox = InboxRow(name="ct", path="/in", online=False, sentence="The share of the CT is gone.")
    status = made_status(alerts=(alert(2, sentence=inbox.sentence),), inboxes=(inbox,))
    assert str(alerts_text(status)).count(inbox.sentence) == 1


def test_the_header_counts_the_alerts_that_the_status_leaves_out() -> None:
    status = made_status(alerts=MANY, more_alerts=30, more_critical=2)
    line = str(header_text(status, linked=True, now=NOW, width=140))
    assert "◆ 3 critical" in line
    assert "▲ 42 alerts" in line


# ---------------------------------------------------------------- the list


@by_size
def test_many_alerts(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await opened(pilot)
        await pilot.press("j", "j")

    exhibit = Exhibit(status=made_status(alerts=MANY, more_alerts=30))
    assert picture(exhibit, "queue", "Number: 3", size=size, after=script) == pictures


@by_size
def test_no_alerts(size: tuple[int, int], pictures: SnapshotAssertion) -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await opened(pilot)

    assert picture(Exhibit(), "queue", "There are no open alerts.", size=size, after=script) == pictures


def test_an_alert_is_acknowledged_after_a_question_and_leaves_the_list() -> None:
    exhibit = Exhibit({"acknowledge": DoneView(sentence="Alert 3 is acknowledged by tess.")})
    exhibit.answers["status"] = made_status(alerts=(alert(2), alert(3)))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await opened(pilot)
        await pilot.press("j", "a")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "the question")
        assert "Number 3: the disk" in screen(app)
        await pilot.press("n")
        assert exhibit.sent("acknowledge") == []
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "the question")
        exhibit.answers["status"] = made_status(alerts=(alert(2),))
        await pilot.press("y")
        await until(pilot, lambda: exhibit.sent("acknowledge") == [((3,), {})], "the order")
        await shows(pilot, "1 open alert")
        assert "Number 3" not in screen(app)
        await until(pilot, lambda: "acknowledged by tess" in notes(app), "what came of it")

    play(exhibit, script)


def test_a_critical_finding_is_acknowledged_where_it_stands() -> None:
    exhibit = Exhibit(status=made_status(alerts=(CRITICAL_ALERT,)))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await opened(pilot)
        await pilot.press("a")
        await until(pilot, lambda: "on the screen Review" in notes(app), "where it is done")
        assert isinstance(app.screen, AlertsScreen)
        await pilot.press("exclamation_mark")
        assert not isinstance(app.screen, AlertsScreen)

    play(exhibit, script)


@pytest.mark.parametrize("gone", [False, True])
def test_where_nothing_may_be_changed_it_says_why(gone: bool) -> None:
    exhibit = Exhibit(status=made_status(alerts=(alert(2),), role=Role.TECHNICIAN, may_change=gone))

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await opened(pilot)
        if gone:
            exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
            exhibit.tell(TopicView(topic="start"))
            await until(pilot, lambda: not app.linked, "the daemon should be gone")
        await pilot.press("a")
        why = "the daemon does not answer" if gone else "this is the read-only socket"
        await until(pilot, lambda: f"It cannot be acknowledged: {why}." in notes(app), "why not")
        assert isinstance(app.screen, AlertsScreen)

    play(exhibit, script)


def test_the_help_and_the_palette_know_the_list() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        await pilot.press("question_mark", "G")
        await shows(pilot, "! shows all")
        await pilot.press("escape", "ctrl+p")
        await pilot.press(*"all alerts")
        await shows(pilot, "All alerts")

    play(Exhibit(), script, size=(140, 40))
