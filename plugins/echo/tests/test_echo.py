"""The echo plugin says what was received, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clinic_ai.contract import AnalysisTask, Device, EngineLoad, LoadedModel, ModelManifest, Ready, TaskImage
from clinic_ai.domain import Analysis, FileKind, InstanceHeader, ModelRef, StudyFacts
from clinic_ai.errors import ModelError
from clinic_ai.plugins import find_plugins
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.routing import facts_of, route
from clinic_ai_echo.engine import EchoEngine, describe
from clinic_ai_echo.plugin import describe_plugin


def header(modality: str, rows: int = 0, columns: int = 0, frames: int = 0) -> InstanceHeader:
    return InstanceHeader(kind=FileKind.DICOM, modality=modality, rows=rows, columns=columns, frames=frames)


def test_it_counts_images_by_modality_and_size() -> None:
    headers = [header("CT", 512, 512, 1) for _ in range(11)]
    headers += [header("US", 480, 640, 30), header("CT", 512, 512, 1), header("", 10, 20, 1), header("SR")]
    assert describe(headers) == [
        "Received 12 images of modality CT with 512 × 512 pixels (rows × columns).",
        "Received 30 images of modality US with 480 × 640 pixels (rows × columns).",
        "Received 1 image of unknown modality with 10 × 20 pixels (rows × columns).",
        "Received 1 object of modality SR without pixels.",
    ]


def test_an_analysis_speaks_for_this_plugin_and_judges_nothing() -> None:
    engine = EchoEngine()
    engine.load(None, Device())
    engine.use(None)
    image = TaskImage(path="/nonexistent", sha256="0" * 64, header=header("CT", 4, 4, 1))
    task = AnalysisTask(job_id="J", facts=StudyFacts(), images=(image,), output_directory="/nonexistent", models=())
    analysis = engine.analyse(task)
    assert (analysis.plugin, analysis.plugin_version) == ("echo", describe_plugin().version)
    assert len(analysis.remarks) == 1
    assert not analysis.findings


def test_a_model_is_refused() -> None:
    ref = ModelRef(plugin="echo", name="odd", version="1", digest="0" * 64)
    manifest = ModelManifest(
        plugin="echo",
        name="odd",
        version="1",
        format="onnx",
        files=(),
        licence="Apache-2.0",
        source="test",
        intended_use="none",
    )
    with pytest.raises(ModelError, match="no use for the model odd"):
        EchoEngine().load(LoadedModel(ref=ref, directory="/nonexistent", manifest=manifest), Device())


@pytest.mark.parametrize(
    ("modality", "taken"), [("US", True), ("CT", True), ("MR", True), ("CR", False), ("DX", False)]
)
def test_it_does_not_claim_radiographs(modality: str, taken: bool) -> None:
    routing = route(facts_of([header(modality, 4, 4, 1)], "inbox"), [], {"echo": describe_plugin()})
    assert bool(routing.plugins) is taken


def test_it_is_found_when_it_is_installed() -> None:
    assert find_plugins().manifests["echo"] == describe_plugin()


def test_it_runs_in_the_engine_child() -> None:
    image = TaskImage(path="/nonexistent", sha256="0" * 64, header=header("CT", 4, 4, 1))
    task = AnalysisTask(job_id="J", facts=StudyFacts(), images=(image,), output_directory="/nonexistent", models=())
    child = Child(ChildSpec(kind="engine", name="echo engine"))
    try:
        load = EngineLoad(engine=describe_plugin().engine, models=(), device=Device())
        child.call("load", load, Ready, timeout_s=60)
        analysis = child.call("analyse", task, Analysis, timeout_s=30)
    finally:
        child.kill()
    assert analysis.remarks == ("Received 1 image of modality CT with 4 × 4 pixels (rows × columns).",)


def test_its_light_half_is_light() -> None:
    code = "import sys, clinic_ai_echo.plugin; print({'numpy', 'pydicom', 'PIL'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
