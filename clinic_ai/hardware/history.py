"""What the machine did of late: one reading every few seconds, kept in arrays of a fixed size."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from clinic_ai.clock import Clock, SystemClock
from clinic_ai.errors import HardwareError
from clinic_ai.hardware.identity import Identity, identity_of
from clinic_ai.hardware.words import Reading, Sensors

log = structlog.get_logger()

SAMPLE_S = 5
HOUR_SLOTS = 720
"""An hour of readings, one every ``SAMPLE_S`` seconds."""
MINUTE_S = 60
DAY_SLOTS = 1440
"""A day of minutes."""
MOST_GPUS = 16
"""Of further GPUs only the newest reading is known, so that the arrays stay small."""
_PEAKS = frozenset({"memory_mb", "children_mb", "daemon_mb", "gpu_memory_mb"})
"""Where several readings become one, these keep the highest, for it is what is to be seen; the others their mean."""
_ALWAYS = ("cpu_percent", "memory_mb", "temperature_c", "power_w", "daemon_mb", "children_mb", "disk_free_mb")
_OF_GPU = ("gpu_use_percent", "gpu_memory_mb", "gpu_temperature_c", "gpu_power_w")

Span = Literal["hour", "day"]
Line = tuple[float | None, ...]


@dataclass(frozen=True)
class Past:
    """Lines of steps of ``step_s`` seconds, the oldest first; the newest is that of ``ends_at``, UTC seconds.

    None where nothing was measured. Keys of ``lines`` are those of ``_ALWAYS``; ``gpus`` has those of ``_OF_GPU``.
    """

    step_s: float
    ends_at: float
    lines: Mapping[str, Line]
    gpus: Mapping[int, Mapping[str, Line]]


class Ring:
    """The newest values of one figure, one a slot; slots are numbered by time, and those left out hold nothing."""

    def __init__(self, slots: int) -> None:
        self._values = array("f", [math.nan]) * slots
        self._newest = -1

    def put(self, slot: int, value: float | None) -> None:
        """Set the value of a slot; an older slot than the newest is left as it is."""
        if slot < self._newest:
            return
        size = len(self._values)
        if self._newest >= 0:
            for between in range(max(self._newest + 1, slot - size + 1), slot):
                self._values[between % size] = math.nan
        self._values[slot % size] = math.nan if value is None else value
        self._newest = slot

    def last(self, slot: int, count: int) -> list[float]:
        """Return the values of ``count`` slots up to ``slot``, the oldest first; not a number where there is none."""
        size, newest = len(self._values), self._newest
        return [
            self._values[s % size] if s >= 0 and newest - size < s <= newest else math.nan
            for s in range(slot - count + 1, slot + 1)
        ]


class _Figure:
    """One figure over an hour and over a day."""

    def __init__(self, name: str) -> None:
        self.merge: Callable[[Iterable[float]], float | None] = _highest if _peaks(name) else _mean
        self._hour, self._day = Ring(HOUR_SLOTS), Ring(DAY_SLOTS)

    def put(self, second: float, value: float | None) -> None:
        slot, minute = int(second // SAMPLE_S), int(second // MINUTE_S)
        self._hour.put(slot, value)
        first = minute * MINUTE_S // SAMPLE_S
        self._day.put(minute, self.merge(self._hour.last(slot, slot - first + 1)))

    def last(self, second: float, span: Span, points: int) -> Line:
        ring, slots, step = (self._hour, HOUR_SLOTS, SAMPLE_S) if span == "hour" else (self._day, DAY_SLOTS, MINUTE_S)
        values = ring.last(int(second // step), slots)
        each = slots // points
        return tuple(self.merge(values[start : start + each]) for start in range(slots % each, slots, each))


class Sampler:
    """Reads the machine every ``SAMPLE_S`` seconds and remembers. Safe to call from several threads.

    ``memory`` returns what the daemon and its children take now, in MiB. ``on_sample`` is called after each reading.
    """

    def __init__(
        self,
        sensors: Sensors,
        *,
        memory: Callable[[], tuple[int, int]],
        on_sample: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        identity: Identity | None = None,
        gpu_problem: Callable[[], str] = lambda: "",
    ) -> None:
        self.identity = identity or identity_of()
        self._sensors = sensors
        self._memory = memory
        self._gpu_problem = gpu_problem
        self._on_sample = on_sample
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._figures = {name: _Figure(name) for name in _ALWAYS}
        self._gpus: dict[int, dict[str, _Figure]] = {}
        self._newest: Reading | None = None
        self._trouble: HardwareError | None = None
        self._sampled_at = -math.inf
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to read, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.sample()
            except Exception as error:  # noqa: BLE001 - thread boundary: a reading that failed must not end the others
                log.error("sampler.failed", error=type(error).__name__)
            self._stopping.wait(SAMPLE_S - self._clock.monotonic() % SAMPLE_S)

    def sample(self) -> None:
        """Read once and remember; a machine that cannot be read leaves a gap."""
        daemon_mb, children_mb = self._memory()
        reading, trouble = None, None
        try:
            reading = self._sensors.read()
        except HardwareError as error:
            trouble = error
        with self._lock:
            self._newest, self._trouble = reading or self._newest, trouble
            self._keep(self._clock.monotonic(), reading, {"daemon_mb": daemon_mb, "children_mb": children_mb})
        self._on_sample()

    def _keep(self, second: float, reading: Reading | None, known: Mapping[str, float]) -> None:
        self._sampled_at = second
        values: dict[str, float | None] = dict(known)
        if reading is not None:
            values |= {
                "cpu_percent": reading.cpu_percent,
                "memory_mb": reading.memory_mb - reading.memory_available_mb,
                "temperature_c": reading.temperature_c,
                "power_w": reading.power_w,
                "disk_free_mb": reading.disk_free_mb,
            }
        for name, figure in self._figures.items():
            figure.put(second, values.get(name))
        for gpu in () if reading is None else reading.gpus[:MOST_GPUS]:
            figures = self._gpus.setdefault(gpu.index, {name: _Figure(name) for name in _OF_GPU})
            of_gpu = (gpu.use_percent, gpu.memory_used_mb, gpu.temperature_c, gpu.power_w)
            for name, value in zip(_OF_GPU, of_gpu, strict=True):
                figures[name].put(second, value)

    # ------------------------------------------------------------ what is told

    @property
    def gpu_problem(self) -> str:
        """Why no GPU can be used though there is a driver; empty if all is well."""
        return self._gpu_problem()

    def now(self) -> tuple[Reading | None, HardwareError | None]:
        """Return the newest reading, None before the first, and why the machine cannot be read, None if it can."""
        with self._lock:
            return self._newest, self._trouble

    def past(self, span: Span, points: int) -> Past:
        """Return the last hour or day in about ``points`` steps; never fewer readings than one a step."""
        slots, step = (HOUR_SLOTS, SAMPLE_S) if span == "hour" else (DAY_SLOTS, MINUTE_S)
        points = min(points, slots)
        with self._lock:
            second = self._clock.monotonic()
            ends_at = self._clock.now()
            lines = {name: figure.last(second, span, points) for name, figure in self._figures.items()}
            gpus = {
                index: {name: figure.last(second, span, points) for name, figure in figures.items()}
                for index, figures in self._gpus.items()
            }
        return Past(float(slots // points * step), ends_at, lines, gpus)


def _peaks(name: str) -> bool:
    return name in _PEAKS or name.endswith("temperature_c")


def _known(values: Iterable[float]) -> Sequence[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Iterable[float]) -> float | None:
    known = _known(values)
    return round(sum(known) / len(known), 1) if known else None


def _highest(values: Iterable[float]) -> float | None:
    known = _known(values)
    return round(max(known), 1) if known else None
