"""What a run at work costs, from one sample of the machine to the next: seconds, energy, computation, money."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from clinic_ai.domain import Spent
from clinic_ai.hardware import Reading
from clinic_ai.settings import TrainingSettings

LONGEST_SAMPLE_S = 300.0
"""Of a longer time between two samples only this much is charged: the machine was asleep, or its clock was set."""
REMEMBERED_S = 60.0
"""What the next seconds will cost is told from the costliest sample of so long ago at most."""
_JOULES_PER_KWH = 3.6e6


class Meter:
    """Meters one run while it works; a run that goes on gets a new one. ``gpu`` is the one it computes on, if any.

    A run is charged the power of its GPU, else that of the processor; where neither is measured, the most the GPU
    may take, else ``training.budget.assumed_watts``.
    """

    def __init__(self, settings: Callable[[], TrainingSettings], gpu: int | None = None) -> None:
        self._settings = settings
        self._gpu = gpu
        self._at: float | None = None
        self._watts: float | None = None
        self._pf_days = 0.0
        self._recent: deque[tuple[float, Spent]] = deque()

    def sample(self, reading: Reading | None, monotonic: float, pf_days: float | None) -> Spent:
        """Return what was spent since the sample before; nothing at the first one.

        ``monotonic`` in seconds, ``pf_days`` as the process counts them since its start. Without a reading the power
        of the sample before is taken. A clock that goes back costs nothing.
        """
        seconds = 0.0 if self._at is None else min(max(0.0, monotonic - self._at), LONGEST_SAMPLE_S)
        self._at = monotonic
        if reading is not None:
            self._watts = self.watts(reading)
        budget = self._settings().budget
        watts = budget.assumed_watts if self._watts is None else self._watts
        kwh = seconds * watts / _JOULES_PER_KWH
        spent = Spent(seconds=seconds, kwh=kwh, pf_days=self._computed(pf_days), money=kwh * budget.price_per_kwh)
        self._remember(monotonic, spent)
        return spent

    def ahead(self, seconds: float) -> Spent:
        """Return what the next seconds will cost at most, if they are like the costliest of the last minute."""
        rates = [spent.scaled(seconds / spent.seconds) for _, spent in self._recent if spent.seconds > 0]
        if not rates:
            watts = self._watts or self._settings().budget.assumed_watts
            kwh = seconds * watts / _JOULES_PER_KWH
            return Spent(seconds=seconds, kwh=kwh, money=kwh * self._settings().budget.price_per_kwh)
        return Spent(
            seconds=seconds,
            kwh=max(spent.kwh for spent in rates),
            pf_days=max(spent.pf_days for spent in rates),
            money=max(spent.money for spent in rates),
        )

    def watts(self, reading: Reading) -> float:
        """Return the power that the run is charged for, in watts."""
        for gpu in reading.gpus:
            if gpu.index == self._gpu:
                known = gpu.power_w if gpu.power_w is not None else gpu.power_limit_w
                return self._settings().budget.assumed_watts if known is None else known
        return self._settings().budget.assumed_watts if reading.power_w is None else reading.power_w

    def _computed(self, pf_days: float | None) -> float:
        """Return what was computed since the sample before; a process that counts from nothing again is a new one."""
        if pf_days is None:
            return 0.0
        before, self._pf_days = self._pf_days, pf_days
        return pf_days - before if pf_days >= before else pf_days

    def _remember(self, monotonic: float, spent: Spent) -> None:
        self._recent.append((monotonic, spent))
        while abs(monotonic - self._recent[0][0]) > REMEMBERED_S:
            self._recent.popleft()
