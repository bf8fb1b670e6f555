"""What people are told of the night: what will run and why, what it will cost before it starts, and what was spent."""

from __future__ import annotations

from collections.abc import Callable

from clinic_ai.clock import Clock
from clinic_ai.domain import RunState, Spent, Word
from clinic_ai.errors import ClinicError
from clinic_ai.hardware import Reading
from clinic_ai.settings import TrainingSettings
from clinic_ai.store import expenses
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.expenses import Expense
from clinic_ai.store.runs import RunPlan, RunView
from clinic_ai.training.agenda import Agenda, Due, recipe_of
from clinic_ai.training.calendar import Calendar
from clinic_ai.training.estimates import REMEMBERED_RUNS, Estimate, estimate
from clinic_ai.training.runs import Runs
from clinic_ai.training.stretch import second_of

ROWS = 100
"""Newest rows of the ledger that are shown."""
COMPARED = 10
"""Newest runs whose estimate is shown beside what they cost."""
_JOULES_PER_KWH = 3.6e6
_LIVING = frozenset({RunState.PLANNED, RunState.RUNNING, RunState.PAUSED})


class Expected(Word):
    """A ``[[training.plan]]`` or a run, whether it is trained in the next window, and what that will cost.

    ``estimate`` is None where it is not due, or where it cannot be told, which ``untold`` then says.
    """

    name: str
    plugin: str
    due: bool
    sentence: str
    remedy: str = ""
    estimate: Estimate | None = None
    untold: str = ""


class Tonight(Word):
    """What will be trained in the window that is open or opens next. Times in UTC seconds; None: there is none."""

    configured: bool
    opens_at: float | None
    closes_at: float | None
    expected: tuple[Expected, ...]
    currency: str
    may_sleep: str
    """Why the machine may go to sleep during a run; empty if nothing is known of that."""


class Limit(Word):
    """One budget and what is spent of it; a ``limit`` of 0 is none."""

    key: str
    unit: str
    spent: float
    limit: float


class Compared(Word):
    """What a run was to cost by its trainer's plan, and what it cost so far."""

    run_id: str
    plugin: str
    state: str
    planned_seconds: float
    planned_pf_days: float
    spent: Spent


class Spending(Word):
    """What training has used. ``night`` is the date on which this night began; the newest rows come first."""

    night: str
    year: int
    tonight: Spent
    this_year: Spent
    limits: tuple[Limit, ...]
    compared: tuple[Compared, ...]
    rows: tuple[Expense, ...]
    currency: str


class Outlook:
    """Answers what people ask about the night; any thread may call it."""

    def __init__(
        self,
        runs: Runs,
        database: Database,
        settings: Callable[[], TrainingSettings],
        agenda: Agenda,
        calendar: Calendar,
        clock: Clock,
        reading: Callable[[], Reading | None],
    ) -> None:
        self._runs = runs
        self._database = database
        self._settings = settings
        self._agenda = agenda
        self._calendar = calendar
        self._clock = clock
        self._reading = reading

    def tonight(self, may_sleep: str = "") -> Tonight:
        """Return what will run in the next window, and why or why not."""
        now, windows = self._clock.now(), self._calendar.windows
        closes = windows.open_until(now)
        opens = None if closes is not None else windows.next_opening(now)
        if opens is not None:
            closes = windows.open_until(opens)
        runs = [run for run in reversed(self._runs.list_runs()) if run.state in _LIVING]
        return Tonight(
            configured=windows.configured,
            opens_at=opens,
            closes_at=closes,
            expected=(*map(self._run, runs), *map(self._entry, self._agenda.judged())),
            currency=self._settings().budget.currency,
            may_sleep=may_sleep,
        )

    def spending(self) -> Spending:
        """Return budgets, what is used of them, estimates against what runs cost, and the ledger."""
        windows, now, budget = self._calendar.windows, self._clock.now(), self._settings().budget
        night, year = windows.night_of(now), windows.year_of(now)
        with self._database.read() as connection:
            tonight, this_year = expenses.spent_in_night(connection, night), expenses.spent_in_year(connection, year)
            planned = [run for run in store.list_runs(connection) if run.plan is not None][:COMPARED]
            compared = tuple(_compared(run, expenses.of_run(connection, run.run_id)) for run in planned)
            rows = tuple(expenses.list_expenses(connection, most=ROWS))
        return Spending(
            night=night,
            year=year,
            tonight=tonight,
            this_year=this_year,
            limits=(
                Limit(key="kwh_per_night", unit="kWh", spent=tonight.kwh, limit=budget.kwh_per_night),
                Limit(key="kwh_per_year", unit="kWh", spent=this_year.kwh, limit=budget.kwh_per_year),
                Limit(key="pf_days_per_year", unit="PF-days", spent=this_year.pf_days, limit=budget.pf_days_per_year),
                Limit(key="money_per_year", unit=budget.currency, spent=this_year.money, limit=budget.money_per_year),
            ),
            compared=compared,
            rows=rows,
            currency=budget.currency,
        )

    # ------------------------------------------------------------ what it will cost

    def _run(self, run: RunView) -> Expected:
        said = {
            RunState.PLANNED: "It waits for its turn.",
            RunState.RUNNING: "It is at work.",
            RunState.PAUSED: "It is paused.",
        }
        row = Expected(
            name=run.run_id,
            plugin=run.plugin,
            due=run.goes_on or run.state is RunState.RUNNING,
            sentence=f"{said[run.state]} {run.error}".strip(),
        )
        return self._with_estimate(row, lambda: self._plan_of(run)) if row.due else row

    def _entry(self, due: Due) -> Expected:
        row = Expected(name=due.key, plugin=due.plugin, due=due.due, sentence=due.sentence, remedy=due.remedy)
        return self._with_estimate(row, lambda: self._foreseen(due.key)) if due.due else row

    def _with_estimate(self, row: Expected, plan: Callable[[], RunPlan | None]) -> Expected:
        try:
            planned = plan()
        except ClinicError as error:
            return row.model_copy(update={"untold": f"{error.message} {error.remedy}".strip()})
        if planned is None:
            return row.model_copy(update={"untold": "What it will cost is not asked while a run is at work."})
        return row.model_copy(update={"estimate": self._estimate(row.plugin, planned)})

    def _estimate(self, plugin: str, plan: RunPlan) -> Estimate:
        """Return what a plan will cost by what earlier runs cost on the device that would be chosen now."""
        reading = self._reading()
        device = self._runs.work.device(self._runs.trainable(plugin), reading, plan)
        with self._database.read() as connection:
            known = expenses.experiences(connection, plugin, REMEMBERED_RUNS)
        alike = [run for run in known if run.device == device.kind]
        watts = second_of(self._settings, reading, device).kwh * _JOULES_PER_KWH
        return estimate(plan, alike, watts=watts, price_per_kwh=self._settings().budget.price_per_kwh)

    def _plan_of(self, run: RunView) -> RunPlan | None:
        if run.planned is not None or self._runs.at_work is not None:
            return run.planned
        manifest = self._runs.trainable(run.plugin)
        dataset = self._runs.datasets.get(run.dataset_id).model_copy(update={"notes": ()})
        return self._runs.work.foresee(manifest, dataset, run.recipe)

    def _foreseen(self, key: str) -> RunPlan | None:
        """Return the plan of a run that nobody has planned yet; nothing is frozen or kept for it."""
        entry = self._agenda.entry(key)
        if entry is None or self._runs.at_work is not None:
            return None
        manifest = self._runs.trainable(entry.plugin)
        draft = self._runs.datasets.draft(manifest, entry.sources, self._runs.terms(entry.plugin, entry.category))
        return self._runs.work.foresee(manifest, draft.model_copy(update={"notes": ()}), recipe_of(entry))


def _compared(run: RunView, spent: Spent) -> Compared:
    plan = run.planned
    return Compared(
        run_id=run.run_id,
        plugin=run.plugin,
        state=run.state.value,
        planned_seconds=0.0 if plan is None else plan.seconds,
        planned_pf_days=0.0 if plan is None else plan.pf_days,
        spent=spent,
    )
