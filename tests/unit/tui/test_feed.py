"""The feed: how often it asks, what it tells, and what it makes of a daemon that is slow, gone or full."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from control_room import control_room
from screens import NOW, Exhibit, made_status, play, screen, shows, until
from textual.pilot import Pilot

from clinic_ai.control import events
from clinic_ai.control.client import NoDaemon
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import EventView, TopicView
from clinic_ai.errors import ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.tui import feed as feeds
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.feed import Again, Feed, Lost, Picture, Told

GONE = NoDaemon("No daemon answers.", remedy="Start it.")
FULL = Conflict("16 readers follow the events already.", remedy="Close a terminal that is not needed.")
QUIET_S = 0.3
"""Nothing more comes if nothing came in this time."""


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "CALM_S", 0.02)


def event(seq: int) -> EventView:
    return EventView(seq=seq, at=NOW, action="study.moved", subject="S-1")


class Daemon:
    """Stands in for the client. ``streams`` gives what each following yields, or the error it raises; then it waits."""

    def __init__(self, *streams: list[EventView | TopicView] | ClinicError) -> None:
        self.asked: list[float] = []
        self.followed: list[int | None] = []
        self.status_error: ClinicError | None = None
        self.takes_s = 0.0
        self._streams = list(streams)
        self.ended = threading.Event()
        self.told = threading.Event()

    @contextmanager
    def connect(self) -> Iterator[TerminalClient]:
        yield cast(TerminalClient, self)

    def status(self) -> Any:
        self.asked.append(time.monotonic())
        time.sleep(self.takes_s)
        if self.status_error is not None:
            raise self.status_error
        return made_status()

    def follow(self, after: int | None = None) -> Iterator[EventView | TopicView]:
        self.followed.append(after)
        news = self._streams.pop(0) if self._streams else []
        if isinstance(news, ClinicError):
            raise news
        yield TopicView(topic="start")
        yield from news
        self.told.set()
        if not self._streams:
            self.ended.wait()


@dataclass(frozen=True)
class Wanted:
    name: str = "queue"
    topics: frozenset[str] = frozenset({"machine"})
    fetch: Callable[[TerminalClient], object] = lambda client: "answer"
    again: Again | None = None


@contextmanager
def fed(daemon: Daemon, wanted: Wanted | None = Wanted()) -> Iterator[queue.Queue[Told]]:
    answers: queue.Queue[Told] = queue.Queue()
    feed = Feed(daemon.connect, tell=answers.put)
    if wanted is not None:
        feed.want(wanted)
    feed.start()
    try:
        yield answers
    finally:
        feed.stop()
        daemon.ended.set()


def first(answers: queue.Queue[Told], right: Callable[[Told], bool]) -> Told:
    """Return the first answer that is right."""
    while True:
        answer = answers.get(timeout=20)
        if right(answer):
            return answer


def quiet(answers: queue.Queue[Told]) -> None:
    """Wait until no answer comes any more."""
    while True:
        try:
            answers.get(timeout=QUIET_S)
        except queue.Empty:
            return


def test_thousands_of_news_are_a_handful_of_fetches() -> None:
    daemon = Daemon([event(seq) for seq in range(1, 5001)])
    with fed(daemon) as answers:
        assert daemon.told.wait(20)
        quiet(answers)
        assert 2 <= len(daemon.asked) <= 6


def test_what_only_a_topic_moved_is_fetched_alone_and_the_rest_with_the_next_change() -> None:
    daemon = Daemon([])
    moved: queue.Queue[EventView | TopicView] = queue.Queue()
    daemon.follow = lambda after=None: iter(moved.get, None)  # type: ignore[method-assign,assignment]
    wanted = Wanted(again=lambda client, status: f"again for {status.person}")
    try:
        with fed(daemon, wanted) as answers:
            assert answers.get(timeout=20).answer == "answer"
            moved.put(TopicView(topic="machine"))
            assert answers.get(timeout=20).answer == "again for tess"
            moved.put(event(1))
            assert answers.get(timeout=20).answer == "answer"
            moved.put(TopicView(topic="machine"))
            assert answers.get(timeout=20).answer == "again for tess"
    finally:
        moved.put(None)


def test_all_is_fetched_at_times_though_only_topics_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "UNTOLD_S", 0.05)
    with fed(Daemon([]), Wanted(again=lambda client, status: "again")) as answers:
        assert [answers.get(timeout=20).answer for _ in range(4)] == ["answer"] * 4


def test_a_slow_daemon_is_left_in_peace_between_two_answers() -> None:
    daemon = Daemon([event(seq) for seq in range(1, 100)])
    daemon.takes_s = 0.1
    with fed(daemon) as answers:
        for _ in range(2):
            answers.get(timeout=20)
        began = daemon.asked
        assert began[1] - began[0] >= 0.1 * (1 + feeds.SHARE) * 0.99


def test_nothing_is_asked_while_nothing_changes() -> None:
    daemon = Daemon([])
    with fed(daemon) as answers:
        answers.get(timeout=20)
        answers.get(timeout=20)  # following began: what had changed before is seen
        with pytest.raises(queue.Empty):
            answers.get(timeout=QUIET_S)
        assert len(daemon.asked) == 2


def test_a_daemon_that_goes_and_comes_back_is_told_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RETRY_S", 0.01)
    daemon = Daemon([event(7)], [])
    daemon.status_error = GONE
    with fed(daemon) as answers:
        lost = answers.get(timeout=20)
        assert isinstance(lost, Lost)
        assert (lost.sentence, lost.remedy) == (GONE.message, GONE.remedy)
        assert not daemon.followed, "nobody follows a daemon that does not answer"
        daemon.status_error = None
        found = first(answers, lambda answer: isinstance(answer, Picture))
        assert isinstance(found, Picture)
        assert found.answer == "answer"


def test_the_stream_is_taken_up_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RETRY_S", 0.01)
    daemon = Daemon([event(41), event(42)], NotFound("There is no event 42.", remedy=""), [])
    with fed(daemon):
        deadline = time.monotonic() + 20
        while len(daemon.followed) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert daemon.followed[:3] == [None, 42, None]


def test_a_full_stream_means_asking_now_and_then_and_saying_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "UNFOLLOWED_S", 0.05)
    daemon = Daemon(FULL, FULL, FULL, [])
    with fed(daemon) as answers:
        noted = first(answers, lambda answer: isinstance(answer, Picture) and answer.note != "")
        assert isinstance(noted, Picture)
        assert FULL.message in noted.note
        assert FULL.remedy in noted.note
        assert daemon.told.wait(20)
        last = first(answers, lambda answer: isinstance(answer, Picture) and answer.note == "")
        assert isinstance(last, Picture)
        assert len(daemon.followed) == 4


@pytest.mark.parametrize(("topic", "fetched"), [("machine", True), ("log", False)])
def test_only_the_topics_that_are_wished_are_fetched_for(topic: str, fetched: bool) -> None:
    daemon = Exhibit({"studies": None})
    answers: queue.Queue[Told] = queue.Queue()
    feed = Feed(daemon.connect, tell=answers.put)
    feed.want(Wanted())
    feed.start()
    try:
        answers.get(timeout=20)
        quiet(answers)
        daemon.tell(TopicView(topic=topic))
        if fetched:
            assert isinstance(answers.get(timeout=20), Picture)
        else:
            with pytest.raises(queue.Empty):
                answers.get(timeout=QUIET_S)
    finally:
        feed.stop()
        daemon.close()


def test_what_the_daemon_refuses_comes_instead_of_the_answer() -> None:
    refusal = NotAllowed("This needs the role clinician.", remedy="")

    def fetch(client: TerminalClient) -> object:
        raise refusal

    with fed(Daemon([]), Wanted(fetch=fetch)) as answers:
        answer = answers.get(timeout=20)
        assert isinstance(answer, Picture)
        assert (answer.answer, answer.refusal) == (None, refusal)


def test_without_a_wish_there_is_the_status_alone() -> None:
    with fed(Daemon([]), None) as answers:
        answer = answers.get(timeout=20)
        assert isinstance(answer, Picture)
        assert (answer.view, answer.answer) == ("", None)


# ---------------------------------------------------------------- with the screens


def test_keys_work_while_thousands_of_things_happen() -> None:
    exhibit = Exhibit({"shelf": FULL})

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        for seq in range(5000):
            exhibit.tell(event(seq))
        for key, name in (("8", "models"), ("2", "study"), ("1", "queue")):
            await pilot.press(key)
            assert app.place.name == name
        await until(pilot, lambda: exhibit.told() == 5000, "all should have been heard")
        assert 1 <= len(exhibit.sent("queue")) <= 50

    play(exhibit, script)


def test_a_fault_of_the_program_ends_it_instead_of_showing_the_past_for_ever() -> None:
    exhibit = Exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        exhibit.answers["queue"] = _raise_key_error
        exhibit.tell(event(1))
        await until(pilot, lambda: app.return_code == 1, "the fault should end it")

    with pytest.raises(KeyError, match="no such field"):
        play(exhibit, script)


def test_a_fault_says_where_it_lies_and_nothing_of_a_patient(capsys: pytest.CaptureFixture[str]) -> None:
    exhibit = Exhibit()

    def fault(*_: Any, **__: Any) -> None:
        patient = "MUELLER^HANS"
        raise KeyError(patient)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "linked")
        exhibit.answers["queue"] = fault
        exhibit.tell(event(1))
        await until(pilot, lambda: app.return_code == 1, "the fault should end it")

    with pytest.raises(KeyError):
        play(exhibit, script)
    told = capsys.readouterr().err
    assert "KeyError at" in told
    assert "queue.py:" in told
    assert "MUELLER" not in told


def _raise_key_error(*_: Any, **__: Any) -> None:
    raise KeyError("no such field")


def test_a_daemon_that_has_too_many_readers_still_shows_what_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "UNFOLLOWED_S", 0.2)
    monkeypatch.setattr(events, "MAX_READERS", 1)
    with control_room(tmp_path / "h") as room, room.client() as other, closing(other.follow()) as stream:
        next(stream)

        async def run() -> None:
            app = ClinicApp(room.home)
            async with app.run_test(size=(140, 40)) as pilot:
                await shows(pilot, "Changes are seen within")
                study_id = room.add_study()
                await until(pilot, lambda: study_id in screen(app), "the study should appear all the same")

        asyncio.run(run())
