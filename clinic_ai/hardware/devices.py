"""Where each plugin computes, and for which of them a GPU was of no use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from clinic_ai.contract import Device, PluginManifest
from clinic_ai.errors import HardwareError
from clinic_ai.hardware.words import Reading, Sensors, choose_device

CUDA_HOST_MB = 4096
"""Private memory of the machine that a process needs more when it computes on a GPU: CUDA's libraries and context."""
GIVEN_UP_S = 3600.0
"""A plugin for which the GPU was of no use computes on the processor for this long before it is tried again."""


class Devices:
    """Chooses for engines and runs. Safe to call from several threads."""

    def __init__(self, sensors: Sensors, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._sensors = sensors
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._given_up: dict[str, float] = {}

    def choose(
        self,
        manifest: PluginManifest,
        wanted: Literal["auto", "cpu", "cuda"],
        *,
        threads: int,
        memory_mb: int,
        gpu_memory_mb: int = 0,
        reading: Reading | None = None,
    ) -> Device:
        """Return where a plugin computes, as ``choose_device`` does; on the processor if it can do no more.

        With ``auto`` that is also so where the GPU was given up, or, without a ``reading``, the sensors cannot be read.
        Raise HardwareError if ``cuda`` is wanted, the plugin can use it and there is none.
        """
        processor = Device(threads=threads, memory_mb=memory_mb)
        if wanted == "cpu" or "cuda" not in manifest.devices or (wanted == "auto" and self._avoids(manifest.name)):
            return processor
        try:
            return choose_device(wanted, reading or self._sensors.read(), threads, memory_mb, gpu_memory_mb)
        except HardwareError:
            if wanted == "cuda":
                raise
            return processor

    def give_up(self, plugin: str) -> None:
        """Note that a GPU was of no use to a plugin: its libraries cannot use it, or it failed."""
        with self._lock:
            self._given_up[plugin] = self._monotonic() + GIVEN_UP_S

    def _avoids(self, plugin: str) -> bool:
        with self._lock:
            return self._given_up.get(plugin, float("-inf")) > self._monotonic()
