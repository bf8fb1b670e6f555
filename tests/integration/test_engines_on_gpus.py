"""Where engines compute, and what becomes of one whose GPU is of no use; with real children and a made-up GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil
import pytest

from clinic_ai.contract import AnalysisTask, PluginManifest
from clinic_ai.domain import StudyFacts
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.errors import ChildDied, ChildRefused, HardwareError
from clinic_ai.hardware import CUDA_HOST_MB, Devices, GpuReading, Reading
from clinic_ai.processes import Crew

SETTINGS = EngineSettings(memory_mb=300, threads=1, idle_s=3600, restart_cap=5, restart_window_s=60, rest_s=3600)
GPU = GpuReading(index=1, name="A", memory_mb=8000, memory_used_mb=1000)
MACHINE = Reading(at=0, cpu_percent=0, cpus=2, memory_mb=1, memory_available_mb=1, disk_free_mb=1, gpus=(GPU,))


class Site:
    """Engines beside a made-up GPU; ``seen`` is what the sensors say, None if they cannot be read."""

    def __init__(self, crew: Crew, out: Path) -> None:
        self.seen: Reading | None = MACHINE
        self.now = 0.0
        self.device: Literal["auto", "cpu", "cuda"] = "auto"
        self.devices = Devices(self, lambda: self.now)
        self.engines = Engines(crew, lambda: replace(SETTINGS, device=self.device), self.devices)
        self._out = out

    def read(self) -> Reading:
        if self.seen is None:
            raise HardwareError("The sensors of this machine do not answer.")
        return self.seen

    def analyse(self, engine: str, devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")) -> str:
        manifest = PluginManifest(
            name=engine.lower(),
            version="1",
            summary="s",
            needs_model=False,
            memory_mb=100,
            timeout_s=20.0,
            devices=devices,
            engine=f"gpu_engine:{engine}",
        )
        facts = StudyFacts()
        task = AnalysisTask(job_id="J", facts=facts, images=(), output_directory=str(self._out), models=())
        (said,) = self.engines.analyse(manifest, (), task).remarks
        return said


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
    crew = Crew()
    yield Site(crew, tmp_path)
    crew.close()


def test_an_engine_computes_on_a_gpu_that_has_room(site: Site) -> None:
    assert site.analyse("Sound") == "Computed on cuda 1."
    (view,) = site.engines.views()
    process = psutil.Process(view.pid)
    assert process.rlimit(psutil.RLIMIT_DATA)[0] == (2 * 100 + 512 + CUDA_HOST_MB) << 20
    assert process.environ()["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize("why", ["cpu is wanted", "no room", "no gpu", "no sensors", "the plugin cannot"])
def test_else_it_computes_on_the_processor(site: Site, why: str) -> None:
    if why == "cpu is wanted":
        site.device = "cpu"
    elif why == "no room":
        site.seen = MACHINE.model_copy(update={"gpus": (GPU.model_copy(update={"memory_used_mb": 7901}),)})
    elif why == "no gpu":
        site.seen = MACHINE.model_copy(update={"gpus": ()})
    elif why == "no sensors":
        site.seen = None
    assert site.analyse("Sound", ("cpu",) if why == "the plugin cannot" else ("cpu", "cuda")) == "Computed on cpu 0."


def test_an_engine_whose_libraries_cannot_use_the_gpu_computes_on_the_processor_without_a_lost_attempt(
    site: Site,
) -> None:
    assert site.analyse("Unusable") == "Computed on cpu 0."
    assert len(site.engines.views()) == 1
    site.device = "cuda"
    site.engines.close()
    with pytest.raises(ChildRefused, match="cannot use the GPU"):
        site.analyse("Unusable")


def test_where_a_gpu_is_asked_for_and_there_is_none_it_is_told(site: Site) -> None:
    site.device, site.seen = "cuda", MACHINE.model_copy(update={"gpus": ()})
    with pytest.raises(ChildRefused, match="no GPU") as caught:
        site.analyse("Sound")
    assert caught.value.retryable
    assert "clinic.toml" in caught.value.remedy


@pytest.mark.parametrize(("engine", "words"), [("Failing", "error of its GPU"), ("Full", "ran out of")])
def test_a_process_whose_gpu_failed_ends_and_the_next_computes_on_the_processor(
    site: Site, engine: str, words: str
) -> None:
    with pytest.raises(ChildDied, match=words):
        site.analyse(engine)
    assert site.engines.views() == []
    assert site.analyse(engine) == "Computed on cpu 0."
    site.engines.close()
    site.now += 3601
    with pytest.raises(ChildDied):  # an hour later it is tried again
        site.analyse(engine)
