"""What this machine is, and how hot, full and busy it is: GPUs by NVML, the rest by psutil."""

from __future__ import annotations

from typing import Protocol

from clinic_ai.domain import Word


class GpuReading(Word):
    """One GPU now. What its driver does not tell is None. Memory in MiB, use in percent of the last sample period."""

    index: int
    name: str
    memory_mb: int
    memory_used_mb: int
    use_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class Reading(Word):
    """The machine at one moment. Memory and disk in MiB, use in percent of all cores, power in watts.

    ``temperature_c`` is that of the hottest processor core, ``power_w`` that of the processor; None where nothing
    measures it. ``on_mains`` is None where nothing tells.
    """

    at: float
    cpu_percent: float
    cpus: int
    memory_mb: int
    memory_available_mb: int
    disk_free_mb: int
    temperature_c: float | None = None
    power_w: float | None = None
    on_mains: bool | None = None
    gpus: tuple[GpuReading, ...] = ()


class Sensors(Protocol):
    """How the state of the machine is read; simulated nights have sensors of their own."""

    def read(self) -> Reading:
        """Return the state of the machine now. Raise HardwareError if it cannot be read."""
