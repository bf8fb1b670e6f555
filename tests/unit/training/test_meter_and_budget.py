"""What a run costs and when it has to pause, with readings made up and a clock in the hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic_ai.domain import PauseCode, Spent, Verdict
from clinic_ai.hardware import GpuReading, Reading
from clinic_ai.settings import TrainingBudget, TrainingSettings
from clinic_ai.training.budget import Budget, Need
from clinic_ai.training.meter import LONGEST_SAMPLE_S, Meter

GPU = GpuReading(index=0, name="A", memory_mb=8000, memory_used_mb=1000, use_percent=90.0, temperature_c=60.0)
COOL = Reading(
    at=0.0,
    cpu_percent=50.0,
    cpus=4,
    memory_mb=16000,
    memory_available_mb=9000,
    disk_free_mb=100_000,
    temperature_c=50.0,
    on_mains=True,
)
PLENTY = TrainingSettings()


def reading(**changed: Any) -> Reading:
    gpu = {key[4:]: changed.pop(key) for key in list(changed) if key.startswith("gpu_")}
    gpus = (GPU.model_copy(update=gpu),) if gpu else ()
    return COOL.model_copy(update={"gpus": gpus, **changed})


def within(**limits: Any) -> TrainingSettings:
    return TrainingSettings(budget=TrainingBudget(**limits))


class Night:
    """A budget with a clock in the hand; ``ask`` moves it on by a second."""

    def __init__(self, chosen: TrainingSettings = PLENTY) -> None:
        self.chosen = chosen
        self.now = 1000.0
        self.budget = Budget(lambda: self.chosen, lambda: self.now)

    def ask(self, now: Reading | None = COOL, *, seconds: float = 1.0, **given_: Any) -> Verdict:
        self.now += seconds
        asked: dict[str, Any] = {
            "night": Spent(),
            "year": Spent(),
            "open_until": None,
            "windows_configured": False,
            "at_once": False,
            "need": None,
            "running": True,
            "ahead": Spent(),
        }
        return self.budget.verdict(now, **{**asked, **given_})


# ---------------------------------------------------------------- reasons


def test_a_cool_machine_with_room_may_train() -> None:
    assert Night().ask().allowed
    assert Night().ask(running=False, need=Need(memory_mb=4000, disk_mb=1000)).allowed


REASONS: list[tuple[PauseCode, TrainingSettings, Reading | None, dict[str, Any], list[str]]] = [
    (PauseCode.SENSORS, PLENTY, None, {}, ["cannot be read"]),
    (PauseCode.WINDOW, PLENTY, COOL, {"windows_configured": True}, ["window"]),
    (PauseCode.HEAT, PLENTY, reading(temperature_c=85.0), {}, ["85 °C", "hottest_c", "processor"]),
    (PauseCode.HEAT, PLENTY, reading(gpu_temperature_c=91.0), {}, ["91 °C", "85 °C", "GPU 0 (A)"]),
    (PauseCode.BATTERY, PLENTY, reading(on_mains=False), {}, ["battery", "mains_only"]),
    (PauseCode.DISK, PLENTY, reading(disk_free_mb=51199), {}, ["51199 MiB", "51200 MiB", "disk_reserve_mb"]),
    (PauseCode.MEMORY, PLENTY, reading(memory_available_mb=1000), {}, ["1000 MiB", "1024 MiB", "free_memory_mb"]),
    (
        PauseCode.DISK,
        PLENTY,
        reading(disk_free_mb=51300),
        {"running": False, "need": Need(disk_mb=200)},
        ["51300 MiB", "200 MiB", "51200 MiB"],
    ),
    (
        PauseCode.MEMORY,
        PLENTY,
        COOL,
        {"running": False, "need": Need(memory_mb=8000)},
        ["9000 MiB", "8000 MiB", "1024 MiB"],
    ),
    (
        PauseCode.GPU_MEMORY,
        PLENTY,
        reading(gpu_memory_used_mb=7000),
        {"running": False, "need": Need(gpu=0, gpu_memory_mb=2000)},
        ["2000 MiB", "1000 MiB free"],
    ),
    (
        PauseCode.GPU_MEMORY,
        within(gpu_memory_mb=1500),
        reading(gpu_memory_used_mb=0),
        {"running": False, "need": Need(gpu=0, gpu_memory_mb=2000)},
        ["2000 MiB", "1500 MiB", "gpu_memory_mb"],
    ),
    (
        PauseCode.GPU_MEMORY,
        within(gpu_memory_mb=1500),
        reading(gpu_used_by={77: 1600, 78: 10}),
        {"pid": 77, "need": Need(gpu=0)},
        ["1600 MiB", "1500 MiB"],
    ),
    (PauseCode.SENSORS, PLENTY, COOL, {"need": Need(gpu=0)}, ["GPU 0", "any more"]),
    (
        PauseCode.NIGHT_ENERGY,
        within(kwh_per_night=2.0),
        COOL,
        {"night": Spent(kwh=2.0), "ahead": Spent(kwh=0.001)},
        ["2 kWh", "night", "kwh_per_night"],
    ),
    (
        PauseCode.YEAR_ENERGY,
        within(kwh_per_year=300.0),
        COOL,
        {"year": Spent(kwh=299.99), "ahead": Spent(kwh=0.02)},
        ["300 kWh", "299.99 of", "kwh_per_year"],
    ),
    (
        PauseCode.YEAR_COMPUTE,
        within(pf_days_per_year=0.5),
        COOL,
        {"year": Spent(pf_days=0.5), "ahead": Spent(pf_days=1e-9)},
        ["0.5 PF-days", "pf_days_per_year"],
    ),
    (
        PauseCode.YEAR_MONEY,
        within(money_per_year=90.0, currency="CHF"),
        COOL,
        {"year": Spent(money=90.0), "ahead": Spent(money=0.01)},
        ["90 CHF", "money_per_year"],
    ),
]


@pytest.mark.parametrize(("code", "chosen", "now", "given_", "said"), REASONS)
def test_each_reason_says_its_figures_and_what_to_do(
    code: PauseCode, chosen: TrainingSettings, now: Reading | None, given_: dict[str, Any], said: list[str]
) -> None:
    found = Night(chosen).ask(now, **given_)
    assert found.code is code
    assert not found.allowed
    for words in said:
        assert words in found.sentence
    assert found.sentence.endswith(".")
    assert found.remedy.endswith(".")


@pytest.mark.parametrize(
    ("code", "limit", "field"),
    [
        (PauseCode.NIGHT_ENERGY, "kwh_per_night", "kwh"),
        (PauseCode.YEAR_ENERGY, "kwh_per_year", "kwh"),
        (PauseCode.YEAR_COMPUTE, "pf_days_per_year", "pf_days"),
        (PauseCode.YEAR_MONEY, "money_per_year", "money"),
    ],
)
def test_a_budget_smaller_than_one_step_is_refused_before_the_start(code: PauseCode, limit: str, field: str) -> None:
    found = Night(within(**{limit: 0.001})).ask(running=False, need=Need(step=Spent(**{field: 0.002})))
    assert found.code is code
    assert "smaller than one step" in found.sentence
    assert "0.002" in found.sentence
    assert f"training.budget.{limit}" in found.remedy
    assert Night(within(**{limit: 0.003})).ask(running=False, need=Need(step=Spent(**{field: 0.002}))).allowed


def test_a_budget_within_which_nothing_can_be_trained_does_not_promise_the_next_night() -> None:
    found = Night(within(kwh_per_night=1e-6)).ask(running=False, ahead=Spent(seconds=1.0, kwh=2e-5))
    assert "1e-06 kWh (training.budget.kwh_per_night), is smaller than what 1 s of work costs" in found.sentence
    assert "by itself" not in found.remedy


def test_a_run_does_not_start_for_less_than_a_step_but_one_at_work_makes_use_of_it() -> None:
    night, step = Night(within(kwh_per_night=1.0)), Need(step=Spent(kwh=0.1))
    left = {"night": Spent(kwh=0.95), "need": step, "ahead": Spent(kwh=0.01)}
    assert night.ask(running=False, **left).code is PauseCode.NIGHT_ENERGY
    assert night.ask(running=True, **left).allowed


def test_a_person_who_does_not_want_to_wait_still_keeps_to_the_budget() -> None:
    night = Night(within(kwh_per_night=1.0))
    closed = {"windows_configured": True, "at_once": True}
    assert night.ask(**closed).allowed
    assert night.ask(**closed, night=Spent(kwh=1.5)).code is PauseCode.NIGHT_ENERGY
    assert night.ask(windows_configured=True, open_until=5000.0).allowed


# ---------------------------------------------------------------- heat


def test_what_was_too_hot_goes_on_below_the_lower_limit_only() -> None:
    night = Night()
    verdicts = [night.ask(reading(temperature_c=c)).code for c in (84.9, 85.0, 84.0, 75.0, 74.9, 84.9)]
    assert verdicts == [None, PauseCode.HEAT, PauseCode.HEAT, PauseCode.HEAT, None, None]
    night.ask(reading(temperature_c=90.0))
    assert "cool below 75 °C" in night.ask(reading(temperature_c=80.0)).sentence


@given(st.lists(st.tuples(st.floats(20, 110), st.floats(20, 110)), max_size=60))
def test_heat_has_one_direction_between_its_limits(samples: list[tuple[float, float]]) -> None:
    night, hot = Night(), {"gpu": False, "processor": False}
    for gpu, processor in samples:
        for name, celsius in (("gpu", gpu), ("processor", processor)):
            hot[name] = celsius >= 85 or (hot[name] and celsius >= 75)
        code = night.ask(reading(gpu_temperature_c=gpu, temperature_c=processor), need=Need(gpu=0)).code
        assert (code is PauseCode.HEAT) == any(hot.values())


def test_a_sensor_that_falls_silent_is_no_cool_sensor() -> None:
    night = Night()
    assert night.ask(reading(gpu_temperature_c=None, temperature_c=None)).allowed, "a machine without sensors may train"
    assert night.ask(reading(gpu_temperature_c=60.0)).allowed
    silent = night.ask(reading(gpu_temperature_c=None))
    assert silent.code is PauseCode.SENSORS
    assert "GPU 0 (A)" in silent.sentence
    assert night.ask(reading(gpu_temperature_c=61.0)).allowed


# ---------------------------------------------------------------- stalling


def stalls_after(night: Night, now: Reading, seconds: float = 1.0, **given_: Any) -> float:
    began = night.now
    while night.now - began < 2000:
        found = night.ask(now, seconds=seconds, **given_)
        if not found.allowed:
            assert found.code is PauseCode.STALLED
            return night.now - began
    return float("inf")


def test_a_gpu_at_nothing_for_five_minutes_is_a_stall() -> None:
    night, idle = Night(), reading(gpu_use_percent=0.0)
    assert stalls_after(night, idle, need=Need(gpu=0)) == 301  # five minutes between the first sample and the last
    assert night.ask(idle, need=Need(gpu=0), running=False).allowed, "a person may resume it"
    assert stalls_after(night, idle, need=Need(gpu=0)) == 301


def test_one_sign_of_life_begins_the_five_minutes_anew() -> None:
    night, idle = Night(), reading(gpu_use_percent=0.0)
    for _ in range(299):
        assert night.ask(idle, need=Need(gpu=0)).allowed
    assert night.ask(reading(gpu_use_percent=1.0), need=Need(gpu=0)).allowed
    assert stalls_after(night, idle, need=Need(gpu=0)) >= 300


def test_the_processor_stalls_too_by_what_the_runs_own_process_takes() -> None:
    assert stalls_after(Night(), reading(cpu_percent=90.0), busy_percent=0.2) == 301
    assert stalls_after(Night(), reading(cpu_percent=0.1)) == 301
    assert stalls_after(Night(), reading(cpu_percent=0.1), busy_percent=50.0) == float("inf")
    silent = reading(gpu_use_percent=None)
    assert stalls_after(Night(), silent, need=Need(gpu=0), busy_percent=0.0) == 301, "a driver that does not tell"


def test_a_machine_that_slept_has_not_stalled() -> None:
    night, idle = Night(), reading(gpu_use_percent=0.0)
    night.ask(idle, need=Need(gpu=0))
    assert night.ask(idle, need=Need(gpu=0), seconds=8 * 3600).allowed
    assert night.ask(None, need=Need(gpu=0)).code is PauseCode.SENSORS


# ---------------------------------------------------------------- the meter


def test_a_run_is_charged_its_gpu_else_the_processor_else_what_is_assumed() -> None:
    watts = Meter(lambda: PLENTY, gpu=0).watts
    assert watts(reading(gpu_power_w=300.0, power_w=40.0)) == 300
    assert watts(reading(gpu_power_w=None, gpu_power_limit_w=350.0, power_w=40.0)) == 350
    assert watts(reading(gpu_power_w=None, power_w=40.0)) == 65
    assert Meter(lambda: PLENTY).watts(reading(gpu_power_w=300.0, power_w=40.0)) == 40
    assert Meter(lambda: PLENTY).watts(COOL) == 65


def test_an_hour_at_a_kilowatt_is_a_kilowatt_hour_and_costs_its_price() -> None:
    meter = Meter(lambda: within(price_per_kwh=0.4))
    total = Spent()
    for second in range(3601):
        total += meter.sample(reading(power_w=1000.0), float(second), second / 7200)
    assert total.seconds == pytest.approx(3600)
    assert total.kwh == pytest.approx(1.0)
    assert total.money == pytest.approx(0.4)
    assert total.pf_days == pytest.approx(0.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_no_jump_of_a_clock_costs_more_than_the_longest_sample(moments: list[float]) -> None:
    meter = Meter(lambda: PLENTY)
    for k, moment in enumerate(moments):
        spent = meter.sample(reading(power_w=100.0), moment, None)
        assert 0 <= spent.seconds <= (0 if k == 0 else LONGEST_SAMPLE_S)
        assert spent.kwh == pytest.approx(spent.seconds * 100 / 3.6e6)


def test_while_nothing_can_be_read_the_power_of_before_is_charged() -> None:
    meter = Meter(lambda: PLENTY)
    meter.sample(reading(power_w=360.0), 0.0, None)
    assert meter.sample(None, 100.0, None).kwh == pytest.approx(0.01)
    assert Meter(lambda: PLENTY).ahead(3600).kwh == pytest.approx(0.065)


def test_a_process_that_counts_from_nothing_again_loses_nothing() -> None:
    meter = Meter(lambda: PLENTY)
    counts = [0.1, 0.3, None, 0.3, 0.05, 0.25]
    total = sum(meter.sample(COOL, float(k), count).pf_days for k, count in enumerate(counts))
    assert total == pytest.approx(0.3 + 0.25)


# ---------------------------------------------------------------- both together


@settings(max_examples=40, deadline=None)
@given(
    watts=st.lists(st.one_of(st.floats(60, 600), st.just(600.0)), min_size=1, max_size=20),
    each=st.integers(1, 40),
    limit_wh=st.floats(17, 40),
    earlier=st.floats(0.5, 0.9),
    stopping=st.integers(0, 4),
)
def test_no_curve_of_power_takes_a_budget_beyond_its_limit_by_a_hundredth(
    watts: list[float], each: int, limit_wh: float, earlier: float, stopping: int
) -> None:
    """Sampled each second at up to 600 W; a run that is told to pause still takes ``stopping`` seconds."""
    limit = limit_wh / 1000
    night = Night(within(kwh_per_night=limit))
    meter = Meter(lambda: night.chosen)
    spent, second, left = Spent(kwh=limit * earlier), 0, None
    while left != 0:
        now = reading(power_w=watts[second // each % len(watts)])
        spent += meter.sample(now, float(second), None)
        found = night.ask(now, night=spent, ahead=meter.ahead(1.0 + stopping))
        if left is None and not found.allowed:
            assert found.code is PauseCode.NIGHT_ENERGY
            left = stopping
        elif left is not None:
            left -= 1
        second += 1
    assert spent.kwh <= limit * 1.01 + stopping * 600 / 3.6e6
    if len(watts) == 1:  # where the next second is like the last, it keeps to the limit to the watt-second
        assert spent.kwh <= limit * (1 + 1e-9)
