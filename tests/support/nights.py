"""Simulated nights: clock and sensors are ours, the runs and their children are real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import tiny_learner
from school import School, open_school, tiny_png

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import RunState
from clinic_ai.errors import HardwareError
from clinic_ai.hardware import Reading
from clinic_ai.home import Home
from clinic_ai.settings import TrainingBudget, TrainingSettings, TrainingWindow
from clinic_ai.store import expenses
from clinic_ai.store.expenses import Expense
from clinic_ai.store.runs import RunResult, RunView
from clinic_ai.training.awake import Awake
from clinic_ai.training.night import Night

EVENING = datetime(2026, 11, 23, 21, 0, tzinfo=UTC).timestamp()
"""A Monday, an hour before the window opens."""
WINDOW = TrainingWindow(start="22:00", end="06:00")
WATTS = 100.0
PATIENCE_S = 150.0


class SetClock:
    """A clock that goes when it is told to; ``jump`` is somebody setting it."""

    def __init__(self, now: float = EVENING) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def go(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        self._now += seconds


class SetSensors:
    """A machine that is as somebody set it; ``lost`` is one that cannot be read."""

    def __init__(self, clock: SetClock) -> None:
        self._clock = clock
        self.lost = False
        self.reads = 0
        self.reading = Reading(
            at=0.0,
            cpu_percent=60.0,
            cpus=2,
            memory_mb=16384,
            memory_available_mb=12000,
            disk_free_mb=200_000,
            temperature_c=55.0,
            power_w=WATTS,
            on_mains=True,
        )

    def read(self) -> Reading:
        self.reads += 1
        if self.lost:
            raise HardwareError("The sensors cannot be read.", remedy="Look at them.")
        return self.reading.model_copy(update={"at": self._clock.now()})

    def set(self, **values: object) -> None:
        self.reading = self.reading.model_copy(update=values)


class Simulation:
    """One home at night."""

    def __init__(self, school: School, settings: TrainingSettings, clock: SetClock) -> None:
        self.school = school
        self.clock = clock
        self.sensors = SetSensors(clock)
        self.study_waits = False
        self.settings = settings
        school.runs.settings = settings
        self.night = Night(
            runs=school.runs,
            database=school.database,
            settings=lambda: self.settings,
            sensors=self.sensors,
            directory=school.home.runs,
            signs=(lambda: self.study_waits,),
            clock=clock,
            zone=UTC,
            awake=Awake(("cat",)),
            load=lambda _: None,  # real processes take nothing of the time of a clock that is set
        )

    def tick(self, seconds: float = 60.0) -> None:
        """Let time pass, and the night look once."""
        self.clock.go(seconds)
        self.night.step()

    def start(self, folder: Path, *, at_once: bool = False, plugin: str = "tiny", **recipe: float | int | str) -> str:
        """Start a run as a person does; return its id."""
        return self.school.runs.start(plugin, folder, recipe, "ada", at_once=at_once)

    def get(self, run_id: str) -> RunView:
        return self.school.runs.get(run_id)

    def until(self, run_id: str, ready: Callable[[RunView], bool]) -> RunView:
        """Wait, in real time, until the child has brought a run as far as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready(run := self.get(run_id)):
            assert run.state in {RunState.PLANNED, RunState.RUNNING}, run.error
            assert time.monotonic() < deadline, run
            time.sleep(0.01)
        return run

    def at_step(self, run_id: str, step: int) -> RunView:
        """Wait until a run has made this many steps."""
        return self.until(run_id, lambda run: run.progress is not None and run.progress["step"] >= step)

    def allow(self, run_id: str, steps: int) -> None:
        """Let a paced run make this many steps, and wait until it has."""
        tiny_learner.allow(self.school.home.runs / run_id, steps)
        self.at_step(run_id, steps)

    def finish(self, run_id: str) -> float:
        """Let a run make all steps it has left; return the weight of what it made."""
        tiny_learner.allow(self.school.home.runs / run_id, 1000)
        run = self.end(run_id)
        assert run.state is RunState.FINISHED, run.error
        candidate = RunResult.model_validate(run.result).candidate
        assert candidate is not None
        return tiny_learner.read_weight(Path(self.school.registry.loaded(candidate).directory))

    def works(self, run_id: str) -> bool:
        """Whether a run is at work."""
        running = self.school.runs.at_work
        return running is not None and running.run_id == run_id

    def undisturbed(self, run_id: str) -> float:
        """Return the weight that a run has after its twenty steps if nothing happens to it."""
        examples = self.school.runs.datasets.get(self.get(run_id).dataset_id).examples
        labels = [example.labels["pneumonia"] for example in examples if example.split == "train"]
        weight = 0.0
        for _ in range(20):
            weight = weight + 0.1 * (sum(labels) / len(labels) - weight)
        return weight

    def end(self, run_id: str) -> RunView:
        """Wait until a run is over that nobody holds up, and let the night see it."""
        run = self.until(run_id, lambda run: run.state not in {RunState.PLANNED, RunState.RUNNING})
        while self.school.runs.at_work is not None:
            time.sleep(0.01)
        self.tick(1.0)
        return run

    def processes(self) -> list[int]:
        """Return the trainers that are there."""
        return [child.pid for child in self.school.crew.living() if child.spec.kind == "trainer"]

    def ledger(self) -> list[Expense]:
        """Return the ledger, oldest row first."""
        with self.school.database.read() as connection:
            return list(reversed(expenses.list_expenses(connection)))

    def kinds(self) -> list[str]:
        """Return kind and code of each row of the ledger but those of work."""
        return [f"{row.kind} {row.code}".strip() for row in self.ledger() if row.kind != "work"]


def settings_of(budget: TrainingBudget | None = None, **values: object) -> TrainingSettings:
    """Return settings with one window, a small reserve, and what is named."""
    chosen = {"window": (WINDOW,), "quiet_s": 60.0, "budget": budget or TrainingBudget(), **values}
    return TrainingSettings.model_validate(chosen)


@contextmanager
def simulated(
    home: Home,
    settings: TrainingSettings | None = None,
    manifest: PluginManifest | None = None,
    clock: SetClock | None = None,
) -> Iterator[Simulation]:
    """Open the rooms of a home at night."""
    school = open_school(home, manifest)
    simulation = Simulation(school, settings or settings_of(), clock or SetClock())
    school.runs.recover()
    try:
        yield simulation
    finally:
        school.runs.close()
        simulation.night.close()
        school.close()
        assert not school.crew.living()


def labelled_folder(directory: Path, images: range = range(20)) -> Path:
    """Write a labelled folder of one image for each patient; more can be added to it."""
    directory.mkdir(parents=True, exist_ok=True)
    table = directory / "labels.csv"
    lines = table.read_text().splitlines() if table.exists() else ["file,patient_id,pneumonia"]
    for number in images:
        (directory / f"{number}.png").write_bytes(tiny_png(str(number)))
        lines.append(f"{number}.png,P{number},{number % 2}")
    table.write_text("\n".join(lines) + "\n")
    return directory
