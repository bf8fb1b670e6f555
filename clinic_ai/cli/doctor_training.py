"""What ``clinic-ai doctor`` says about training, and about the GPU that engines and training may use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from shutil import which

from clinic_ai.cli.check import Check
from clinic_ai.errors import HardwareError
from clinic_ai.hardware import Machine, Reading
from clinic_ai.hardware.power import SHORTEST_S
from clinic_ai.settings import Settings, TrainingSettings
from clinic_ai.training.windows import Windows

SYSTEMD = Path("/run/systemd/system")


def training(settings: Settings, machine: Machine) -> Iterator[Check]:
    """Look at what training stands on: GPU, sensors, power, room, sleep, and the windows."""
    try:
        machine.read()
        time.sleep(SHORTEST_S)  # power is what was used between two readings
        reading = machine.read()
    except HardwareError as error:
        yield Check("sensors", "fail", error.message, error.remedy)
        return
    yield from _gpu(settings, reading, machine.gpu_problem)
    yield _sensors(settings.training, reading)
    yield _mains(settings.training, reading)
    yield _disk(settings.training, reading)
    yield _memory(settings.training, reading)
    yield _sleep()
    yield _windows(settings.training)


def _gpu(settings: Settings, reading: Reading, problem: str) -> Iterator[Check]:
    devices = {"execution.device": settings.execution.device, "training.device": settings.training.device}
    wanted = [key for key, device in devices.items() if device == "cuda"]
    for gpu in reading.gpus:
        yield Check("gpu", "ok", f"GPU {gpu.index}: {gpu.name}, {gpu.memory_mb - gpu.memory_used_mb} MiB free.")
    if reading.gpus:
        return
    remedy = "Look at `nvidia-smi`; the service needs its drop-in for a GPU, docs/installing.md says how."
    if wanted:
        sentence = problem or "There is no GPU here that can be used."
        yield Check("gpu", "fail", f"{sentence} {' and '.join(wanted)} ask for one.", remedy)
    elif problem:
        yield Check("gpu", "warn", problem, remedy)
    else:
        yield Check("gpu", "ok", "There is no GPU; engines and training compute on the processor.")


def _sensors(training: TrainingSettings, reading: Reading) -> Check:
    degrees = [reading.temperature_c, *(gpu.temperature_c for gpu in reading.gpus)]
    watts = [reading.power_w, *(gpu.power_w for gpu in reading.gpus)]
    if all(celsius is None for celsius in degrees):
        return Check(
            "sensors",
            "warn",
            "Nothing here measures temperature, so heat pauses no training.",
            "Load the kernel's module of the sensors, such as coretemp or k10temp; a virtual machine has none.",
        )
    if all(power is None for power in watts):
        assumed = f"{training.budget.assumed_watts:g} W (training.budget.assumed_watts)"
        return Check("sensors", "ok", f"Power is not measured; a run is charged {assumed}.")
    return Check("sensors", "ok", "Temperature and power are measured.")


def _mains(training: TrainingSettings, reading: Reading) -> Check:
    if reading.on_mains is False and training.budget.mains_only:
        return Check("mains", "warn", "The machine runs on battery, so nothing is trained.", "Look at plug and UPS.")
    if reading.on_mains is None:
        return Check("mains", "ok", "Nothing here tells of a battery; mains power is taken for granted.")
    return Check("mains", "ok", f"The machine runs on {'mains power' if reading.on_mains else 'battery'}.")


def _disk(training: TrainingSettings, reading: Reading) -> Check:
    reserve, free = training.budget.disk_reserve_mb, reading.disk_free_mb
    if free < reserve:
        return Check(
            "training disk",
            "warn",
            f"{free} MiB are free, and training leaves {reserve} MiB free: nothing is trained.",
            "Make room, or write less in training.budget.disk_reserve_mb.",
        )
    return Check("training disk", "ok", f"Training may use {free - reserve} MiB of the disk; {reserve} stay free.")


def _memory(training: TrainingSettings, reading: Reading) -> Check:
    wanted, free = training.max_memory_mb, training.budget.free_memory_mb
    if wanted + free > reading.memory_mb:
        return Check(
            "training memory",
            "warn",
            f"A run may use {wanted} MiB and {free} MiB have to stay free, of {reading.memory_mb} MiB in all.",
            "Write less in training.max_memory_mb, or add memory to the machine.",
        )
    return Check("training memory", "ok", f"A run may use {wanted} MiB of {reading.memory_mb} MiB.")


def _sleep() -> Check:
    if not SYSTEMD.exists():
        return Check("sleep", "ok", "There is no systemd here that would send the machine to sleep.")
    if which("systemd-inhibit") is None:
        return Check(
            "sleep",
            "warn",
            "systemd-inhibit is missing, so the machine may go to sleep during a run.",
            "Install it; it comes with systemd.",
        )
    return Check("sleep", "ok", "The machine is kept awake while a run is at work.")


def _windows(training: TrainingSettings) -> Check:
    if training.plan and not training.window:
        return Check(
            "windows",
            "warn",
            "There are [[training.plan]] tables but no window, so nothing is trained by itself.",
            "Add a [[training.window]].",
        )
    if not training.window:
        return Check("windows", "ok", "Nothing is trained by itself; runs that people start begin at once.")
    windows, now = Windows(training), time.time()
    opens = windows.next_opening(now)
    if windows.open_until(now) is not None:
        return Check("windows", "ok", "A training window is open now.")
    if opens is None:
        return Check("windows", "warn", "No training window opens within a year.", "Correct days, or add holidays.")
    return Check("windows", "ok", f"The next training window opens on {datetime.fromtimestamp(opens):%Y-%m-%d %H:%M}.")
