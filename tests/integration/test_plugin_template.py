"""``docs/writing-a-plugin.md`` by itself makes a plugin that is built, found, and run in the real engine child."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic_ai import contract
from clinic_ai.contract import AnalysisTask, Device, EngineLoad, PluginManifest, Ready, TaskImage
from clinic_ai.domain import Analysis, FileKind, InstanceHeader, StudyFacts
from clinic_ai.errors import ChildRefused
from clinic_ai.processes import Child, ChildSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "writing-a-plugin.md").read_text()
FILES = dict(re.findall(r"^File `([^`]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
FIND = "from clinic_ai.plugins import find_plugins; print(find_plugins().manifests['sizes'].model_dump_json())"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the plugin of the page and install it into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name, text in FILES.items():
        file = source / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "hatchling" in built.stderr and "No module named" in built.stderr:
        pytest.skip("hatchling is not installed, so nothing can be built without the network")
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture
def child(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    child = Child(ChildSpec(kind="engine", name="sizes engine"))
    yield child
    child.kill()


def image(digit: str, frames: int) -> TaskImage:
    header = InstanceHeader(kind=FileKind.PNG, rows=30, columns=40, frames=frames)
    return TaskImage(path="/nonexistent", sha256=digit * 64, header=header)


def task(directory: Path, *images: TaskImage) -> AnalysisTask:
    return AnalysisTask(job_id="J-1", facts=StudyFacts(), images=images, output_directory=str(directory), models=())


def test_the_page_has_all_files() -> None:
    assert set(FILES) == {
        "pyproject.toml",
        "clinic_ai_sizes/__init__.py",
        "clinic_ai_sizes/plugin.py",
        "clinic_ai_sizes/engine.py",
    }


def test_the_installed_plugin_is_found(installed: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", FIND],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    manifest = PluginManifest.model_validate_json(found.stdout)
    assert manifest.engine == "clinic_ai_sizes.engine:SizesEngine"


def test_its_engine_runs_in_the_engine_child(child: Child, tmp_path: Path) -> None:
    load = EngineLoad(engine="clinic_ai_sizes.engine:SizesEngine", models=(), device=Device())
    child.call("load", load, Ready, timeout_s=60)
    analysis = child.call("analyse", task(tmp_path, image("a", 1), image("b", 0)), Analysis, timeout_s=30)
    assert analysis.remarks == ("An image has 30 rows and 40 columns.",)
    assert [refusal.instance_sha256 for refusal in analysis.refusals] == ["b" * 64]
    assert [file.name for file in analysis.files] == ["sizes.json"]
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"a" * 64: [30, 40]}

    with pytest.raises(ChildRefused, match="Nothing in this study holds pixels") as caught:
        child.call("analyse", task(tmp_path, image("b", 0)), Analysis, timeout_s=30)
    assert (caught.value.code, caught.value.retryable) == ("no_pixels", False)


# ------------------------------------------------------------ the page keeps up with the contract


@pytest.mark.parametrize("key", list(PluginManifest.model_fields))
def test_every_key_of_the_manifest_is_explained(key: str) -> None:
    assert f"| `{key}` |" in PAGE


@pytest.mark.parametrize(
    "method",
    [name for protocol in (contract.Engine, contract.Trainer) for name in vars(protocol) if not name.startswith("_")],
)
def test_every_method_is_explained(method: str) -> None:
    assert f"| `{method}(" in PAGE


@pytest.mark.parametrize("field", ["findings", "remarks", "refusals", "answers", "files", "models"])
def test_every_part_of_an_analysis_is_explained(field: str) -> None:
    assert field in Analysis.model_fields
    assert f"**{field}**" in PAGE


def test_the_page_names_real_modules() -> None:
    root = Path(__file__).resolve().parents[2]
    for module in re.findall(r"`(clinic_ai\.ml\.\w+)`", PAGE):
        assert (root / (module.replace(".", "/") + ".py")).is_file(), module
    for path in re.findall(r"`((?:plugins|clinic_ai)/[\w./]+)`", PAGE):
        assert (root / path).exists(), path
