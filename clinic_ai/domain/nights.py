"""Words about training within a budget: why a run is paused, and what it cost."""

from __future__ import annotations

from enum import StrEnum

from clinic_ai.domain.words import Word


class PauseCode(StrEnum):
    """Why a run is paused, or may not start."""

    PERSON = "person"
    STUDY = "study"
    """A study waits: patients come first."""
    WINDOW = "window"
    HEAT = "heat"
    MEMORY = "memory"
    GPU_MEMORY = "gpu_memory"
    DISK = "disk"
    BATTERY = "battery"
    STALLED = "stalled"
    TIME = "time"
    """The run reached ``training.max_seconds``."""
    NIGHT_ENERGY = "night_energy"
    YEAR_ENERGY = "year_energy"
    YEAR_COMPUTE = "year_compute"
    YEAR_MONEY = "year_money"
    SENSORS = "sensors"
    """The state of the machine cannot be read, so nobody knows whether training is safe."""
    RESTART = "restart"
    """The appliance ended during the run, or the machine lost power."""

    @property
    def by_itself(self) -> bool:
        """Whether a run paused for this goes on by itself once the reason is gone."""
        return self not in {PauseCode.PERSON, PauseCode.STALLED, PauseCode.TIME}


class Verdict(Word):
    """Whether training may work now. With a ``code`` it may not: ``sentence`` says why, ``remedy`` what to do.

    ``own``: it is this run that needs too much; a smaller one might begin.
    """

    code: PauseCode | None = None
    sentence: str = ""
    remedy: str = ""
    own: bool = False

    @property
    def allowed(self) -> bool:
        """Whether it may."""
        return self.code is None


class Spent(Word):
    """What training cost. PF-days are days of computing at 10^15 operations a second."""

    seconds: float = 0.0
    kwh: float = 0.0
    pf_days: float = 0.0
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Return both together."""
        return Spent(
            seconds=self.seconds + other.seconds,
            kwh=self.kwh + other.kwh,
            pf_days=self.pf_days + other.pf_days,
            money=self.money + other.money,
        )

    def scaled(self, factor: float) -> Spent:
        """Return this many times as much."""
        return Spent(
            seconds=self.seconds * factor,
            kwh=self.kwh * factor,
            pf_days=self.pf_days * factor,
            money=self.money * factor,
        )
