"""Conditions that a clinic adds by files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.conditions import add_conditions
from clinic_ai.contract import ConditionInfo, PluginManifest
from clinic_ai.plugins import PluginCatalogue

KNOWN = ("pneumonia", "osteoporosis", "hiatal_hernia")
ADDED = """
code = "hiatal_hernia"
label = "Hiatal hernia"
body_parts = ["CHEST*", "ABDOM*"]
views = ["PA"]
critical = 3
tier = "intensive"
"""


@pytest.fixture
def catalogue() -> PluginCatalogue:
    known = (ConditionInfo(code="pneumonia", label="Pneumonia", views=("PA", "AP")),)
    manifest = PluginManifest(name="xray", version="1", summary="Judges.", conditions=known, engine="a.b:C")
    return PluginCatalogue({"xray": manifest}, [])


def written(folder: Path, content: str | bytes, plugin: str = "xray") -> Path:
    path = folder / plugin / "added.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_file_adds_a_condition(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    written(tmp_path, ADDED)
    add_conditions(catalogue, tmp_path, KNOWN)
    assert catalogue.problems == []
    pneumonia, hernia = catalogue.manifests["xray"].conditions
    assert (pneumonia.code, hernia.code, hernia.critical, hernia.tier) == ("pneumonia", "hiatal_hernia", 3, "intensive")


def test_a_file_describes_a_known_condition_anew(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    written(tmp_path, 'code = "pneumonia"\nlabel = "Pneumonia"\nviews = ["PA"]')
    add_conditions(catalogue, tmp_path, KNOWN)
    (pneumonia,) = catalogue.manifests["xray"].conditions
    assert pneumonia.views == ("PA",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("code = ", "no TOML"),
        ('code = "pneumonia"', "label"),
        ('code = "osteoporose"\nlabel = "O"', "did you mean osteoporosis?"),
        ('code = "pneumonia"\nlabel = "P"\nviewz = ["PA"]', "viewz"),
        ('code = "pneumonia"\nlabel = "P"\ncritical = 4', "critical"),
        (b"\xff\xfe", "UTF-8"),
        ("#" * 70_000, "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_plugin_works_on(
    catalogue: PluginCatalogue, tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = written(tmp_path, content)
    before = catalogue.manifests["xray"]
    add_conditions(catalogue, tmp_path, KNOWN)
    (problem,) = catalogue.problems
    assert str(path) in problem.sentence
    assert said in problem.sentence
    assert catalogue.manifests["xray"] == before


def test_a_folder_of_no_plugin_is_named(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    written(tmp_path, ADDED, plugin="x-ray")
    add_conditions(catalogue, tmp_path, KNOWN)
    assert "did you mean xray?" in catalogue.problems[0].sentence


@pytest.mark.parametrize(
    ("part", "view", "applies"),
    [("CHEST", "PA", True), ("chest left", "pa", True), ("", "", True), ("HAND", "PA", False), ("CHEST", "LL", False)],
)
def test_a_condition_is_judged_on_its_body_parts_and_views(part: str, view: str, applies: bool) -> None:
    condition = ConditionInfo(code="pneumonia", label="P", body_parts=("CHEST*",), views=("PA", "AP"))
    assert condition.applies_to(part, view) is applies


@given(st.text(max_size=20), st.text(max_size=20))
def test_without_body_parts_and_views_it_is_judged_on_everything(part: str, view: str) -> None:
    assert ConditionInfo(code="pneumonia", label="P").applies_to(part, view)
