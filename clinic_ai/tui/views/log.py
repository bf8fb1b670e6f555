"""The sixth screen: the log of the daemon as it is written, and the changes that the audit records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from clinic_ai.control.log_views import Level, LogLineView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.tui.feed import Fetch
from clinic_ai.tui.logpane import AUDIT, SIGNS, LogPane, plain
from clinic_ai.tui.logreader import LogReader
from clinic_ai.tui.screens import Choose
from clinic_ai.tui.view import ClinicView

_EVERYTHING = ""
"""What stands for no filter in a list to choose from."""


@dataclass(frozen=True)
class Wanted:
    """Which lines are shown; empty words let all through."""

    level: Level = Level.DEBUG
    study: str = ""
    run: str = ""
    worker: str = ""
    audit: bool = True

    def lets(self, line: LogLineView) -> bool:
        """Return whether a line is shown."""
        if line.level == AUDIT and not self.audit:
            return False
        named = all(name in line.fields.values() or name in line.line for name in (self.study, self.run) if name)
        return named and line.weighs(self.level) and (not self.worker or line.is_of(self.worker))

    @property
    def words(self) -> str:
        """What is left out, in words; empty if nothing is."""
        parts = [
            "" if self.level is Level.DEBUG else f"{self.level.value} and above",
            self.study and f"study {self.study}",
            self.run and f"run {self.run}",
            self.worker and f"worker {self.worker}",
            "" if self.audit else "without the audit",
        ]
        return ", ".join(filter(None, parts))


class LogView(ClinicView):
    """The log, live: found, narrowed and copied."""

    NAME = "log"
    TITLE = "Log"
    TOPICS = frozenset({"log"})
    DEFAULT_CSS = """
    LogView #log-facts { height: 1; padding: 0 1; }
    LogView #log-find { display: none; height: 1; padding: 0 1; }
    LogView #log-line { height: 6; border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    LogView #log-line:focus { border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow", id="log.follow", tooltip="Stay with the newest line, or stand still"),
        Binding("slash", "find", "Find", id="log.find", tooltip="Find words; n and N go to the next and the last"),
        Binding("n", "next(1)", "Next", show=False, id="log.next", tooltip="Next line with the words, downwards"),
        Binding("N", "next(-1)", "Before", show=False, id="log.before", tooltip="Next line with the words, upwards"),
        Binding("v", "level", "Level", id="log.level", tooltip="Only warnings and errors, only errors, or all"),
        Binding("s", "study", "Study", id="log.study", tooltip="Only lines of the study in hand, or of all"),
        Binding("r", "run", "Run", id="log.run", tooltip="Only lines of one training run"),
        Binding("w", "worker", "Worker", id="log.worker", tooltip="Only lines of one plugin, lane, inbox or part"),
        Binding("a", "audit", "Audit", id="log.audit", tooltip="With or without the changes that the audit records"),
        Binding("escape", "clear", "All", show=False, id="log.all", tooltip="Show all lines, look for nothing"),
        Binding("j", "move(1)", "Down", show=False, id="log.down", tooltip="One line down"),
        Binding("k", "move(-1)", "Up", show=False, id="log.up", tooltip="One line up"),
        Binding("g", "end(-1)", "Oldest", show=False, id="log.oldest", tooltip="The oldest line that is kept"),
        Binding("G", "end(1)", "Newest", show=False, id="log.newest", tooltip="The newest line, and follow"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader = LogReader()
        self._lines: tuple[LogLineView, ...] = ()
        self._wanted = Wanted()
        self._fetched = False
        self._found = 0

    def compose(self) -> ComposeResult:
        """Lay out what is shown, the words to find, the lines, and all of the one under the cursor."""
        yield Static(id="log-facts")
        yield Input(placeholder="Words to find; Enter goes to the first, Escape leaves", id="log-find", compact=True)
        yield LogPane()
        with VerticalScroll(id="log-line"):
            yield Static(id="log-words")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one("#log-line").border_title = "Line"
        self._draw()

    def focus_first(self) -> None:
        """Put the focus on the lines."""
        self.query_one(LogPane).focus()

    def fetching(self) -> Fetch:
        """Return what reads the log on."""
        reader = self._reader

        def fetch(client: TerminalClient) -> object:
            return reader.read(client)

        return fetch

    def show(self, answer: object) -> None:
        """Draw the lines."""
        if isinstance(answer, tuple) and (answer is not self._lines or not self._fetched):
            self._lines, self._fetched = answer, True
            self._narrow()

    def copied(self) -> str:
        """Return the line under the cursor."""
        line = self.query_one(LogPane).current
        return "" if line is None else f"{_moment(line)} {line.level} {plain(line.line)}"

    # ------------------------------------------------------------ drawing

    def _narrow(self) -> None:
        pane = self.query_one(LogPane)
        pane.show([line for line in self._lines if self._wanted.lets(line)])
        self._count()
        self._draw()

    def _count(self) -> None:
        """Count the lines with the words that are looked for: once, not at each key."""
        pane = self.query_one(LogPane)
        self._found = sum(1 for line in pane.entries if line.has(pane.words)) if pane.words else 0

    @on(LogPane.Moved)
    def _draw(self) -> None:
        pane = self.query_one(LogPane)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append("▼ following" if pane.following else "‖ standing still (f follows)", style="bold")
        kept, all_of_it = len(pane.entries), len(self._lines)
        text.append(f"  {kept} of {all_of_it} lines" if kept != all_of_it else f"  {kept} lines")
        if self._wanted.words:
            text.append(f"  only {self._wanted.words} (Escape shows all)", style="bold yellow")
        if pane.words:
            text.append(f"  {self._found} with “{plain(pane.words)}”", style="bold")
        self.put("#log-facts", text)
        self.put("#log-words", self._line_text(pane.current))

    def _line_text(self, line: LogLineView | None) -> Text:
        if line is None:
            if not self._fetched:
                return Text("")
            return Text("No line is like that." if self._lines else "Nothing was logged since the daemon started.")
        text = Text()
        sign, colour = SIGNS.get(line.level, ("?", ""))
        text.append(f"{_moment(line)} ", style="bright_black")
        text.append(f"{sign} {line.level} ", style=colour)
        text.append(f"{plain(line.event)}\n", style="bold")
        first = [key for key in ("sentence", "remedy") if key in line.fields]
        for key in dict.fromkeys([*first, *line.fields]):
            value = line.fields[key]
            text.append(f"{plain(key)}: ", style="bright_black")
            text.append(f"{plain(value)}\n")
        return text

    # ------------------------------------------------------------ keys

    def action_follow(self) -> None:
        """Follow, or stand still."""
        pane = self.query_one(LogPane)
        pane.follow(following=not pane.following)

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.query_one(LogPane).action_go(by)

    def action_end(self, which: int) -> None:
        """Go to the oldest or the newest line."""
        pane = self.query_one(LogPane)
        if which < 0:
            pane.action_first()
        else:
            pane.action_last()

    def action_find(self) -> None:
        """Ask for words."""
        box = self.query_one("#log-find", Input)
        box.display = True
        box.focus()

    @on(Input.Changed, "#log-find")
    def _look(self, event: Input.Changed) -> None:
        self.query_one(LogPane).look_for(event.value)
        self._count()
        self._draw()

    @on(Input.Submitted, "#log-find")
    def _looked(self) -> None:
        self.query_one("#log-find").display = False
        self.focus_first()
        self.action_next(-1)  # what was looked for is mostly what happened last

    def action_next(self, step: int) -> None:
        """Go to the next line that has the words."""
        pane = self.query_one(LogPane)
        if not pane.words:
            self.clinic.notify("Press / and type words to find.")
        elif not pane.next_found(step):
            self.clinic.notify(f"No line has the words {pane.words}.", markup=False)

    def action_clear(self) -> None:
        """Show all lines and look for nothing."""
        box = self.query_one("#log-find", Input)
        box.value = ""
        box.display = False
        self._wanted = Wanted()
        self.focus_first()
        self._narrow()

    def action_level(self) -> None:
        """Show the next level and above."""
        steps = (Level.DEBUG, Level.WARNING, Level.ERROR)
        self._want(replace(self._wanted, level=steps[(steps.index(self._wanted.level) + 1) % len(steps)]))

    def action_audit(self) -> None:
        """Show the changes of the audit, or leave them out."""
        self._want(replace(self._wanted, audit=not self._wanted.audit))

    def action_study(self) -> None:
        """Show only lines of the study in hand, or of all."""
        if self._wanted.study:
            self._want(replace(self._wanted, study=""))
        elif self.clinic.study_id is None:
            self.clinic.notify("No study is in hand; choose one in the queue (key 1).")
        else:
            self._want(replace(self._wanted, study=self.clinic.study_id))

    def action_run(self) -> None:
        """Let a person choose a training run."""
        runs = {line.fields["run"] for line in self._lines if "run" in line.fields}
        runs |= {subject for line in self._lines if (subject := line.fields.get("subject", "")).startswith("R-")}
        newest_first = sorted(runs, reverse=True)
        self._choose(
            "Lines of which training run?", newest_first, lambda run: self._want(replace(self._wanted, run=run))
        )

    def action_worker(self) -> None:
        """Let a person choose who did it."""
        names = {name for line in self._lines for name in line.workers}
        self._choose("Lines of whom?", sorted(names), lambda name: self._want(replace(self._wanted, worker=name)))

    def _choose(self, question: str, names: Iterable[str], chosen: Callable[[str], None]) -> None:
        options = [(_EVERYTHING, "all"), *((name, name) for name in names)]

        def decided(name: str | None) -> None:
            if name is not None:
                chosen(name)

        self.clinic.push_screen(Choose(question, options), decided)

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._narrow()


def _moment(line: LogLineView) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))


VIEW = LogView
