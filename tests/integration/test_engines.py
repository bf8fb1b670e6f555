"""Warm engines: kept, switched, evicted, rested; with real children."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clinic_ai.contract import AnalysisTask, LoadedModel, ModelManifest, PluginManifest
from clinic_ai.domain import Analysis, ModelRef, StudyFacts
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.errors import ChildDied
from clinic_ai.processes import Crew

SETTINGS = EngineSettings(memory_mb=300, threads=1, idle_s=3600, restart_cap=2, restart_window_s=60, rest_s=3600)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
    crew = Crew()
    yield crew
    crew.close()


def plugin(name: str, memory_mb: int = 200) -> PluginManifest:
    return PluginManifest(
        name="rude" if name == "rude" else name,
        version="1",
        summary="s",
        needs_model=False,
        memory_mb=memory_mb,
        timeout_s=20.0,
        engine="rude_engine:RudeEngine",
    )


def analyse(
    engines: Engines, manifest: PluginManifest, out: Path, *, harm: str = "", models: tuple[LoadedModel, ...] = ()
) -> Analysis:
    directory = out / "jobs" / "J"
    directory.mkdir(parents=True, exist_ok=True)
    for marker in out.glob("done-*"):
        marker.unlink()
    task = AnalysisTask(
        job_id="J",
        facts=StudyFacts(study_description=harm),
        images=(),
        output_directory=str(directory),
        models=tuple(model.ref for model in models),
    )
    return engines.analyse(manifest, models, task)


def model(directory: Path, version: str, **parameters: int) -> LoadedModel:
    manifest = ModelManifest(
        plugin="rude",
        name="m",
        version=version,
        format="onnx",
        files=(),
        licence="x",
        source="x",
        intended_use="x",
        parameters=dict(parameters),
    )
    ref = ModelRef(plugin="rude", name="m", version=version, digest=version * 64)
    return LoadedModel(ref=ref, directory=str(directory), manifest=manifest)


def test_an_engine_stays_warm_and_switches_models_without_a_new_process(crew: Crew, tmp_path: Path) -> None:
    engines = Engines(crew, lambda: SETTINGS)
    first = analyse(engines, plugin("rude"), tmp_path, models=(model(tmp_path, "1"),))
    [before] = engines.views()
    second = analyse(engines, plugin("rude"), tmp_path, models=(model(tmp_path, "2"),))
    [after] = engines.views()
    assert [m.version for m in (*first.models, *second.models)] == ["1", "2"]
    assert before.pid == after.pid
    assert "2" * 12 in after.models[0]
    assert before.resident_bytes > 0


def test_the_longest_unused_engine_makes_room(crew: Crew, tmp_path: Path) -> None:
    engines = Engines(crew, lambda: SETTINGS)
    for name in ("a", "b"):
        analyse(engines, plugin(name, memory_mb=150), tmp_path)
    assert {view.plugin for view in engines.views()} == {"a", "b"}
    analyse(engines, plugin("c", memory_mb=150), tmp_path)
    assert {view.plugin for view in engines.views()} == {"b", "c"}
    assert len(crew.living()) == 2


def test_an_engine_larger_than_the_budget_is_never_started(crew: Crew) -> None:
    engines = Engines(crew, lambda: SETTINGS)
    wait = engines.obstacle(plugin("giant", memory_mb=301))
    assert wait is not None
    assert wait.code == "no_memory"
    assert wait.remedy
    assert engines.obstacle(plugin("fits", memory_mb=300)) is None


def test_a_model_that_needs_more_than_its_plugin_declares_is_given_it(crew: Crew, tmp_path: Path) -> None:
    engines = Engines(crew, lambda: SETTINGS)
    small, large = model(tmp_path, "1"), model(tmp_path, "2", memory_mb=250)
    analyse(engines, plugin("rude", memory_mb=100), tmp_path, models=(small,))
    analyse(engines, plugin("other", memory_mb=100), tmp_path)
    [before, _] = engines.views()
    assert _data_limit(before.pid) == (2 * 100 + 512) << 20
    analyse(engines, plugin("rude", memory_mb=100), tmp_path, models=(large,))
    [after] = engines.views()
    assert (after.plugin, _data_limit(after.pid)) == ("rude", (2 * 250 + 512) << 20), "the other one had to make room"
    assert engines.obstacle(plugin("rude"), (model(tmp_path, "3", memory_mb=301),)) is not None
    assert engines.obstacle(plugin("rude"), (large,), beside_mb=51) is not None
    assert engines.obstacle(plugin("rude"), (large,), beside_mb=50) is None


def _data_limit(pid: int) -> int:
    return psutil.Process(pid).rlimit(psutil.RLIMIT_DATA)[0]


def test_an_engine_that_dies_too_often_rests(crew: Crew, tmp_path: Path) -> None:
    engines = Engines(crew, lambda: SETTINGS)
    for _ in range(SETTINGS.restart_cap):
        assert engines.obstacle(plugin("rude")) is None
        with pytest.raises(ChildDied):
            analyse(engines, plugin("rude"), tmp_path, harm="segfault")
    wait = engines.obstacle(plugin("rude"))
    assert wait is not None
    assert wait.code == "engine_crashing"
    assert engines.obstacle(plugin("other")) is None


def test_idle_engines_end(crew: Crew, tmp_path: Path) -> None:
    engines = Engines(crew, lambda: EngineSettings(**{**vars(SETTINGS), "idle_s": 0.0}))
    analyse(engines, plugin("rude"), tmp_path)
    engines.evict_idle()
    assert engines.views() == []
    assert crew.living() == []
