"""One real renderer child for all tests, and images to give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendering import header_of, image_at, phantom, task, wrap_as_dx

from clinic_ai.confinement import Confinement
from clinic_ai.domain import (
    FileKind,
    InstanceHeader,
)
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.tasks import RenderImage, RenderResult


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    confinement = Confinement(data=3 << 30, file_size=1 << 30)
    renderer = Child(ChildSpec(kind="renderer", name="renderer", confinement=confinement))
    yield renderer
    renderer.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    return made


@pytest.fixture
def render(child: Child, directory: Path) -> Callable[..., RenderResult]:
    def call(*images: RenderImage, **changes: object) -> RenderResult:
        asked = task(directory, images, **changes)
        return child.call("render", asked, RenderResult, timeout_s=60)

    return call


@pytest.fixture
def png(tmp_path: Path) -> RenderImage:
    path = tmp_path / "stored-png"
    Image.fromarray(phantom()).save(path, format="PNG")
    return image_at(path, InstanceHeader(kind=FileKind.PNG, rows=96, columns=80))


@pytest.fixture
def mapped(png: RenderImage, tmp_path: Path) -> RenderImage:
    heat = tmp_path / "stored-heat"
    Image.fromarray(np.linspace(0, 255, 256).reshape(16, 16).astype(np.uint8)).save(heat, format="PNG")
    return png.model_copy(
        update={"heatmap_path": str(heat), "heatmap_caption": "UNGUARDED CAPTION", "extent": (0.1, 0.1, 0.9, 0.9)}
    )


@pytest.fixture
def dx(tmp_path: Path) -> RenderImage:
    return image_at(wrap_as_dx(tmp_path / "stored-dx"), header_of(tmp_path / "stored-dx"))
