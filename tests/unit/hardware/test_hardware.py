"""The sensors: a made-up driver at NVML's boundary, made-up files of the kernel, and the real machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from clinic_ai.errors import HardwareError
from clinic_ai.hardware import GpuReading, Machine, Reading, choose_device
from clinic_ai.hardware.nvml import RETRY_S
from clinic_ai.hardware.power import Rapl, Watts, on_mains

MIB = 1 << 20


class Driver:
    """A driver in memory that answers as ``pynvml`` does, with its errors. ``answers`` may hold errors to raise."""

    def __init__(self, count: int = 1, **answers: Any) -> None:
        self.count = count
        self.begun = 0
        self.broken: Exception | None = None
        self.answers: dict[str, Any] = {
            "Name": "NVIDIA Test",
            "MemoryInfo": SimpleNamespace(total=8000 * MIB, used=1000 * MIB),
            "UtilizationRates": SimpleNamespace(gpu=42, memory=7),
            "Temperature": 61,
            "EnforcedPowerLimit": 350_000,
            "PowerUsage": 123_400,
            "TotalEnergyConsumption": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
            "ComputeRunningProcesses": [
                SimpleNamespace(pid=7, usedGpuMemory=600 * MIB),
                SimpleNamespace(pid=8, usedGpuMemory=None),
            ],
            **answers,
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return lambda *_: self._answer(self.answers[name.removeprefix("nvmlDeviceGet")])
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        self._answer(None)
        self.begun += 1

    def nvmlShutdown(self) -> None:
        self._answer(None)

    def nvmlDeviceGetCount(self) -> int:
        return self._answer(self.count)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return self._answer(index)

    def _answer(self, answer: Any) -> Any:
        if self.broken is not None:
            raise self.broken
        if isinstance(answer, Exception):
            raise answer
        return answer


class Hand:
    """A clock in the hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return 1e9 + self.seconds

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of a kernel that has the driver."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    return tmp_path


def machine(root: Path, driver: Driver | Callable[[], Any], clock: Hand | None = None) -> Machine:
    load = (lambda: driver) if isinstance(driver, Driver) else driver
    return Machine(root, root=root, load=load, clock=clock or Hand())


def supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for key, text in files.items():
        (folder / key).write_text(text + "\n")


# ---------------------------------------------------------------- GPUs


def test_a_gpu_says_what_it_is_and_does(root: Path) -> None:
    (gpu,) = machine(root, Driver()).read().gpus
    assert gpu == GpuReading(
        index=0,
        name="NVIDIA Test",
        memory_mb=8000,
        memory_used_mb=1000,
        use_percent=42,
        temperature_c=61,
        power_w=123.4,
        power_limit_w=350,
        used_by={7: 600},
    )


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_what_a_driver_does_not_tell_is_not_known(root: Path, code: int) -> None:
    refused = pynvml.NVMLError(code)
    silent = dict.fromkeys(("Temperature", "PowerUsage", "EnforcedPowerLimit", "UtilizationRates"), refused)
    (gpu,) = machine(root, Driver(**silent, ComputeRunningProcesses=refused)).read().gpus
    assert (gpu.temperature_c, gpu.power_w, gpu.power_limit_w, gpu.use_percent) == (None, None, None, None)
    assert gpu.used_by == {}
    assert gpu.memory_mb == 8000


def test_a_gpu_without_memory_of_its_own_shares_that_of_the_machine(root: Path) -> None:
    (gpu,) = machine(root, Driver(MemoryInfo=pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))).read().gpus
    assert gpu.memory_mb == psutil.virtual_memory().total // MIB
    assert 0 < gpu.memory_used_mb < gpu.memory_mb


def test_power_is_the_mean_by_the_counter_of_energy(root: Path) -> None:
    driver, clock = Driver(TotalEnergyConsumption=1_000_000), Hand()
    found = machine(root, driver, clock)
    assert found.read().gpus[0].power_w == 123.4, "nothing to compare with yet"
    driver.answers["TotalEnergyConsumption"] += 500_000  # 500 J
    clock.seconds += 2
    assert found.read().gpus[0].power_w == pytest.approx(250)


def test_without_a_driver_the_library_is_not_even_loaded(tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError("the library was loaded")

    assert machine(tmp_path, never).read().gpus == ()


def test_a_driver_that_cannot_be_used_is_no_gpu_and_is_asked_again_later(root: Path) -> None:
    driver, clock = Driver(), Hand()
    driver.broken = pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    found = machine(root, driver, clock)
    assert found.read().gpus == ()
    assert "version mismatch" in found.gpu_problem
    driver.broken = None
    assert found.read().gpus == (), "not at every reading"
    clock.seconds += RETRY_S
    assert len(found.read().gpus) == 1
    assert found.gpu_problem == ""


def test_a_driver_that_fails_later_is_a_fault_until_it_is_back(root: Path) -> None:
    driver, clock = Driver(count=2), Hand()
    found = machine(root, driver, clock)
    assert [gpu.index for gpu in found.read().gpus] == [0, 1]
    driver.broken = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    for _ in range(2):
        with pytest.raises(HardwareError, match="does not answer: GPU is lost") as caught:
            found.read()
        assert "nvidia-smi" in caught.value.remedy
    driver.broken = None
    assert len(found.read().gpus) == 2
    assert driver.begun == 2, "it was begun anew"
    (root / "dev/nvidiactl").unlink()
    assert len(found.read().gpus) == 2, "what is at work needs no file"


def test_one_broken_gpu_is_a_fault_of_the_reading(root: Path) -> None:
    driver = Driver()
    found = machine(root, driver)
    found.read()
    driver.answers["Temperature"] = pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
    with pytest.raises(HardwareError, match="Unknown Error"):
        found.read()


def test_nobody_waits_for_a_driver_that_hangs(root: Path) -> None:
    hanging, over = threading.Event(), threading.Event()

    class Hanging(Driver):
        def nvmlDeviceGetCount(self) -> int:
            hanging.set()
            over.wait(60)
            return 1

    found = Machine(root, root=root, load=Hanging, clock=Hand(), answer_s=0.05)
    with pytest.raises(HardwareError, match="do not answer"):
        found.read()
    assert hanging.wait(10)
    with pytest.raises(HardwareError, match="do not answer"):  # and no second thread hangs beside it
        found.read()
    over.set()
    patient = Machine(root, root=root, load=Driver, clock=Hand())
    assert len(patient.read().gpus) == 1


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(
    ("supplies", "mains"),
    [
        ({}, None),
        ({"AC": {"type": "Mains", "online": "1"}}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "ups": {"type": "UPS", "status": "Discharging"}}, False),
        ({"ups": {"type": "UPS", "status": "Full"}}, True),
        ({"mouse": {"type": "Battery", "scope": "Device", "status": "Discharging"}}, None),
        ({"ucsi0": {"type": "USB", "online": "0"}, "ucsi1": {"type": "USB", "online": "1"}}, True),
    ],
)
def test_mains_and_batteries(tmp_path: Path, supplies: dict[str, dict[str, str]], mains: bool | None) -> None:
    for name, files in supplies.items():
        supply(tmp_path, name, **files)
    assert on_mains(tmp_path) is mains


def zone(root: Path, name: str, kind: str, joules: float) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")  # 1000 J
    (folder / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    return folder


def test_the_processor_packages_are_summed_and_their_counters_wrap(tmp_path: Path) -> None:
    for name, kind in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1")):
        zone(tmp_path, name, kind, 900)
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys")):
        zone(tmp_path, name, kind, 0)
    rapl = Rapl(tmp_path)
    assert rapl.watts(0.0) is None
    zone(tmp_path, "intel-rapl:0", "package-0", 950)
    zone(tmp_path, "intel-rapl:1", "package-1", 50)  # beyond 1000 J, from nothing
    assert rapl.watts(2.0) == pytest.approx((50 + 150) / 2)
    (tmp_path / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    assert rapl.watts(3.0) is None


def test_a_machine_without_counters_measures_no_power(tmp_path: Path) -> None:
    assert Rapl(tmp_path).watts(0.0) is None


def test_a_counter_that_begins_anew_or_a_clock_that_goes_back_is_no_power() -> None:
    watts = Watts()
    assert watts.after(100, 0.0) is None
    assert watts.after(200, 1.0) == 100
    assert watts.after(10, 2.0) is None, "the driver was loaded anew"
    assert watts.after(20, 1.0) is None, "the clock was put back"
    assert watts.after(40, 2.0) == 20
    assert watts.after(41, 2.05) == 20, "too short a time to say"


# ---------------------------------------------------------------- the real machine


def test_the_real_machine_can_be_read(tmp_path: Path) -> None:
    found = Machine(tmp_path)
    reading = found.read()
    assert reading.cpus == psutil.cpu_count()
    assert 0 <= reading.cpu_percent <= 100
    assert 0 < reading.memory_available_mb < reading.memory_mb
    assert reading.disk_free_mb > 0
    found.close()


def test_a_home_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="cannot be read: No such file"):
        Machine(tmp_path / "gone").read()


# ---------------------------------------------------------------- where to compute


def gpu(index: int, used_mb: int) -> GpuReading:
    return GpuReading(index=index, name="A", memory_mb=8000, memory_used_mb=used_mb)


BARE = Reading(at=0, cpu_percent=0, cpus=2, memory_mb=1, memory_available_mb=1, disk_free_mb=1)
TWO = BARE.model_copy(update={"gpus": (gpu(0, 7000), gpu(1, 3000))})


def test_where_to_compute() -> None:
    def chosen(wanted: Any, reading: Reading | None, room: int = 0) -> tuple[str, int]:
        device = choose_device(wanted, reading, 3, 512, room)
        assert (device.threads, device.memory_mb) == (3, 512)
        return device.kind, device.index

    assert chosen("auto", None) == ("cpu", 0)
    assert chosen("auto", BARE) == ("cpu", 0)
    assert chosen("cpu", TWO) == ("cpu", 0)
    assert chosen("auto", TWO) == ("cuda", 1)
    assert chosen("auto", TWO, 5000) == ("cuda", 1)
    assert chosen("auto", TWO, 5001) == ("cpu", 0)
    assert chosen("cuda", TWO, 5001) == ("cuda", 1)
    for nothing in (None, BARE):
        with pytest.raises(HardwareError, match="no GPU"):
            choose_device("cuda", nothing, 1, 1)
