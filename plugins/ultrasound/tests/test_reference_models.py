"""The models that ship: whole, small, over the right base, able to see, and right more often than chance."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from clinic_ai.contract import Device
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.unlike import LIMIT
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.confidence import QUESTIONS, holds_for, listed
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.reference import card
from clinic_ai_ultrasound.reference.measuring import ask_all, cases, table
from clinic_ai_ultrasound.reference.phantoms import draw_phantoms
from clinic_ai_ultrasound.reference.questions import SUBJECTS, questions_of
from clinic_ai_ultrasound.reference.samples import DRAWN, HEAD, Shown
from clinic_ai_ultrasound.reference.strangeness import STRANGE, refused

FOLDER = Path(str(files("clinic_ai_ultrasound").joinpath("reference")))
SHIPPED = ("base", HEAD, *DRAWN)


@pytest.fixture(scope="module")
def reference():
    """The reference base in memory."""
    return load_base(open_model(FOLDER / "base"), Device())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_file_is_what_its_manifest_says(name):
    model = open_model(FOLDER / name)
    assert {file.name for file in model.manifest.files} == {
        path.name for path in (FOLDER / name).iterdir() if path.name != "model.toml"
    }
    for file in model.manifest.files:
        content = (FOLDER / name / file.name).read_bytes()
        assert (file.sha256, file.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert model.manifest.reference
    assert not model.manifest.clinical_use
    assert "not for clinical use" in model.manifest.intended_use
    real = name in ("base", HEAD)
    assert ("van den Heuvel" in model.manifest.source) == real
    assert model.manifest.licence.startswith("CC BY 4.0") == real


def test_the_plugin_installs_the_base_before_its_adapters():
    places = describe_plugin().reference_models
    assert places == tuple(f"clinic_ai_ultrasound:reference/{name}" for name in SHIPPED)
    base = open_model(FOLDER / "base")
    for name in SHIPPED[1:]:
        manifest = open_model(FOLDER / name).manifest
        assert (manifest.slot, manifest.base_digest) == (name, base.ref.digest)


def test_how_sure_an_adapter_is_counts_for_the_questions_it_learned_and_for_no_other():
    standard = {category.key: category.questions for category in describe_plugin().categories}
    for name in SHIPPED[1:]:
        manifest = open_model(FOLDER / name).manifest
        assert manifest.parameters[QUESTIONS] == listed(questions_of(name))
        assert all(holds_for(manifest, question) for question in standard[name])
        assert not holds_for(manifest, "Does it have a syndrome?")


def test_all_of_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 25_000_000


def test_no_two_query_tokens_are_alike(reference):
    tokens = reference.model.query_tokens[0]
    assert tokens.norm(dim=1).min() > 0
    for row in range(1, len(tokens)):
        assert not tokens[row].equal(tokens[0])


@pytest.mark.parametrize("category", ["femur"])
def test_an_adapter_is_right_about_phantoms_more_often_than_chance(reference, category):
    adapters = Adapters(reference)
    model = open_model(FOLDER / category)
    adapters.add(model)
    adapters.use(model.ref)
    drawn = draw_phantoms(category, 24, seed=77)
    images = [Shown(f"{number}", one.pixels, one.truths) for number, one in enumerate(drawn)]
    topics = SUBJECTS[category].topics
    asked = cases(images, topics, seed=1)
    found = table(images, asked, ask_all(reference, category, images))["all"]
    right = round(found["accuracy"] * found["questions"])
    assert binomtest(right, found["questions"], found["commonest"], alternative="greater").pvalue < 0.001
    assert found["shuffled"] < found["accuracy"]


def test_the_card_has_the_figures_of_the_build():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for table_of in (card.heads_table, card.unaltered_table, card.drawn_table):
        assert table_of(FOLDER) in text


def test_strange_images_are_refused_and_phantoms_are_not(reference):
    model = open_model(FOLDER / "base")
    drawn = [one.pixels for one in draw_phantoms("thorax", 12, seed=78)]
    chance = np.random.default_rng(0)
    images = {"thorax": drawn} | {kind: [make(one, chance) for one in drawn] for kind, make in STRANGE.items()}
    shares = refused(reference, FOLDER / "base", float(model.manifest.parameters[LIMIT]), images)
    assert shares["thorax"] == 0
    assert shares["noise"] == shares["a printed page"] == 1
