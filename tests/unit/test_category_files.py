"""Categories that a clinic adds by files; what the reader of such files has in common is in test_conditions.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_ai.categories import Names
from clinic_ai.category_files import add_categories
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import CategoryInfo
from clinic_ai.plugins import PluginCatalogue
from clinic_ai_ultrasound.plugin import describe_plugin

ADDED = """
key = "placenta"
label = "Placenta"
aliases = ["Plazenta"]
codes = [{ scheme = "SCT", value = "78067005", meaning = "Placenta" }]
questions = ["Where does the placenta lie?"]

[generation]
num_beams = 5
"""


@pytest.fixture
def catalogue() -> PluginCatalogue:
    judging = PluginManifest(name="xray", version="1", summary="Judges.", engine="a.b:C")
    return PluginCatalogue({"ultrasound": describe_plugin(), "xray": judging}, [])


def written(folder: Path, content: str, plugin: str = "ultrasound") -> Path:
    path = folder / plugin / "added.toml"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_the_plugin_itself_gives_each_name_to_one_category(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    add_categories(catalogue, tmp_path)
    assert catalogue.problems == []


def test_a_file_adds_a_category(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    before = catalogue.manifests["ultrasound"].categories
    written(tmp_path, ADDED)
    add_categories(catalogue, tmp_path)
    assert catalogue.problems == []
    *others, placenta = catalogue.manifests["ultrasound"].categories
    assert tuple(others) == before
    assert placenta.generation is not None
    assert placenta.generation.num_beams == 5
    assert Names(catalogue.manifests["ultrasound"].categories).called("PLAZENTA") == ("placenta",)


def test_a_file_describes_a_known_category_anew_in_its_place(catalogue: PluginCatalogue, tmp_path: Path) -> None:
    keys = [category.key for category in catalogue.manifests["ultrasound"].categories]
    written(tmp_path, 'key = "femur"\nlabel = "Oberschenkel"\nquestions = ["How long is it?"]')
    add_categories(catalogue, tmp_path)
    found = catalogue.manifests["ultrasound"].categories
    assert [category.key for category in found] == keys
    (femur,) = (category for category in found if category.key == "femur")
    assert (femur.label, femur.aliases) == ("Oberschenkel", ())


@pytest.mark.parametrize(
    ("content", "plugin", "said"),
    [
        ('key = "wrist"\nlabel = "Wrist"\naliases = ["Ab-odomen"]', "ultrasound", "“Ab-odomen” is wrist and abdomen"),
        ('key = "thigh"\nlabel = "Upper leg"', "ultrasound", "“thigh” is thigh and femur"),
        ('key = "base"\nlabel = "Base"', "ultrasound", "base is no name for a category"),
        ('key = "wrist"', "ultrasound", "label"),
        ('key = "wrist"\nlabel = "Wrist"', "xray", "no questions by category"),
        ('key = "wrist"\nlabel = "Wrist"', "ultrasond", "did you mean ultrasound?"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_rest_works_on(
    catalogue: PluginCatalogue, tmp_path: Path, content: str, plugin: str, said: str
) -> None:
    path = written(tmp_path, content, plugin)
    before = dict(catalogue.manifests)
    add_categories(catalogue, tmp_path)
    (problem,) = catalogue.problems
    assert str(path) in problem.sentence
    assert said in problem.sentence
    assert catalogue.manifests == before


def test_a_name_that_a_plugin_gives_twice_is_named(tmp_path: Path) -> None:
    twice = (CategoryInfo(key="a", label="Arm"), CategoryInfo(key="b", label="Leg", aliases=("ARM",)))
    manifest = PluginManifest(name="asks", version="1", summary="Asks.", engine="a.b:C", categories=twice)
    catalogue = PluginCatalogue({"asks": manifest}, [])
    add_categories(catalogue, tmp_path)
    assert "“Arm” is a and b" in catalogue.problems[0].sentence
