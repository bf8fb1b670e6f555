"""The sensors of this machine."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from clinic_ai.arms import Arm, Beat
from clinic_ai.clock import Clock, SystemClock
from clinic_ai.errors import HardwareError
from clinic_ai.hardware.nvml import Nvml, load_pynvml
from clinic_ai.hardware.power import Rapl, on_mains
from clinic_ai.hardware.words import Reading

ANSWER_S = 5.0
"""A disk or a driver that takes longer does not answer."""
PROCESSOR_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp", "soc_thermal")
"""Names of the kernel's sensors that sit in the processor."""
_BELIEVABLE_C = (-40.0, 150.0)
_MIB = 1 << 20


class Machine:
    """This machine. Safe to call from several threads; what is broken costs a caller ``ANSWER_S`` seconds at most.

    ``home`` lies on the disk that counts. ``root`` is where the kernel's files are found, and ``load`` gives NVML.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: Clock | None = None,
        root: Path = Path("/"),
        load: Callable[[], Any] = load_pynvml,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._home = home
        self._clock = clock or SystemClock()
        self._root = root
        self._answer_s = answer_s
        self._gpus = Nvml(root, load)
        self._rapl = Rapl(root)
        self._arm = Arm("sensors", lambda: None)
        self._lock = threading.Lock()
        self._times = psutil.cpu_times()
        self._busy = 0.0

    def read(self) -> Reading:
        """Return the state of the machine now. Raise HardwareError if it cannot be read."""
        with self._lock:
            if self._arm.busy:
                raise _silent()
            errand = self._arm.give(self._look)
            if not errand.wait(time.monotonic() + self._answer_s):
                raise _silent()
        return errand.result()

    @property
    def gpu_problem(self) -> str:
        """Why no GPU can be used though there is a driver, as of the newest reading; empty if all is well."""
        return self._gpus.problem

    def close(self) -> None:
        """Let go of the thread that reads."""
        self._arm.close()

    def _look(self, _: Beat) -> Reading:
        monotonic = self._clock.monotonic()
        try:
            memory = psutil.virtual_memory()
            return Reading(
                at=self._clock.now(),
                cpu_percent=self._processor(),
                cpus=psutil.cpu_count() or 1,
                memory_mb=memory.total // _MIB,
                memory_available_mb=memory.available // _MIB,
                disk_free_mb=shutil.disk_usage(self._home).free // _MIB,
                temperature_c=_hottest(),
                power_w=self._rapl.watts(monotonic),
                on_mains=on_mains(self._root),
                gpus=self._gpus.read(monotonic),
            )
        except OSError as error:
            raise HardwareError(
                f"The state of this machine cannot be read: {error.strerror or type(error).__name__}.",
                remedy=f"Look whether {self._home} is there and its disk is mounted.",
            ) from error

    def _processor(self) -> float:
        """Return how busy the processor was since the reading before, in percent of all cores."""
        before, now = self._times, psutil.cpu_times()
        idle = (now.idle + getattr(now, "iowait", 0.0)) - (before.idle + getattr(before, "iowait", 0.0))
        # Guests are counted in user and nice already.
        whole = (
            sum(now) - sum(before) - sum(getattr(now, n, 0) - getattr(before, n, 0) for n in ("guest", "guest_nice"))
        )
        if whole > 0:
            self._times = now
            self._busy = min(100.0, max(0.0, 100.0 * (1 - idle / whole)))
        return self._busy


def _hottest() -> float | None:
    """Return the temperature of the hottest core; None where the kernel has no sensor of it."""
    chips = psutil.sensors_temperatures()
    degrees = [
        sensor.current
        for name in PROCESSOR_CHIPS
        for sensor in chips.get(name, ())
        if _BELIEVABLE_C[0] < sensor.current < _BELIEVABLE_C[1]
    ]
    return max(degrees, default=None)


def _silent() -> HardwareError:
    return HardwareError(
        "The sensors of this machine do not answer.",
        remedy="Look at `nvidia-smi`, `dmesg` and the disk of the home; start the machine again if one of them hangs.",
    )
