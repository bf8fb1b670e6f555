"""The night: when training runs begin, pause and go on, and what they cost. One lane repeats ``step``.

A run works only while nobody waits for the machine, a window is open (unless a person did not want to wait), the
budget has something left, and the machine is cool, on the mains and has room. Whatever of this ends pauses it, with a
checkpoint; it goes on by itself when all of it is so again. What a person paused or stopped stays so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path

import structlog

from clinic_ai.clock import Clock, SystemClock
from clinic_ai.contract import Device
from clinic_ai.domain import PauseCode, RunState, Verdict
from clinic_ai.errors import Conflict, HardwareError, NotFound
from clinic_ai.hardware import Reading, Sensors
from clinic_ai.settings import TrainingSettings
from clinic_ai.store import expenses
from clinic_ai.store import runs as store
from clinic_ai.store.database import Database
from clinic_ai.store.expenses import Expense
from clinic_ai.store.runs import RunView
from clinic_ai.training.agenda import Agenda
from clinic_ai.training.awake import Awake
from clinic_ai.training.budget import Budget
from clinic_ai.training.calendar import Calendar
from clinic_ai.training.load import ProcessLoad
from clinic_ai.training.meter import LONGEST_SAMPLE_S
from clinic_ai.training.outlook import Outlook, Spending, Tonight
from clinic_ai.training.patients import Patients
from clinic_ai.training.runs import STOP_GRACE_S, Runs
from clinic_ai.training.stretch import End, Stretch, need_of, second_of
from clinic_ai.training.work import Running

log = structlog.get_logger()

SAMPLE_S = 1.0
"""A run at work is looked at this often, and one that may not begin is tried."""
MOST_LATE_S = 1.0
"""So much of its grace a run loses at most because a study was seen late: it needs the rest for its checkpoint."""
TELL_S = 60.0
"""The figures in the sentence why a run waits are renewed this often."""
LASTING = frozenset(
    {
        PauseCode.WINDOW,
        PauseCode.NIGHT_ENERGY,
        PauseCode.YEAR_ENERGY,
        PauseCode.YEAR_COMPUTE,
        PauseCode.YEAR_MONEY,
    }
)
"""Reasons that last for hours: meanwhile the machine may sleep."""


_ENDS: dict[RunState, End] = {RunState.FINISHED: "finish", RunState.FAILED: "fail"}


class Night:
    """Governs the runs of one home. ``step`` is for one lane; ``make_way`` may be called from any thread.

    ``signs`` tell of studies and questions that the database does not know yet.
    """

    def __init__(
        self,
        *,
        runs: Runs,
        database: Database,
        settings: Callable[[], TrainingSettings],
        sensors: Sensors,
        directory: Path,
        wake: Callable[[], None] = lambda: None,
        signs: Sequence[Callable[[], bool]] = (),
        clock: Clock | None = None,
        zone: tzinfo | None = None,
        awake: Awake | None = None,
        load: Callable[[int], float | None] | None = None,
        alone: bool = False,
    ) -> None:
        """Take over the runs; ``directory`` holds those of the home, ``zone`` None is that of the machine.

        ``load`` tells what a process, by its number, takes of one core in percent, None if nobody knows.
        ``alone``, in a process of its own beside no daemon, nothing begins that a person did not ask of these runs.
        """
        self._runs = runs
        self._database = database
        self._settings = settings
        self._sensors = sensors
        self._directory = directory
        self._wake = wake
        self._clock = clock or SystemClock()
        self.calendar = Calendar(settings, zone)
        self.budget = Budget(settings, self._clock.monotonic)
        self.awake = awake or Awake()
        self._load = load or ProcessLoad()
        self._patients = Patients(database, self._clock, signs)
        self.agenda = Agenda(runs, database, settings, self.calendar, self._clock)
        self._alone = alone
        self._outlook = Outlook(runs, database, settings, self.agenda, self.calendar, self._clock, self._read)
        self._stretch: Stretch | None = None
        self._ended_for: Verdict | None = None
        self._changed = True
        """Whether there may be a run that could begin or go on."""
        self._all_too_large = False
        """Whether each run that waits does so because it alone needs too much: others need not wait for it."""
        self._tried_at = -math.inf
        self._tick_s = SAMPLE_S
        self._called_at: float | None = None
        """When a study or question came for which a run is to make way, monotonic seconds of this process."""
        self._told: dict[str, tuple[PauseCode, float]] = {}
        runs.govern(self._news)

    def _news(self) -> None:
        self._changed, self._all_too_large = True, False
        self._tried_at = -math.inf
        self._wake()

    def make_way(self, late_s: float = 0.0) -> None:
        """Let training make way now: a study or a question has come, this many seconds ago."""
        if self._called_at is None:
            self._called_at = time.monotonic() - min(late_s, MOST_LATE_S)
        self._runs.hurry(self._grace_s())
        self._wake()

    def _grace_s(self) -> float:
        """Return the seconds a run may have for its checkpoint: its grace counts from when the study came."""
        called_at = self._called_at
        late_s = 0.0 if called_at is None else min(time.monotonic() - called_at, MOST_LATE_S)
        return max(0.0, self._settings().grace_s - late_s)

    def tonight(self) -> Tonight:
        """Return what will be trained in the next window, why or why not, and what it will cost."""
        return self._outlook.tonight(self.awake.note)

    def outlook(self) -> Tonight:
        """Return the same, without asking a trainer what a run that nobody planned yet would cost."""
        return self._outlook.glance(self.awake.note)

    def spending(self) -> Spending:
        """Return the budgets and what training has used of them."""
        return self._outlook.spending()

    def close(self) -> None:
        """Enter what the run at work cost, once the runs are closed, and let the machine sleep."""
        if self._stretch is not None:
            self._close(self._stretch)
        self.awake.release()

    # ------------------------------------------------------------ one step

    def step(self) -> bool:
        """Look at the run at work, or let one begin or go on; return whether there is more to do at once."""
        running = self._runs.at_work
        if self._stretch is not None and self._stretch.running is not running:
            self._close(self._stretch)
        if running is not None:
            self._watch(running)
            return False
        self._called_at = None
        return self._start() or self._plan()

    def _watch(self, running: Running) -> None:
        """Pause the run at work if it may not go on."""
        if running.wish is not None:
            return  # it is being ended already
        if self._stretch is None:  # it was let, and its first row could not be entered
            self._stretch = self._stretch_of(self._runs.get(running.run_id), running)
        stretch = self._stretch
        if self._patients.waiting():
            self._pause(stretch, None, study_waits(self._settings()))
            return
        passed = self._clock.monotonic() - stretch.sampled_at
        if 0 <= passed < SAMPLE_S:
            return
        reading = self._read()
        stretch.sample(reading)
        self._tick_s = min(max(SAMPLE_S, passed), LONGEST_SAMPLE_S)
        verdict = self._verdict(stretch, reading, self._tick_s)
        if not verdict.allowed:
            self._pause(stretch, reading, verdict)
        else:
            self.awake.hold()

    def _verdict(self, stretch: Stretch, reading: Reading | None, until_next_s: float) -> Verdict:
        now, pid, run = self._clock.now(), stretch.pid, stretch.run
        planned = stretch.planned_just_now()
        return self.budget.verdict(
            reading,
            night=stretch.night,
            year=stretch.year,
            open_until=self.calendar.open_until(now),
            windows_configured=self._needs_window(run),
            at_once=run.at_once,
            need=stretch.need(still=planned),
            running=True,
            planned=planned,
            ahead=stretch.ahead(until_next_s),
            busy_percent=None if pid is None else self._load(pid),
            pid=pid,
        )

    def _pause(self, stretch: Stretch, reading: Reading | None, verdict: Verdict) -> None:
        code = verdict.code
        assert code is not None
        verdict = self._in_words(verdict)
        study = code is PauseCode.STUDY
        self._ended_for = verdict
        log.info("run.pauses", run=stretch.run.run_id, code=code.value, sentence=verdict.sentence)
        grace_s = self._grace_s() if study else STOP_GRACE_S
        self._runs.interrupt(code, f"{verdict.sentence} {verdict.remedy}".strip(), grace_s)
        if self._runs.at_work is not stretch.running:
            self._close(stretch, reading)

    def _close(self, stretch: Stretch, reading: Reading | None = None) -> None:
        """Enter how a stretch ended, whoever ended it."""
        self._stretch, verdict, self._ended_for = None, self._ended_for, None
        self._changed, self._tried_at = True, -math.inf
        try:
            run = self._runs.get(stretch.run.run_id)
        except NotFound:  # a database that was restored meanwhile
            return
        if verdict is None or run.pause_code != verdict.code:
            code = PauseCode(run.pause_code) if run.pause_code else None
            verdict = Verdict(code=code, sentence=run.error)
        if run.state is RunState.STOPPED:
            verdict = Verdict(code=PauseCode.PERSON, sentence="A person stopped it.")
        stretch.end(reading, _ENDS.get(run.state, "pause"), verdict)
        self.agenda.note_end(run)

    # ------------------------------------------------------------ beginning and going on

    def _start(self) -> bool:
        """Let the first run go that may; say of the others why they wait."""
        monotonic = self._clock.monotonic()
        if not self._changed or 0 <= monotonic - self._tried_at < SAMPLE_S:
            return False
        self._tried_at, self._changed, self._all_too_large = monotonic, False, False
        waiting_runs = [run for run in self._runs.startable() if not self._alone or run.run_id in self._runs.asked]
        if not waiting_runs:
            self._told.clear()
            self.awake.release()
            return False
        self._changed = True
        waiting, lasting, too_large = self._patients.waiting(), True, True
        readings: list[Reading | None] = []
        for run in waiting_runs:
            verdict, device = self._may_start(run, readings, waiting=waiting)
            if device is not None and verdict.allowed:
                return self._begin(run, device, readings)
            self._hold(run, verdict)
            lasting, too_large = lasting and verdict.code in LASTING, too_large and verdict.own
        self._all_too_large = too_large
        if lasting:
            self.awake.release()
        return False

    def _may_start(
        self, run: RunView, readings: list[Reading | None], *, waiting: bool
    ) -> tuple[Verdict, Device | None]:
        """Return whether a run may begin or go on, and where. The machine is read once for all, and only if need be."""
        settings, now = self._settings(), self._clock.now()
        open_until, windows = self.calendar.open_until(now), self.calendar.windows
        # The reason that lasts longest comes first: else each study of a day would be a row of the ledger.
        if self._needs_window(run) and open_until is None and not run.at_once:
            return self._in_words(Verdict(code=PauseCode.WINDOW)), None
        if waiting:
            return study_waits(settings), None
        if self._patients.quiet_s() < settings.quiet_s and run.pause_code == PauseCode.STUDY:
            return not_quiet_yet(settings), None
        if not readings:
            readings.append(self._read())
        reading = readings[0]
        try:
            device = self._runs.work.device(self._runs.trainable(run.plugin), reading, run.planned)
        except (Conflict, NotFound):
            device = Device()  # a plugin that is gone: the run fails with the reason once it begins
        except HardwareError as error:
            return Verdict(code=PauseCode.SENSORS, sentence=error.message, remedy=error.remedy), None
        with self._database.read() as connection:
            night = expenses.spent_in_night(connection, windows.night_of(now))
            year = expenses.spent_in_year(connection, windows.year_of(now))
        second = second_of(self._settings, reading, device)
        verdict = self.budget.verdict(
            reading,
            night=night,
            year=year,
            open_until=open_until,
            windows_configured=self._needs_window(run),
            at_once=run.at_once,
            need=need_of(run.planned, device.index if device.kind == "cuda" else None, second),
            running=False,
            ahead=second.scaled(self._tick_s),
        )
        return verdict, device

    def _needs_window(self, run: RunView) -> bool:
        """Whether a run works in windows alone: with none left, what the night planned must not go on by day."""
        return self.calendar.windows.configured or run.origin == "night"

    def _begin(self, run: RunView, device: Device, readings: list[Reading | None]) -> bool:
        running = self._runs.let(run.run_id, device)
        if running is None:
            return False
        self._told.pop(run.run_id, None)
        self._stretch = self._stretch_of(run, running)
        self._stretch.sample(readings[0])
        self.awake.hold()
        log.info("run.begins", run=run.run_id, plugin=run.plugin, device=device.kind)
        return True

    def _stretch_of(self, run: RunView, running: Running) -> Stretch:
        return Stretch(
            run,
            running,
            running.device or Device(),
            database=self._database,
            settings=self._settings,
            clock=self._clock,
            windows=self.calendar.windows,
            directory=self._directory / run.run_id,
        )

    def _hold(self, run: RunView, verdict: Verdict) -> None:
        """Say why a run waits: at once if that is news, else now and then, for the figures in it change."""
        code, monotonic = verdict.code, self._clock.monotonic()
        assert code is not None
        told = self._told.get(run.run_id)
        if told is not None and told[0] is code and 0 <= monotonic - told[1] < TELL_S:
            return
        self._told[run.run_id] = (code, monotonic)
        verdict = self._in_words(verdict)
        with self._database.write() as connection:
            news = store.hold(connection, run.run_id, code, f"{verdict.sentence} {verdict.remedy}".strip())
            if news and run.state is RunState.PLANNED:
                expenses.add_expense(connection, self._refusal(run, verdict))
        self._runs.tell()

    def _refusal(self, run: RunView, verdict: Verdict) -> Expense:
        now, windows = self._clock.now(), self.calendar.windows
        return Expense(
            run_id=run.run_id,
            plugin=run.plugin,
            kind="refuse",
            code=verdict.code.value if verdict.code is not None else "",
            sentence=verdict.sentence,
            began_at=now,
            ended_at=now,
            night=windows.night_of(now),
            year=windows.year_of(now),
        )

    # ------------------------------------------------------------ what is trained by itself

    def _plan(self) -> bool:
        """Plan the first ``[[training.plan]]`` that is due, if a run could begin now; return whether one was."""
        if (self._changed and not self._all_too_large) or self._alone or not self.agenda.look_due():
            return False
        if self.calendar.open_until(self._clock.now()) is None or self._patients.waiting():
            return False
        return self.agenda.plan_next()

    # ------------------------------------------------------------ the machine

    def _read(self) -> Reading | None:
        try:
            return self._sensors.read()
        except HardwareError as error:
            log.warning("sensors.lost", sentence=error.message, remedy=error.remedy)
            return None

    def _in_words(self, verdict: Verdict) -> Verdict:
        """Return a verdict whose sentence says when the next window opens, where it waits for one."""
        if verdict.code is not PauseCode.WINDOW:
            return verdict
        opens = self.calendar.windows.next_opening(self._clock.now())
        never = "none opens within 400 days" if self.calendar.windows.configured else "there is none any more"
        when = f"the next opens on {self.calendar.words(opens)}" if opens is not None else never
        return Verdict(
            code=PauseCode.WINDOW,
            sentence=f"No training window is open; {when} (training.window).",
            remedy="It goes on by itself then; `clinic-ai train resume RUN --now` does not wait for a window.",
        )


def study_waits(settings: TrainingSettings) -> Verdict:
    """Return the verdict while a study is on its way or a question is open."""
    return Verdict(
        code=PauseCode.STUDY,
        sentence="A study or a question waits for this machine, and patients come first.",
        remedy=f"It goes on by itself once none has waited for {settings.quiet_s:g} s (training.quiet_s).",
    )


def not_quiet_yet(settings: TrainingSettings) -> Verdict:
    """Return the verdict while the last study is only just done."""
    return Verdict(
        code=PauseCode.STUDY,
        sentence="A study was analysed just now, and another may follow.",
        remedy=f"It goes on by itself once none has waited for {settings.quiet_s:g} s (training.quiet_s).",
    )
