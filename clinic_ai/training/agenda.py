"""What is trained by itself: which ``[[training.plan]]`` is due tonight, and why the others are not.

That follows from what is stored, never from a timer that fired: so a missed night is made up for in the next window,
once, and a clock that jumps starts nothing twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import structlog

from clinic_ai.clock import Clock
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import PauseCode, RunState, Word
from clinic_ai.errors import ClinicError, DatasetError
from clinic_ai.settings import TrainingPlanEntry, TrainingSettings
from clinic_ai.settings.training import recipe_value
from clinic_ai.store import alerts
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RunView
from clinic_ai.training.calendar import Calendar
from clinic_ai.training.runs import Runs

LOOK_S = 60.0
"""While a window is open and nothing runs, what is due is looked for this often."""
ALERT = "training_plan"
_DAY_S = 86400.0
_UNDER_WAY = frozenset({RunState.PLANNED, RunState.RUNNING, RunState.PAUSED})

log = structlog.get_logger()


class Due(Word):
    """One ``[[training.plan]]``: whether it is trained in the next window, and why or why not.

    ``fresh`` counts the labelled images that its last run had not; None where nobody counted.
    """

    key: str
    plugin: str
    priority: int
    due: bool
    sentence: str
    remedy: str = ""
    fresh: int | None = None


@dataclass(frozen=True)
class _Entry:
    """An entry whose plugin can learn, and the newest of its runs."""

    settings: TrainingPlanEntry
    key: str
    manifest: PluginManifest
    last: RunView | None


class Agenda:
    """The entries of the settings as they are now. ``plan_next`` is for one thread, ``judged`` for any."""

    def __init__(
        self,
        runs: Runs,
        database: Database,
        settings: Callable[[], TrainingSettings],
        calendar: Calendar,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._database = database
        self._settings = settings
        self._calendar = calendar
        self._clock = clock
        self._looked_at = -math.inf
        self._looked_with: TrainingSettings | None = None
        self._refused: dict[str, tuple[str, ClinicError]] = {}
        """Entries that could not be gathered, with the night in which that was tried."""
        self._alerted: dict[str, str] = {}
        """Entries that people were told of, with the night in which that was."""

    def look_due(self) -> bool:
        """Return whether it is time to look for what is due: now and then, and at once with other settings."""
        settings = self._settings()
        if not settings.plan:
            return False
        passed = self._clock.monotonic() - self._looked_at
        return settings is not self._looked_with or not 0 <= passed < LOOK_S

    def plan_next(self) -> bool:
        """Plan a run of the first entry that is due; return whether there was one.

        What is wrong with an entry becomes one alert, and the next one has its turn.
        """
        self._looked_at, self._looked_with = self._clock.monotonic(), self._settings()
        for entry in self._ordered():
            key = key_of(entry)
            try:
                judged = self._judge(entry)
                run_id = self._gather(entry) if judged.due else ""
            except ClinicError as error:
                self._alert(key, error)
                continue
            if run_id:
                self._looked_at = -math.inf
                log.info("training.planned", run=run_id, plan=key, sentence=judged.sentence)
                return True
        return False

    def judged(self) -> tuple[Due, ...]:
        """Return all entries, those with their turn first at the top."""
        return tuple(self._told(entry) for entry in self._ordered())

    def entry(self, key: str) -> TrainingPlanEntry | None:
        """Return an entry of the settings, None if it was taken out meanwhile."""
        return next((entry for entry in self._settings().plan if key_of(entry) == key), None)

    def note_end(self, run: RunView) -> None:
        """Tell people if a run that nobody watches has failed, or waits for them; withdraw that once one has not."""
        waits = run.state is RunState.PAUSED and not run.goes_on and run.pause_code != PauseCode.PERSON
        if run.origin != "night" or not (waits or run.state in {RunState.FAILED, RunState.FINISHED}):
            return
        said, remedy = "failed", "It is not tried again by itself before there are new labels."
        if waits:
            said, remedy = "does not go on by itself", f"`clinic-ai train resume {run.run_id}` lets it go on."
        with self._database.write() as connection:
            if run.state is RunState.FINISHED:
                alerts.withdraw(connection, ALERT, run.plan_key)
            else:
                sentence = f"The training run {run.run_id} of {run.plan_key} {said}: {run.error}"
                alerts.raise_alert(connection, ALERT, run.plan_key, sentence, remedy)

    # ------------------------------------------------------------ judging

    def _ordered(self) -> Iterator[TrainingPlanEntry]:
        yield from sorted(self._settings().plan, key=lambda entry: -entry.priority)

    def _told(self, entry: TrainingPlanEntry) -> Due:
        try:
            return self._judge(entry)
        except ClinicError as error:
            return self._due(entry, due=False, sentence=error.message, remedy=error.remedy)

    def _judge(self, entry: TrainingPlanEntry) -> Due:
        """Return whether an entry is due. Raise ClinicError if it cannot be trained at all."""
        known = self._known(entry)
        last, now = known.last, self._clock.now()
        night, refused = self._calendar.windows.night_of(now), self._refused.get(known.key)
        if last is not None and last.state in _UNDER_WAY:
            remedy = f"`clinic-ai train list` shows it. {last.error}".strip()
            return self._due(entry, due=False, sentence=f"Its run {last.run_id} is {last.state.value}.", remedy=remedy)
        if last is not None and (nights := self._nights_since(last)) < entry.every_days:
            sentence = (
                f"Its last run began {_count(nights, 'night')} ago; {entry.every_days:g} have to lie between two."
            )
            return self._due(entry, due=False, sentence=sentence)
        fresh = self._runs.datasets.fresh(
            known.manifest,
            entry.sources,
            self._runs.terms(entry.plugin, entry.category),
            None if last is None else last.dataset_id,
        )
        said = f"{_count(fresh, 'labelled image')} {'is' if fresh == 1 else 'are'} new" + (
            "" if last is None else f" since its run {last.run_id}, which is {last.state.value}"
        )
        if fresh < entry.min_new:
            sentence = f"{said}; a run needs {entry.min_new} (min_new)."
            return self._due(entry, due=False, sentence=sentence, fresh=fresh)
        if refused is not None and refused[0] == night:
            error = refused[1]
            sentence = f"It was tried this night and cannot be trained: {error.message}"
            return self._due(entry, due=False, sentence=sentence, remedy=error.remedy, fresh=fresh)
        return self._due(entry, due=True, sentence=f"{said}; a run needs {entry.min_new}.", fresh=fresh)

    def _known(self, entry: TrainingPlanEntry) -> _Entry:
        key, manifest = key_of(entry), self._runs.trainable(entry.plugin)
        with self._database.read() as connection:
            return _Entry(entry, key, manifest, store.last_of_plan(connection, key))

    def _nights_since(self, last: RunView) -> float:
        """Return how many nights ago a run was planned; infinity if by the clock that is still to come."""
        windows, now = self._calendar.windows, self._clock.now()
        if last.created_at > now + _DAY_S:
            return math.inf  # the clock was wrong then or is now; min_new alone decides
        nights = (date.fromisoformat(windows.night_of(t)) for t in (now, last.created_at))
        return max(0, (next(nights) - next(nights)).days)

    @staticmethod
    def _due(entry: TrainingPlanEntry, *, due: bool, sentence: str, remedy: str = "", fresh: int | None = None) -> Due:
        return Due(
            key=key_of(entry),
            plugin=entry.plugin,
            priority=entry.priority,
            due=due,
            sentence=sentence,
            remedy=remedy,
            fresh=fresh,
        )

    # ------------------------------------------------------------ planning

    def _gather(self, entry: TrainingPlanEntry) -> str:
        """Freeze what an entry learns from and plan its run; return its id, empty if there is nothing new after all."""
        known = self._known(entry)
        terms = self._runs.terms(entry.plugin, entry.category)
        night = self._calendar.windows.night_of(self._clock.now())
        try:
            dataset = self._runs.datasets.gather(known.manifest, entry.sources, "clinic-ai", terms)
            if known.last is not None and dataset.dataset_id == known.last.dataset_id:
                raise DatasetError(
                    "What is new in it are copies of images it has learned from.", remedy="Nothing is needed."
                )
        except ClinicError as error:
            self._refused[known.key] = (night, error)
            raise
        run_id = self._runs.plan(dataset, recipe_of(entry), known.key, self._clock.now())
        with self._database.write() as connection:
            alerts.withdraw(connection, ALERT, known.key)
        return run_id

    def _alert(self, key: str, error: ClinicError) -> None:
        """Tell people what is wrong with an entry, once a night."""
        night = self._calendar.windows.night_of(self._clock.now())
        if self._alerted.get(key) == night:
            return
        self._alerted[key] = night
        log.warning("training.refused", plan=key, error=type(error).__name__)
        sentence = f"What [[training.plan]] says of {key} cannot be trained: {error.message}"
        with self._database.write() as connection:
            alerts.raise_alert(connection, ALERT, key, sentence, error.remedy)


def key_of(entry: TrainingPlanEntry) -> str:
    """Return what names an entry, for people too: its plugin and what it learns."""
    return " ".join(filter(None, (entry.plugin, entry.category, entry.condition)))


def recipe_of(entry: TrainingPlanEntry) -> dict[str, float | int | str | bool]:
    """Return the recipe of the runs of an entry."""
    recipe = dict(pair.partition("=")[::2] for pair in entry.recipe)
    said = {"condition": entry.condition} if entry.condition else {}
    return {**{key: recipe_value(text) for key, text in recipe.items()}, **said}


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"
