"""The GPUs by NVML, NVIDIA's own library; neither it nor its 3 MB are touched where there is no driver."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from clinic_ai.errors import HardwareError
from clinic_ai.hardware.power import Watts
from clinic_ai.hardware.words import GpuReading

RETRY_S = 60.0
"""A driver that could not be used is asked again after this long."""
DRIVER_FILES = ("dev/nvidiactl", "proc/driver/nvidia/version", "dev/dxg")
"""One of these is there where there is a driver; the last one under WSL."""
_MIB = 1 << 20


def load_pynvml() -> Any:
    """Return the library."""
    return importlib.import_module("pynvml")


class Nvml:
    """The GPUs of this machine. ``problem`` says why there are none though there is a driver, else it is empty."""

    def __init__(self, root: Path, load: Callable[[], Any]) -> None:
        self._root = root
        self._load = load
        self._library: Any = None
        self._handles: tuple[Any, ...] = ()
        self._watts: dict[int, Watts] = {}
        self._seen = False
        self._retry_at = 0.0
        self.problem = ""

    def read(self, monotonic: float) -> tuple[GpuReading, ...]:
        """Return all GPUs; none if there is no driver, or none that could ever be used.

        Raise HardwareError if a driver that worked does so no more; the next call begins anew with it.
        """
        if self._library is None:
            if monotonic < self._retry_at or not any((self._root / name).exists() for name in DRIVER_FILES):
                return self._none()
            self._library = self._load()
        library = self._library
        try:
            if not self._handles:
                library.nvmlInit()
                count = library.nvmlDeviceGetCount()
                self._handles = tuple(library.nvmlDeviceGetHandleByIndex(index) for index in range(count))
            readings = tuple(self._gpu(index, handle, monotonic) for index, handle in enumerate(self._handles))
        except library.NVMLError as error:
            self._let_go(monotonic)
            self.problem = f"The driver of the GPU does not answer: {error}."
            return self._none()
        self._seen, self.problem = self._seen or bool(readings), ""
        return readings

    def _none(self) -> tuple[GpuReading, ...]:
        """Return no GPU. Raise HardwareError if there was one before."""
        if self._seen:
            raise HardwareError(
                self.problem or "The driver of the GPU is gone.",
                remedy="Look at `nvidia-smi` and `dmesg`; start the machine again, or the appliance to go on without.",
            )
        return ()

    def _let_go(self, monotonic: float) -> None:
        library, self._library, self._handles = self._library, None, ()
        self._retry_at = monotonic if self._seen else monotonic + RETRY_S
        try:
            library.nvmlShutdown()
        except library.NVMLError:
            pass  # it was not begun, or is as broken as what came before

    def _gpu(self, index: int, handle: Any, monotonic: float) -> GpuReading:
        library = self._library
        memory = self._told(library.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:  # a GPU without memory of its own, as in NVIDIA's small machines
            machine = psutil.virtual_memory()
            total, used = machine.total, machine.total - machine.available
        else:
            total, used = memory.total, memory.used
        use = self._told(library.nvmlDeviceGetUtilizationRates, handle)
        limit = self._told(library.nvmlDeviceGetEnforcedPowerLimit, handle)
        processes = self._told(library.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        return GpuReading(
            index=index,
            name=self._told(library.nvmlDeviceGetName, handle) or "without a name",
            memory_mb=total // _MIB,
            memory_used_mb=used // _MIB,
            use_percent=None if use is None else use.gpu,
            temperature_c=self._told(library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU),
            power_w=self._power(index, handle, monotonic),
            power_limit_w=None if limit is None else limit / 1000,
            used_by={process.pid: process.usedGpuMemory // _MIB for process in processes if process.usedGpuMemory},
        )

    def _power(self, index: int, handle: Any, monotonic: float) -> float | None:
        """Return the mean power since the reading before, by the GPU's counter of energy, else that of this moment."""
        counted = self._told(self._library.nvmlDeviceGetTotalEnergyConsumption, handle)
        watts = None
        if counted is not None:
            watts = self._watts.setdefault(index, Watts()).after(counted / 1000, monotonic)
        if watts is not None:
            return watts
        now = self._told(self._library.nvmlDeviceGetPowerUsage, handle)
        return None if now is None else float(now) / 1000

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the driver answers, None if this GPU or this driver does not tell. Raise NVMLError else."""
        library = self._library
        try:
            return ask(*arguments)
        except (
            library.NVMLError_NotSupported,
            library.NVMLError_NoPermission,
            library.NVMLError_FunctionNotFound,
            library.NVMLError_NoData,
        ):
            return None
