"""The fourth screen: tonight's plan and budget, the run at work, and what came of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import DataTable, Static

from clinic_ai.control.forecast_views import ForecastOrder, ForecastView
from clinic_ai.control.night_views import ExpectedView, SpendingView, TonightView
from clinic_ai.control.progress_views import HistoryView
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.control.views import Role, RunRow, StatusView
from clinic_ai.errors import NotFound
from clinic_ai.promoting import PromotionRecord
from clinic_ai.tui import night_words as words
from clinic_ai.tui.candidates import DecidingView, Named, deciding_keys
from clinic_ai.tui.card import Card
from clinic_ai.tui.feed import Again, Fetch
from clinic_ai.tui.forecast_words import forecast_text
from clinic_ai.tui.gate_words import record_text
from clinic_ai.tui.measures import line, moment
from clinic_ai.tui.run_dialog import ask_for_run, check_words
from clinic_ai.tui.screens import Choose, Confirm
from clinic_ai.tui.table import Column, KeyedTable, cell

RUNS = 40
"""Runs shown; the newest. ``clinic-ai train list`` shows all."""
_ORDER = {"RUNNING": 0, "PAUSED": 1, "PLANNED": 2}
_OVER = 3
_PLAN = "plan:"
_COLUMNS = (Column("state", 10, 10), Column("what", 24, 26), Column("when", 0, 10), Column("how it stands"))


@dataclass(frozen=True)
class Shown:
    """All of the night, and more of the run in hand: its curves, and what stands behind what it made."""

    runs: tuple[RunRow, ...]
    outlook: TonightView
    spending: SpendingView
    chosen: str | None
    history: HistoryView | None
    record: PromotionRecord | None


class NightView(DecidingView):
    """The night: window, budget, plans and runs, with all of the one under the cursor."""

    NAME = "night"
    TITLE = "Night"
    TOPICS: ClassVar[frozenset[str]] = frozenset({"runs"})
    ORDERS: ClassVar[Mapping[str, Role]] = {
        **DecidingView.ORDERS,
        "start": Role.ADMINISTRATOR,
        "pause": Role.ADMINISTRATOR,
        "stop": Role.ADMINISTRATOR,
        "estimate": Role.ADMINISTRATOR,
    }
    SCOPED_CSS = False
    DEFAULT_CSS = """
    #night-top { height: auto; max-height: 6; padding: 0 1; }
    #night-list { height: 7; border: round $primary; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #night-list:focus, #night-details:focus { border: round $accent; }
    #night-details { height: 1fr; border: round $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    #night-facts { height: auto; }
    #body.wide #night-list { width: 10fr; height: 1fr; }
    #body.wide #night-details { width: 11fr; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "start", "New run", id="night.start", tooltip="Start a training run (asks what and when)"),
        Binding("space", "pause", "Pause or go on", id="night.pause", tooltip="Pause the run, or let it go on"),
        Binding("x", "stop", "Stop", id="night.stop", tooltip="Stop the run for good at its next safe point (asks)"),
        Binding("f", "forecast", "Forecast", id="night.forecast", tooltip="Say what the run would bring if it went on"),
        Binding("e", "estimate", "Estimate", show=False, id="night.estimate", tooltip="Ask what tonight will cost"),
        Binding("l", "ledger", "Ledger", show=False, id="night.ledger", tooltip="All that training cost of late"),
        *deciding_keys("night", examining=False),
        Binding("j", "move(1)", "Down", show=False, id="night.down", tooltip="The next one"),
        Binding("k", "move(-1)", "Up", show=False, id="night.up", tooltip="The one before"),
        Binding(
            "J", "scroll_details(1)", "Scroll", show=False, id="night.scroll_down", tooltip="Scroll the details down"
        ),
        Binding("K", "scroll_details(-1)", "Back", show=False, id="night.scroll_up", tooltip="Scroll the details up"),
        Binding("g", "jump(0)", "First", show=False, id="night.first", tooltip="The first one"),
        Binding("G", "jump(-1)", "Last", show=False, id="night.last", tooltip="The last one"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: Shown | None = None
        self._asked: TonightView | None = None
        """What tonight will cost, as trainers told when a person asked."""
        self._wanted: str | None = None
        self._decided_upon = False
        """Whether the keys that decide about a candidate are there."""
        self._progress: dict[str, tuple[object, float]] = {}
        """By run: the progress it told last, and when that came."""

    def compose(self) -> ComposeResult:
        """Lay out window and budget, the list, and all of one."""
        yield Static(id="night-top")
        with Container(classes="split"):
            yield KeyedTable(_COLUMNS, widget_id="night-list", wide_from=70)
            with VerticalScroll(id="night-details"):
                yield Static(Text("Asking the daemon …", style="dim"), id="night-facts")

    def on_mount(self) -> None:
        """Name the parts."""
        self.query_one("#night-list").border_title = "Plans and runs"

    def on_resize(self) -> None:
        """Draw the curves as wide as there is room."""
        self.call_after_refresh(self._draw)

    def focus_first(self) -> None:
        """Put the focus on the list."""
        self._list.focus()

    @property
    def _list(self) -> KeyedTable:
        return self.query_one("#night-list", KeyedTable)

    # ------------------------------------------------------------ what is fetched

    def fetching(self) -> Fetch:
        """Return what fetches the night, and more of the run in hand."""
        wanted = self._wanted
        status = self.clinic.status
        reads = status is not None and status.role.covers(Role.CLINICIAN)

        def fetch(client: TerminalClient) -> Shown:
            runs = in_order(client.runs())
            outlook, spending = client.outlook(), client.spending()
            keys = list(rows_of(runs, outlook))
            chosen = wanted if wanted in keys else next(iter(keys), None)
            run = next((run for run in runs if run.run_id == chosen), None)
            history = None if run is None else client.run_history(run.run_id)
            made = None if run is None else candidate_of(run)
            record = None if made is None or not reads else _record(client, made)
            return Shown(runs, outlook, spending, chosen, history, record)

        return fetch

    def fetching_again(self) -> Again | None:
        """Return what fetches the curves of the run in hand; how far it is, the status says.

        Everything else of the night moves with a row of the audit, or so slowly that the next whole fetch is in time.
        """
        whole = self.fetching()

        def fetch(client: TerminalClient, status: StatusView) -> Shown:
            before, wanted = self._shown, self._wanted  # these never change, but are replaced
            living = {run.run_id: run for run in status.runs}
            if before is None or _living(before.runs) != {(run.run_id, run.state) for run in status.runs}:
                return cast("Shown", whole(client))
            runs = tuple(living.get(run.run_id, run) for run in before.runs)
            at_work = wanted in living and living[wanted].state == "RUNNING"
            history = client.run_history(wanted) if wanted is not None and at_work else before.history
            return replace(before, runs=runs, history=history)

        return fetch

    def show(self, answer: object) -> None:
        """Draw the night."""
        if not isinstance(answer, Shown):
            return
        now = self.clinic.clock()
        for run in answer.runs:
            if run.run_id not in self._progress or self._progress[run.run_id][0] != run.progress:
                self._progress[run.run_id] = (run.progress, now)
        listed = self.query_one("#night-list")
        more = f"the newest {RUNS}; `clinic-ai train list` has all" if len(answer.runs) == RUNS else ""
        if listed.border_subtitle != more:
            listed.border_subtitle = more
        fresh = self._shown is None
        self._shown = answer
        if self._wanted is None or self._wanted not in rows_of(answer.runs, answer.outlook):
            self._wanted = answer.chosen
        self._draw(self._wanted if fresh else None)
        self.call_after_refresh(self._draw_details)  # the curves fill the room there is once all is laid out

    def tick(self, now: float) -> None:  # noqa: ARG002 - the clock of the app is the same
        """Let countdowns go on."""
        self._draw()

    # ------------------------------------------------------------ drawing

    def _draw(self, selected: str | None = None) -> None:
        shown, now = self._shown, self.clinic.clock()
        if shown is None:
            return
        width = self.size.width - 2
        top = words.window_text(shown.outlook, now)
        if shown.spending.limits:
            top.append("\n")
            top.append_text(words.budget_text(shown.spending, width))
        self.put("#night-top", top)
        table = {}
        for key, row in rows_of(shown.runs, shown.outlook).items():
            table[key] = self._cells(row, now)
        self._list.show(table, selected)
        self._draw_details()

    def _cells(self, row: RunRow | ExpectedView, now: float) -> tuple[Text, ...]:
        if isinstance(row, RunRow):
            stands = words.stands(row, self._told_at(row), now)
            when = row.finished_at or row.started_at or row.created_at
            return words.state_text(row.state), cell(words.subject_of(row)), cell(moment(when, now)), cell(stands)
        state = cell("+ due", "cyan") if row.due else cell("– not due", "dim")
        return state, cell(row.name), cell("plan"), cell(row.sentence)

    def _draw_details(self) -> None:
        shown, now = self._shown, self.clinic.clock()
        if shown is None:
            return
        rows = rows_of(shown.runs, shown.outlook)
        row = rows.get(self._wanted or "")
        if row is None:
            starts = " n starts a run." if self.may("start") else ""
            self.put("#night-facts", Text(f"Nothing is planned, and nothing was trained yet.{starts}"))
            return
        box = self.query_one("#night-details")
        width = max(box.size.width - 3, 40)
        box.border_title = "Run" if isinstance(row, RunRow) else "Plan"
        if isinstance(row, RunRow):
            self.put("#night-facts", self._run_text(shown, row, now, width, max(min(box.size.height // 3, 11), 5)))
        else:
            self.put("#night-facts", words.plan_text(self._estimated(row), shown.outlook.currency))
        if self.decidable("approve") != self._decided_upon:
            self._decided_upon = not self._decided_upon
            self.refresh_bindings()

    def _run_text(self, shown: Shown, run: RunRow, now: float, width: int, tall: int) -> Text:
        text = words.run_text(run, told_at=self._told_at(run), now=now, width=width)
        history = shown.history if shown.history is not None and shown.history.run_id == run.run_id else None
        made = candidate_of(run)
        if made is not None:
            self._made(text, shown, made, width)
        if history is not None:
            words.curves(text, history, width, tall)
        expected = next((each for each in shown.outlook.expected if each.name == run.run_id), None)
        if expected is not None and run.state != "RUNNING":
            words.cost(text, self._estimated(expected), shown.outlook.currency)
        text.append_text(words.spent_text(shown.spending, run.run_id, now))
        recipe = ", ".join(f"{key}={value}" for key, value in run.recipe.items()) or "as the plugin has it"
        line(text, "Recipe", recipe)
        line(text, "Dataset", run.dataset_id)
        for note in (run.result or {}).get("notes", ()):
            line(text, "Note", str(note))
        return text

    def _made(self, text: Text, shown: Shown, made: Named, width: int) -> None:
        line(text, "It made", f"the candidate {made.words}")
        if shown.record is not None and shown.record.model.version == made.version:
            text.append_text(record_text(shown.record, width))
        elif not self.clinic.status or not self.clinic.status.role.covers(Role.CLINICIAN):
            text.append("How it compares with the model in use, a clinician or an administrator can see here.\n")

    def _estimated(self, row: ExpectedView) -> ExpectedView:
        """Return a row with what its trainer told about its cost, if a person asked that before."""
        asked = () if self._asked is None else self._asked.expected
        return next((told for told in asked if told.name == row.name and row.due and row.estimate is None), row)

    def _told_at(self, run: RunRow) -> float:
        return self._progress.get(run.run_id, (None, self.clinic.clock()))[1]

    @on(DataTable.RowHighlighted)
    def _chosen(self) -> None:
        selected = self._list.selected
        if selected is not None and selected != self._wanted and self._shown is not None:
            self._wanted = selected
            self.query_one("#night-details").scroll_home(animate=False)
            self._draw_details()
            self.refetch()

    def in_hand(self) -> Named | None:
        """Return the candidate that the run under the cursor made."""
        run = self._run()
        return None if run is None else candidate_of(run)

    def _run(self) -> RunRow | None:
        runs = () if self._shown is None else self._shown.runs
        return next((run for run in runs if run.run_id == self._wanted), None)

    def copied(self) -> str:
        """Return the id of the run under the cursor, or the name of the plan."""
        return (self._wanted or "").removeprefix(_PLAN)

    # ------------------------------------------------------------ keys

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._list.move_cursor(row=self._list.cursor_row + by)

    def action_scroll_details(self, by: int) -> None:
        """Scroll the details by half of what is seen."""
        box = self.query_one("#night-details")
        box.scroll_relative(y=by * max(box.size.height // 2, 1), animate=False)

    def action_jump(self, to: int) -> None:
        """Go to the first row, or with -1 to the last."""
        self._list.move_cursor(row=to if to >= 0 else self._list.row_count - 1)

    @work
    async def action_start(self) -> None:
        """Ask what is to be trained, look at its labels, say what would be learned, and start it."""
        plugins = await self.ask(lambda client: client.plugins())
        if plugins is None:
            return
        windows = self._shown is not None and self._shown.outlook.configured
        wanted = await ask_for_run(self.clinic, plugins, windows=windows)
        if wanted is None:
            return
        self.clinic.notify("The labels are being looked at; this may take a minute.")
        found = await self.ask(lambda client: client.check_labels(wanted.check))
        if found is None:
            return
        if found.problems:
            said = Text("\n".join(f"✗ {problem}" for problem in found.problems))
            said.append("\n\nNothing is started. Correct the labels, then try again.", style="bold")
            await self.clinic.push_screen(Card(f"{wanted.what}: {len(found.problems)} problems", said))
            return
        if not await self.clinic.push_screen_wait(Confirm(f"Train {wanted.what}?\n\n{check_words(found)}")):
            return
        self.clinic.notify("The labelled images are being frozen into a dataset; this may take minutes.")
        run = await self.ask(lambda client: client.start_run(wanted.order))
        if run is not None:
            self._wanted = run.run_id
            self.clinic.notify(f"Training run {run.run_id} is planned.", markup=False)
            self.refetch()

    @work
    async def action_pause(self) -> None:
        """Pause the run at work; let one go on that is paused, stopped or failed, or hasten one that waits."""
        run = self._run()
        if run is None or run.state == "FINISHED":
            self.clinic.notify("There is nothing to pause or to go on with here.")
            return
        run_id = run.run_id
        if run.state == "RUNNING":
            self.order(None, lambda client: client.pause_run(run_id))
            return
        at_once = await self._at_once(run)
        if at_once is not None:
            self.order(None, lambda client: client.resume_run(run_id, at_once=at_once))

    async def _at_once(self, run: RunRow) -> bool | None:
        """Return whether a run is not to wait for a window, asking if there is one to wait for; None: neither."""
        outlook = self._shown.outlook if self._shown is not None else None
        if outlook is None or not outlook.configured or outlook.opens_at is None:
            return run.state == "PLANNED"
        options = [("now", "now, without waiting for a window")]
        if run.state != "PLANNED":
            options.insert(0, ("window", f"in the next window, {moment(outlook.opens_at, self.clinic.clock())}"))
        chosen = await self.clinic.push_screen_wait(Choose(f"When is {run.run_id} to go on?", options))
        return None if chosen is None else chosen == "now"

    def action_stop(self) -> None:
        """Ask, then stop the run."""
        run = self._run()
        if run is None or run.state not in _ORDER:
            self.clinic.notify("Only a run that is planned, at work or paused can be stopped.")
            return
        run_id = run.run_id
        question = (
            f"Stop training run {run_id} ({words.subject_of(run)})?\nIt writes a checkpoint and does not go on by "
            "itself; space lets it go on later."
        )
        self.order(question, lambda client: client.stop_run(run_id))

    @work
    async def action_forecast(self) -> None:
        """Fit the law to the loss of the run, and show what more computing would bring."""
        run = self._run()
        if run is None:
            self.clinic.notify("A forecast is made of a run; choose one.")
            return
        run_id = run.run_id
        self.clinic.notify("The loss curve is being fitted; this takes some seconds.")
        found: ForecastView | None = await self.ask(lambda client: client.forecast_run(run_id, ForecastOrder()))
        if found is not None:
            self.clinic.push_screen(Card(f"Forecast of {run_id}", forecast_text(found, self.width_of_card())))

    @work
    async def action_estimate(self) -> None:
        """Ask the trainers of what is due tonight what it will cost."""
        self.clinic.notify("The trainers of what is due are being asked; this may take a minute.")
        found = await self.ask(lambda client: client.tonight())
        if found is not None:
            self._asked = found
            self._draw()

    def action_ledger(self) -> None:
        """Show all that training cost of late."""
        if self._shown is not None:
            self.clinic.push_screen(Card("Ledger", words.ledger_text(self._shown.spending, self.clinic.clock())))


def in_order(runs: tuple[RunRow, ...]) -> tuple[RunRow, ...]:
    """Return the run at work, then those that wait, then the newest of the others."""
    return tuple(sorted(runs, key=lambda run: (_ORDER.get(run.state, _OVER), -run.created_at))[:RUNS])


def rows_of(runs: tuple[RunRow, ...], outlook: TonightView) -> dict[str, RunRow | ExpectedView]:
    """Return what is listed, by key: runs that live, the plans of the settings, then runs that are over."""
    known = {run.run_id for run in runs}
    living = {run.run_id: run for run in runs if run.state in _ORDER}
    plans = {f"{_PLAN}{each.name}": each for each in outlook.expected if each.name not in known}
    return {**living, **plans, **{run.run_id: run for run in runs if run.state not in _ORDER}}


def _living(runs: tuple[RunRow, ...]) -> set[tuple[str, str]]:
    """Return the runs that the status tells of, with their states."""
    return {(run.run_id, run.state) for run in runs if run.state == "RUNNING" or (run.state in _ORDER and run.goes_on)}


def candidate_of(run: RunRow) -> Named | None:
    """Return the model that a run made, None if it made none yet."""
    made = (run.result or {}).get("candidate")
    return None if not made else Named(made["plugin"], made["name"], made["version"])


def _record(client: TerminalClient, made: Named) -> PromotionRecord | None:
    try:
        return client.model_record(made.plugin, made.name, made.version)
    except NotFound:
        return None


VIEW = NightView
