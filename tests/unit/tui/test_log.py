"""The screen of the log: live, found, narrowed, copied; and that it draws only what is visible."""

from __future__ import annotations

import pytest
from review_exhibit import told
from screens import NOW, SIZES, Exhibit, made_status, picture, play, screen, shows, until
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from clinic_ai.control.client import NoDaemon
from clinic_ai.control.log_views import ChangesView, LogLineView, LogPage
from clinic_ai.control.views import EventView, Role, StudyPage, TopicView
from clinic_ai.tui.app import ClinicApp
from clinic_ai.tui.logpane import LogPane
from clinic_ai.tui.logreader import MOST_LINES, LogReader

STUDY, RUN = "S-20261121-7F3K9QXB", "R-20261121-7F3K9QXB"
KINDS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("info", "job.done", {"job": "J-20261121-7F3K9QXB", "study": STUDY, "kind": "analyse", "plugin": "xray"}),
    ("warning", "alert", {"code": "held", "subject": STUDY, "sentence": "It is held.", "remedy": "Review it."}),
    ("error", "run.failed", {"run": RUN, "error": "OSError", "at": "a.py:1, b.py:2"}),
    ("info", "network.listening", {"bind": "127.0.0.1", "port": "11112"}),
)
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


class Daemon:
    """A daemon that logs; counts its lines anew when it begins anew."""

    def __init__(self, lines: int) -> None:
        self.began = NOW - 3600
        self.lines: list[LogLineView] = []
        for _ in range(lines):
            self.log(*KINDS[len(self.lines) % len(KINDS)])
        self.changes = [EventView(seq=9, at=NOW - 901, action="study.closed", subject=STUDY)] if lines else []

    def log(self, level: str, event: str, fields: dict[str, str]) -> None:
        seq = len(self.lines) + 1
        self.lines.append(LogLineView(seq=seq, at=NOW - 900 + seq, level=level, event=event, fields=fields))

    def begin_anew(self) -> None:
        self.began, self.lines = self.began + 60, []

    def page(self, after: int | None = None, limit: int = 500) -> LogPage:
        last = len(self.lines)
        known = after if after is not None and after <= last else 0
        lines = tuple(self.lines[known:][-limit:])
        return LogPage(began=self.began, last=last, missed=0, lines=lines)

    def exhibit(self, **changes: object) -> Exhibit:
        def told(after: int | None = None, limit: int = 200) -> ChangesView:
            return ChangesView(changes=tuple(c for c in self.changes if after is None or c.seq > after))

        answers = {"log": self.page, "changes": told, "studies": StudyPage(studies=(), next_before=None)}
        return Exhibit(answers, status=made_status(**changes))


@sizes
def test_nothing_was_logged(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(Daemon(0).exhibit(), "log", "Nothing was logged", size=size) == pictures


@sizes
def test_much_was_logged(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    assert picture(Daemon(40).exhibit(role=Role.TECHNICIAN), "log", "41 lines", size=size) == pictures


@sizes
def test_the_daemon_is_gone(pictures: SnapshotAssertion, size: tuple[int, int]) -> None:
    exhibit = Daemon(40).exhibit()

    async def lose(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "41 lines")
        exhibit.answers["status"] = NoDaemon("No daemon answers.", remedy="Start it.")
        exhibit.tell(TopicView(topic="start"))

    assert picture(exhibit, "log", "No daemon answers", size=size, after=lose) == pictures


def test_it_follows_until_one_moves_up_and_then_stands_still() -> None:
    daemon = Daemon(40)
    exhibit = daemon.exhibit()

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "▼ following")
        daemon.log("info", "newest.one", {})
        exhibit.tell(TopicView(topic="log"))
        await shows(pilot, "newest.one")
        await pilot.press("k")
        await shows(pilot, "‖ standing still")
        before = [line[:78] for line in screen(app).splitlines() if line.startswith("│")]
        for _ in range(30):
            daemon.log("info", "one.more", {})
        exhibit.tell(TopicView(topic="log"))
        await shows(pilot, "72 lines")
        assert [line[:78] for line in screen(app).splitlines() if line.startswith("│")] == before
        await pilot.press("f")
        await shows(pilot, "one.more")
        await pilot.press("g")
        assert app.query_one(LogPane).cursor == 0
        await pilot.press("G")
        await shows(pilot, "▼ following")

    play(exhibit, script, place="log")


def test_words_are_found_forwards_and_backwards() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "41 lines")
        pane = app.query_one(LogPane)
        await pilot.press("slash", *"OSError", "enter")
        await shows(pilot, "10 with “OSError”")
        found = pane.cursor
        assert pane.entries[found].event == "run.failed"
        await pilot.press("N")
        assert pane.cursor < found
        await pilot.press("n")
        assert pane.cursor == found
        await pilot.press("slash", *" nowhere", "enter")
        await told(pilot, "No line has the words")
        await pilot.press("escape")
        await until(pilot, lambda: "with “" not in screen(app), "escape should end it")

    play(Daemon(40).exhibit(), script, place="log")


def test_lines_are_narrowed_by_level_study_run_worker_and_without_the_audit() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "41 lines")
        await pilot.press("a")
        await shows(pilot, "40 of 41 lines")
        await pilot.press("v")
        await shows(pilot, "20 of 41 lines  only warning and above, without the audit")
        await pilot.press("v")
        await shows(pilot, "10 of 41 lines")
        await pilot.press("escape", "s")
        await told(pilot, "No study is in hand")
        app.study_id = STUDY
        await pilot.press("s")
        await shows(pilot, f"21 of 41 lines  only study {STUDY}")
        await pilot.press("s", "r", "j", "enter")
        await shows(pilot, f"10 of 41 lines  only run {RUN}")
        await pilot.press("r", "enter", "w")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the workers should be shown")
        names = [label for _, label in app.screen._options]  # type: ignore[attr-defined]
        assert names == ["all", "alert", "job", "network", "run", "study", "xray"]
        await pilot.press(*"jjj", "enter")
        await shows(pilot, "10 of 41 lines  only worker network")

    play(Daemon(40).exhibit(), script, place="log", size=(140, 40))


def test_the_line_under_the_cursor_is_copied() -> None:
    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "3 lines")
        await pilot.press("g", "j", "j", "y")
        assert app.clipboard == f"2026-11-21 11:45:02 warning alert code=held subject={STUDY} sentence=It is held. " + (
            "remedy=Review it."
        )

    play(Daemon(2).exhibit(), script, place="log")


def test_a_daemon_that_began_anew_is_read_from_its_beginning_and_old_lines_stay() -> None:
    daemon = Daemon(3)
    exhibit = daemon.exhibit()
    reader = LogReader()
    with exhibit.connect() as client:
        assert len(reader.read(client)) == 4
        assert reader.read(client) is reader.read(client), "nothing new is the very same"
        daemon.begin_anew()
        daemon.changes = []
        for _ in range(2):
            daemon.log("info", "daemon.ready", {})
        assert [line.event for line in reader.read(client)].count("daemon.ready") == 2
        assert len(reader.read(client)) == 5


def test_it_keeps_no_more_than_some_thousands_of_lines_and_says_what_it_missed() -> None:
    daemon = Daemon(0)
    exhibit = daemon.exhibit()
    reader = LogReader()
    with exhibit.connect() as client:
        for _ in range(5):
            for _ in range(1000):
                daemon.log("info", "many", {})
            lines = reader.read(client)
        assert len(lines) == MOST_LINES
        exhibit.answers["log"] = LogPage(began=daemon.began, last=9000, missed=7, lines=(daemon.lines[-1],))
        assert any(line.event == "log.missed" and line.fields["lines"] == "7" for line in reader.read(client))


def test_thousands_of_lines_are_drawn_one_screen_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = LogPane.render_line

    def counted(self: LogPane, y: int) -> object:
        drawn.append(y)
        return draw(self, y)

    monkeypatch.setattr(LogPane, "render_line", counted)

    async def script(app: ClinicApp, pilot: Pilot[None]) -> None:
        await shows(pilot, "2000 lines")
        drawn.clear()
        await pilot.press("k")
        await pilot.pause()
        assert 0 < len(drawn) <= 3 * app.size.height

    daemon = Daemon(2000)
    daemon.changes = []
    play(daemon.exhibit(), script, place="log")
