"""What the machine did of late: gaps stay gaps, an hour and a day are kept, and it takes little room."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import pytest

from clinic_ai.errors import HardwareError
from clinic_ai.hardware import GpuReading, Reading, Sampler, identity_of
from clinic_ai.hardware.history import DAY_SLOTS, HOUR_SLOTS, MOST_GPUS, SAMPLE_S, Ring


class Hands:
    """A clock and sensors moved by hand."""

    def __init__(self) -> None:
        self.second = 36_000.0
        self.cpu = 10.0
        self.degrees: float | None = 50.0
        self.gpus: tuple[GpuReading, ...] = ()
        self.broken = False

    def now(self) -> float:
        return 1_700_000_000.0 + self.second

    def monotonic(self) -> float:
        return self.second

    def read(self) -> Reading:
        if self.broken:
            raise HardwareError("The sensors of this machine do not answer.", remedy="Look at `dmesg`.")
        return Reading(
            at=self.now(),
            cpu_percent=self.cpu,
            cpus=8,
            memory_mb=16_000,
            memory_available_mb=12_000,
            disk_free_mb=200_000,
            temperature_c=self.degrees,
            gpus=self.gpus,
        )


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def sampler(hands: Hands) -> Sampler:
    return Sampler(hands, memory=lambda: (110, 900), clock=hands)


def test_before_the_first_reading_nothing_is_known(sampler: Sampler) -> None:
    assert sampler.now() == (None, None)
    assert set(sampler.past("hour", 12).lines["cpu_percent"]) == {None}


def test_an_hour_in_steps_has_means_and_the_highest_temperature(hands: Hands, sampler: Sampler) -> None:
    for number in range(HOUR_SLOTS):
        hands.cpu, hands.degrees = float(number % 2) * 20, 80.0 if number == HOUR_SLOTS - 10 else 50.0
        sampler.sample()
        hands.second += SAMPLE_S
    hands.second -= SAMPLE_S
    past = sampler.past("hour", 12)
    assert past.step_s == 300
    assert past.lines["cpu_percent"] == (10.0,) * 12
    assert past.lines["temperature_c"] == (50.0,) * 11 + (80.0,)
    assert past.lines["children_mb"] == (900.0,) * 12
    assert past.lines["memory_mb"] == (4000.0,) * 12
    assert past.lines["power_w"] == (None,) * 12


def test_a_day_is_kept_when_the_hour_is_long_over(hands: Hands, sampler: Sampler) -> None:
    hands.cpu = 90.0
    sampler.sample()
    hands.second += 3 * 3600
    hands.cpu = 5.0
    sampler.sample()
    assert sampler.past("hour", 60).lines["cpu_percent"] == (None,) * 59 + (5.0,)
    day = sampler.past("day", DAY_SLOTS).lines["cpu_percent"]
    assert day[-1] == 5.0
    assert day[-181] == 90.0
    assert sum(value is not None for value in day) == 2


def test_what_is_older_than_the_ring_is_not_told(hands: Hands, sampler: Sampler) -> None:
    sampler.sample()
    hands.second += SAMPLE_S * HOUR_SLOTS
    assert set(sampler.past("hour", HOUR_SLOTS).lines["cpu_percent"]) == {None}
    sampler.sample()
    assert sampler.past("hour", HOUR_SLOTS).lines["cpu_percent"] == (*(None,) * (HOUR_SLOTS - 1), 10.0)


def test_a_ring_ignores_a_clock_that_goes_back() -> None:
    ring = Ring(4)
    ring.put(10, 1.0)
    ring.put(7, 9.0)
    assert ring.last(10, 1) == [1.0]
    ring.put(12, 2.0)
    assert [value for value in ring.last(12, 3) if value == value] == [1.0, 2.0]


def test_sensors_that_fail_leave_a_gap_and_a_reason(hands: Hands, sampler: Sampler) -> None:
    sampler.sample()
    hands.second += SAMPLE_S
    hands.broken = True
    sampler.sample()
    reading, trouble = sampler.now()
    assert reading is not None
    assert trouble is not None
    assert "do not answer" in trouble.message
    assert sampler.past("hour", HOUR_SLOTS).lines["cpu_percent"][-2:] == (10.0, None)
    assert sampler.past("hour", HOUR_SLOTS).lines["children_mb"][-1] == 900.0
    hands.broken = False
    sampler.sample()
    assert sampler.now()[1] is None


def test_each_gpu_has_lines_of_its_own(hands: Hands, sampler: Sampler) -> None:
    hands.gpus = tuple(
        GpuReading(index=index, name="H200", memory_mb=144_000, memory_used_mb=1000 * index, use_percent=index)
        for index in range(2)
    )
    sampler.sample()
    gpus = sampler.past("hour", 1).gpus
    assert gpus[1]["gpu_memory_mb"] == (1000.0,)
    assert gpus[0]["gpu_use_percent"] == (0.0,)
    assert gpus[1]["gpu_power_w"] == (None,)


def test_sixteen_gpus_take_less_than_a_megabyte(hands: Hands) -> None:
    hands.gpus = tuple(
        GpuReading(index=index, name="H200", memory_mb=144_000, memory_used_mb=1000, use_percent=5)
        for index in range(MOST_GPUS + 2)
    )
    tracemalloc.start()
    try:
        sampler = Sampler(hands, memory=lambda: (1, 1), clock=hands)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            sampler.sample()
            hands.second += SAMPLE_S
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(sampler.past("hour", 1).gpus) == MOST_GPUS
    assert grown < 1_000_000
    assert before < 200_000  # a machine without a GPU takes next to nothing


def test_its_thread_reads_at_once_and_ends(hands: Hands) -> None:
    told = threading.Event()
    sampler = Sampler(hands, memory=lambda: (1, 1), on_sample=told.set, clock=hands)
    sampler.start()
    try:
        assert told.wait(10)
        assert sampler.now()[0] is not None
    finally:
        sampler.close()


def test_the_machine_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name\t: A  Processor @ 3 GHz\nmodel name : other\n")
    (tmp_path / "etc/os-release").write_text('NAME="D"\nPRETTY_NAME="Debian 12"\n')
    found = identity_of(tmp_path)
    assert found.processor == "A Processor @ 3 GHz"
    assert found.system.startswith("Debian 12, kernel ")
    assert identity_of(tmp_path / "nothing").processor == ""
