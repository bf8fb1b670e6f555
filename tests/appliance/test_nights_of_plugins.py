"""Simulated nights with the trainers of the plugins that learn: paused in the middle, gone on with, finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import served_models
from chests_at_home import write_chests
from films import write_films
from fixed_splits import fix_splits
from nights import Simulation, simulated

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import RunState
from clinic_ai.home import Home, init_home
from clinic_ai.plugins import find_plugins
from clinic_ai.store.runs import RunResult
from clinic_ai_ultrasound.reference.phantoms import write_phantoms

HOUR = 3600.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "h")


def manifest(name: str) -> PluginManifest:
    return find_plugins().manifests[name]


def disturbed(night: Simulation, plugin: str, folder: Path, **recipe: float | int | str) -> RunResult:
    """Train in the window, once too hot in the middle; return what the run made."""
    night.school.registry.install_reference_models("clinic-ai")
    night.tick(HOUR)
    run_id = night.start(folder, plugin=plugin, **recipe)
    night.tick(1.0)
    night.at_step(run_id, 1)
    night.sensors.set(temperature_c=90.0)
    night.tick(30.0)
    run = night.get(run_id)
    assert (run.state, run.pause_code) == (RunState.PAUSED, "heat")
    assert night.processes() == []
    assert run.progress is not None
    assert run.progress["step"] < run.progress["steps"], "there is something left to do"
    night.sensors.set(temperature_c=60.0)
    night.tick(30.0)
    run = night.end(run_id)
    assert run.state is RunState.FINISHED, run.error
    work = [row for row in night.ledger() if row.kind == "work"]
    assert len(work) == 2
    assert sum(row.spent.seconds for row in work) >= 30.0
    assert sum(row.spent.pf_days for row in work) > 0.0
    assert night.kinds() == ["pause heat", "finish"]
    return RunResult.model_validate(run.result)


@pytest.mark.torture  # two trainings; the suite has such nights with a tiny plugin: tests/unit/training/test_nights.py
def test_xray(home: Home, tmp_path: Path) -> None:
    folder = write_films(tmp_path / "films", 20)
    with simulated(home, manifest=manifest("xray")) as night:
        fix_splits(night.school.database)
        result = disturbed(night, "xray", folder, condition="pneumonia", tier="fast", epochs=100, patience=100)
        assert [entry["epoch"] for entry in result.history] == list(range(1, 101))


@pytest.mark.torture  # as many processes
def test_ct(home: Home, tmp_path: Path) -> None:
    write_chests(home.labels / "ct")
    served_models.model(tmp_path / "tiny")
    with simulated(home, manifest=manifest("ct")) as night:
        night.school.registry.import_directory(tmp_path / "tiny", "ada")
        night.school.registry.promote("ct", "tiny", "1", "ada")
        result = disturbed(night, "ct", home.labels / "ct", phase="localisation", epochs=6)
        assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.torture  # three processes that import transformers
def test_ultrasound(home: Home) -> None:
    folder = home.labels / "ultrasound" / "Femur"
    write_phantoms(folder, "femur", 12, seed=7)
    with simulated(home, manifest=manifest("ultrasound")) as night:
        result = disturbed(night, "ultrasound", folder, epochs=3, batch=8)
        assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
