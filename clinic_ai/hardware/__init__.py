"""What this machine is, and how hot, full and busy it is: GPUs by NVML, the rest by psutil and the kernel."""

from clinic_ai.hardware.devices import CUDA_HOST_MB, Devices
from clinic_ai.hardware.history import Sampler
from clinic_ai.hardware.identity import Identity, identity_of
from clinic_ai.hardware.machine import Machine
from clinic_ai.hardware.words import GpuReading, Reading, Sensors, choose_device

__all__ = [
    "CUDA_HOST_MB",
    "Devices",
    "GpuReading",
    "Identity",
    "Machine",
    "Reading",
    "Sampler",
    "Sensors",
    "choose_device",
    "identity_of",
]
