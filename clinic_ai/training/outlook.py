"""What people are told of the night: what will run and why, what it will cost before it starts, and what was spent."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clinic_ai.clock import Clock
from clinic_ai.contract import Device
from clinic_ai.domain import RunState, Spent, Verdict, Word
from clinic_ai.errors import ClinicError
from clinic_ai.hardware import Reading
from clinic_ai.settings import TrainingSettings
from clinic_ai.store import expenses
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.expenses import Expense
from clinic_ai.store.runs import RunPlan, RunView
from clinic_ai.training.agenda import Agenda, Due, recipe_of
from clinic_ai.training.budget import spending
from clinic_ai.training.calendar import Calendar
from clinic_ai.training.estimates import REMEMBERED_RUNS, Estimate, estimate
from clinic_ai.training.runs import Runs
from clinic_ai.training.stretch import need_of, second_of

ROWS = 100
"""Newest rows of the ledger that are shown."""
COMPARED = 10
"""Newest runs whose estimate is shown beside what they cost."""
LOOK_S = 30.0
"""What a glance says of the entries of the settings is this old at most."""
_UNASKED = "What it will cost is not known before its trainer is asked."
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
        self._looking = threading.Lock()
        self._looked: tuple[TrainingSettings | None, float, object] = (None, 0.0, ())
        """With which settings, when and at which runs the entries were last looked at."""
        self._entries: tuple[Expected, ...] = ()

    def tonight(self, may_sleep: str = "") -> Tonight:
        """Return what will run in the next window, and why or why not."""
        runs = self._living()
        return self._tonight((*map(self._run, runs), *map(self._entry, self._agenda.judged())), may_sleep)

    def glance(self, may_sleep: str = "") -> Tonight:
        """Return the same, but what a run costs only where it was planned before: no process is started for it.

        The labels of the entries of the settings are looked for twice a minute at most, and when a run has moved.
        """
        runs = self._living()
        return self._tonight((*map(self._seen, runs), *self._entries_seen()), may_sleep)

    def _living(self) -> list[RunView]:
        return [run for run in reversed(self._runs.list_runs()) if run.state in _LIVING]

    def _tonight(self, expected: tuple[Expected, ...], may_sleep: str) -> Tonight:
        now, windows = self._clock.now(), self._calendar.windows
        closes = windows.open_until(now)
        opens = None if closes is not None else windows.next_opening(now)
        if opens is not None:
            closes = windows.open_until(opens)
        return Tonight(
            configured=windows.configured,
            opens_at=opens,
            closes_at=closes,
            expected=expected,
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

    def _seen(self, run: RunView) -> Expected:
        """Return what is expected of a run as far as it is known without asking its trainer."""
        row = self._stand(run)
        if not row.due:
            return row
        if run.planned is None:
            return row.model_copy(update={"untold": _UNASKED})
        return self._with_estimate(row, lambda: run.planned, begun=run.state is RunState.RUNNING)

    def _entries_seen(self) -> tuple[Expected, ...]:
        settings = self._settings()
        moved = tuple((run.run_id, run.state) for run in self._runs.list_runs())
        with self._looking:
            known, at, stood = self._looked
            if known is not settings or stood != moved or not 0 <= self._clock.monotonic() - at < LOOK_S:
                rows = tuple(
                    Expected(
                        name=due.key,
                        plugin=due.plugin,
                        due=due.due,
                        sentence=due.sentence,
                        remedy=due.remedy,
                        untold=_UNASKED if due.due else "",
                    )
                    for due in self._agenda.judged()
                )
                self._looked, self._entries = (settings, self._clock.monotonic(), moved), rows
            return self._entries

    def _run(self, run: RunView) -> Expected:
        row = self._stand(run)
        begun = run.state is RunState.RUNNING
        return self._with_estimate(row, lambda: self._plan_of(run), begun=begun) if row.due else row

    @staticmethod
    def _stand(run: RunView) -> Expected:
        said = {
            RunState.PLANNED: "It waits for its turn.",
            RunState.RUNNING: "It is at work.",
            RunState.PAUSED: "It is paused.",
        }
        return Expected(
            name=run.run_id,
            plugin=run.plugin,
            due=run.goes_on or run.state is RunState.RUNNING,
            sentence=f"{said[run.state]} {run.error}".strip(),
        )

    def _entry(self, due: Due) -> Expected:
        row = Expected(name=due.key, plugin=due.plugin, due=due.due, sentence=due.sentence, remedy=due.remedy)
        return self._with_estimate(row, lambda: self._foreseen(due.key)) if due.due else row

    def _with_estimate(self, row: Expected, plan: Callable[[], RunPlan | None], *, begun: bool = False) -> Expected:
        try:
            planned = plan()
            if planned is None:
                return row.model_copy(update={"untold": "What it will cost is not asked while a run is at work."})
            reading = self._reading()
            device = self._runs.work.device(self._runs.trainable(row.plugin), reading, planned)
        except ClinicError as error:
            return row.model_copy(update={"untold": f"{error.message} {error.remedy}".strip()})
        second = second_of(self._settings, reading, device)
        told = self._estimate(row.plugin, planned, device, second)
        said: dict[str, object] = {"estimate": told}
        against = None if begun else self._budget_against(planned, second)
        most = self._settings().max_seconds
        if against is not None:
            said |= {"due": False, "sentence": against.sentence, "remedy": against.remedy}
        elif told.seconds > most:
            longer = f"It will take longer than the {most:g} s of training.max_seconds, and then waits for a person."
            said["remedy"] = f"{row.remedy} {longer}".strip()
        return row.model_copy(update=said)

    def _budget_against(self, plan: RunPlan, second: Spent) -> Verdict | None:
        """Return which budget will be used up, or is too small, in the window that is open or opens next."""
        windows, now = self._calendar.windows, self._clock.now()
        opens = now if windows.open_until(now) is not None else windows.next_opening(now) or now
        with self._database.read() as connection:
            night = expenses.spent_in_night(connection, windows.night_of(opens))
            year = expenses.spent_in_year(connection, windows.year_of(opens))
        found = spending(self._settings(), night, year, need_of(plan, None, second), second, running=False)
        return next(found, None)

    def _estimate(self, plugin: str, plan: RunPlan, device: Device, second: Spent) -> Estimate:
        """Return what a plan will cost by what earlier runs cost on the same kind of device."""
        with self._database.read() as connection:
            known = expenses.experiences(connection, plugin, REMEMBERED_RUNS)
        alike = [run for run in known if run.device == device.kind]
        price = self._settings().budget.price_per_kwh
        return estimate(plan, alike, watts=second.kwh * _JOULES_PER_KWH, price_per_kwh=price)

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
