"""What is said of a machine: one reading of it, and where to compute by it."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field

from clinic_ai.contract import Device
from clinic_ai.domain import Word
from clinic_ai.errors import HardwareError


class GpuReading(Word):
    """One GPU now. What its driver does not tell is None. Memory in MiB, use in percent of the last sample period.

    ``index`` counts as NVML does, by place on the PCI bus; ``power_w`` is the mean since the reading before where the
    GPU counts its energy, else that of this moment.
    """

    index: int
    name: str
    memory_mb: int
    memory_used_mb: int
    use_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    """The most its driver lets it take."""
    used_by: dict[int, int] = Field(default_factory=dict)
    """Memory in MiB by process id, as far as the driver tells."""


class Reading(Word):
    """The machine at one moment. Memory and disk in MiB, use in percent of all cores, power in watts.

    ``at`` is the time of day in UTC seconds. ``temperature_c`` is that of the hottest processor core, ``power_w`` the
    mean power of the processor since the reading before; None where nothing measures it. ``on_mains`` is None where
    nothing tells.
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


def choose_device(
    wanted: Literal["auto", "cpu", "cuda"],
    reading: Reading | None,
    threads: int,
    memory_mb: int,
    gpu_memory_mb: int = 0,
) -> Device:
    """Return where to compute: ``auto`` takes the GPU with most free memory if that is ``gpu_memory_mb`` or more.

    ``cuda`` takes it whether there is room or not. Memory in MiB; ``threads`` and ``memory_mb`` are of the processor.
    Raise HardwareError if ``cuda`` is wanted and there is no GPU.
    """
    gpus = () if reading is None or wanted == "cpu" else reading.gpus
    roomiest = max(gpus, key=lambda gpu: (gpu.memory_mb - gpu.memory_used_mb, -gpu.index), default=None)
    if roomiest is None and wanted == "cuda":
        raise HardwareError(
            "There is no GPU here that can be used, and the settings ask for one.",
            remedy='`clinic-ai doctor` says what is wrong with it; or write device = "auto" in clinic.toml.',
        )
    if roomiest is None or (wanted == "auto" and roomiest.memory_mb - roomiest.memory_used_mb < gpu_memory_mb):
        return Device(threads=threads, memory_mb=memory_mb)
    return Device(kind="cuda", index=roomiest.index, threads=threads, memory_mb=memory_mb)
