"""Simulated nights on a machine with a GPU: where runs compute, what pauses them, and what they are charged."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import tiny_learner
from nights import SetSensors, Simulation, labelled_folder, settings_of, simulated

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import RunState
from clinic_ai.hardware import CUDA_HOST_MB, GpuReading
from clinic_ai.home import Home

GPU = GpuReading(
    index=0,
    name="A",
    memory_mb=8000,
    memory_used_mb=1000,
    use_percent=90.0,
    temperature_c=60.0,
    power_w=300.0,
)
HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled_folder(tmp_path / "labelled")


def learner(trainer: str = "tiny_learner:TinyTrainer") -> PluginManifest:
    return tiny_learner.manifest().model_copy(update={"devices": ("cpu", "cuda"), "trainer": trainer})


def gpu(sensors: SetSensors, **values: object) -> None:
    sensors.set(gpus=(GPU.model_copy(update=values),))


def at_work(night: Simulation, run_id: str, step: int) -> None:
    night.tick(2 * HOUR)
    night.at_step(run_id, step)


def test_a_run_on_a_gpu_is_charged_its_power_and_paused_by_its_heat(home: Home, folder: Path) -> None:
    with simulated(home, manifest=learner()) as night:
        gpu(night.sensors)
        run_id = night.start(folder, paced=10)
        at_work(night, run_id, 10)
        (pid,) = night.processes()
        limit = night.settings.max_memory_mb + CUDA_HOST_MB
        assert psutil.Process(pid).rlimit(psutil.RLIMIT_DATA)[0] == limit << 20
        night.tick(60)
        gpu(night.sensors, temperature_c=90.0)
        night.tick(60)
        run = night.get(run_id)
        assert (run.state, run.pause_code) == (RunState.PAUSED, "heat")
        assert "GPU 0 (A) has 90 °C" in run.error
        (work,) = [row for row in night.ledger() if row.kind == "work"]
        assert work.device == "cuda"
        assert work.peaks.watts == 300.0
        assert work.spent.kwh == pytest.approx(work.spent.seconds * 300 / 3.6e6)


def test_where_the_libraries_cannot_use_the_gpu_a_run_goes_on_on_the_processor(home: Home, folder: Path) -> None:
    with simulated(home, manifest=learner("gpu_engine:UnusableTrainer")) as night:
        gpu(night.sensors)
        run_id = night.start(folder)
        night.tick(2 * HOUR)
        run = night.until(run_id, lambda run: run.state is RunState.PAUSED)
        assert run.pause_code == "restart"
        assert "cannot compute on GPU 0" in run.error
        night.tick(1)
        night.tick(1)
        assert night.end(run_id).state is RunState.FINISHED
        assert [row.device for row in night.ledger() if row.kind == "work"] == ["cuda", "cpu"]


def test_where_a_gpu_is_asked_for_that_libraries_cannot_use_the_run_fails_with_the_reason(
    home: Home, folder: Path
) -> None:
    with simulated(home, settings_of(device="cuda"), learner("gpu_engine:UnusableTrainer")) as night:
        gpu(night.sensors)
        run_id = night.start(folder)
        night.tick(2 * HOUR)
        run = night.end(run_id)
        assert run.state is RunState.FAILED
        assert "cannot use the GPU" in run.error
