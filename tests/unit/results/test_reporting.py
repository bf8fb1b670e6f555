"""What a report is made of, and the renderer's child between two reports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clinic_ai.domain import (
    Analysis,
    Audience,
    Finding,
    GuardAction,
    GuardVerdict,
    PatientIdentity,
    Presence,
    ProducedFile,
    StoredFile,
    StudyFacts,
)
from clinic_ai.errors import ChildRefused
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.results.rendering import Renderer, heatmap_of
from clinic_ai.tasks import RenderTask

IMAGE = "a" * 64
CHILDREN = Path(__file__).parents[2] / "integration" / "children"


def analysis(plugin: str, *, heatmap: bool = True) -> Analysis:
    name = "heatmap.png" if heatmap else None
    finding = Finding(
        condition="pneumonia",
        label="Pneumonia",
        probability=0.5,
        threshold=0.5,
        presence=Presence.UNCERTAIN,
        instance_sha256=IMAGE,
        heatmap=name,
    )
    files = (ProducedFile(name="heatmap.png", role="heatmap", media_type="image/png", caption=plugin),)
    return Analysis(plugin=plugin, plugin_version="1", models=(), findings=(finding,), files=files)


def stored(digit: str) -> StoredFile:
    return StoredFile(name="heatmap.png", sha256=digit * 64, size_bytes=1, media_type="image/png")


def test_each_plugin_keeps_its_own_heat_map_whatever_it_is_called() -> None:
    made = {("one", "heatmap.png"): stored("1"), ("two", "heatmap.png"): stored("2")}
    for order in (("one", "two"), ("two", "one")):
        found = heatmap_of(IMAGE, [analysis(plugin) for plugin in order], made)
        assert found is not None
        shown, file = found
        assert shown.caption == order[0]
        assert file is made[order[0], "heatmap.png"]


def test_no_map_stands_beside_a_finding_that_has_none() -> None:
    assert heatmap_of(IMAGE, [analysis("one", heatmap=False)], {("one", "heatmap.png"): stored("1")}) is None
    assert heatmap_of("b" * 64, [analysis("one")], {("one", "heatmap.png"): stored("1")}) is None
    assert heatmap_of(IMAGE, [analysis("one")], {("two", "heatmap.png"): stored("2")}) is None


class Meddler(Child):
    """A real child, whose renderer is tidied away by another thread in the very moment a task comes."""

    renderer: Renderer

    @property
    def alive(self) -> bool:
        there = super().alive
        tidy = threading.Thread(target=self.renderer.end_if_idle, args=(-1.0,))
        tidy.start()
        tidy.join(5)
        return there


class MeddlersCrew(Crew):
    def start(self, spec: ChildSpec) -> Child:
        paths = (("PYTHONPATH", str(CHILDREN)),)
        return Meddler(replace(spec, module="misbehaving", environment=paths))


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Meddler.renderer = Renderer(MeddlersCrew())
    yield renderer
    renderer.close()


def test_a_renderer_is_not_tidied_away_under_a_task(renderer: Renderer, tmp_path: Path) -> None:
    verdict = GuardVerdict(
        audience=Audience.CLINICIAN,
        action=GuardAction.ALLOW,
        decisions=(),
        released=(),
        policy_hash="b" * 64,
        policy_name="p",
    )
    task = RenderTask(
        study_id="S",
        version=1,
        study_instance_uid="1.2",
        closed_reason="a test",
        source="inbox",
        facts=StudyFacts(),
        identity=PatientIdentity(),
        received_at=0.0,
        created_at=0.0,
        images=(),
        findings=(),
        verdict=verdict,
        models=(),
        plugin_labels=(),
        institution="",
        language="en",
        output_directory=str(tmp_path),
        software="test",
    )
    for _ in range(2):  # the child has no such method and lives on
        with pytest.raises(ChildRefused):
            renderer.render(task)
