"""What this machine is, and how hot, full and busy it is: GPUs by NVML, the rest by psutil and the kernel."""

from clinic_ai.hardware.devices import CUDA_HOST_MB, Devices
from clinic_ai.hardware.machine import Machine
from clinic_ai.hardware.words import GpuReading, Reading, Sensors, choose_device

__all__ = ["CUDA_HOST_MB", "Devices", "GpuReading", "Machine", "Reading", "Sensors", "choose_device"]
