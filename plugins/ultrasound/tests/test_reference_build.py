"""The build from end to end with next to no data: every step runs, and what it writes can be loaded."""

from __future__ import annotations

import json

import pytest

from clinic_ai.contract import Device
from clinic_ai.ml.model_files import open_model
from clinic_ai.ml.unlike import Unlike
from clinic_ai_ultrasound.adapters import Adapters
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.recipe import AdapterRecipe
from clinic_ai_ultrasound.reference import adapting, build
from clinic_ai_ultrasound.reference.cycle import Recipe
from clinic_ai_ultrasound.reference.heads import Head, part_of
from clinic_ai_ultrasound.reference.phantoms import draw_phantoms

SHORT = Recipe(epochs=1, batch=4, rate=1e-3, warm_up=0.5, weight_decay=0.0, seed=1)


def _heads(each: int) -> list[Head]:
    """Return ``each`` drawn heads of every part and every trimester."""
    heads, left = [], {(part, mm): each for part in ("train", "validation", "test") for mm in (70.0, 150.0, 290.0)}
    for number, phantom in enumerate(draw_phantoms("fetal_head", 150, seed=9)):
        subject = f"s{number}"
        mm = next((mm for part, mm in left if part == part_of(subject) and left[part, mm]), None)
        if mm is not None:
            left[part_of(subject), mm] -= 1
            heads.append(Head(subject, subject, phantom.pixels, phantom.ellipse, mm, 0.1 + mm / 1000))
    return heads


@pytest.mark.torture
def test_the_build_makes_a_base_and_an_adapter_and_goes_on_where_it_was(tmp_path, monkeypatch):
    for name in ("VIEWS", "DRAWINGS", "SPOKEN"):
        monkeypatch.setattr(build, name, 4)
    monkeypatch.setattr(adapting, "HEADS", adapting.Counts(train=3, validation=2, test=2))
    heads = _heads(3)
    work, target = tmp_path / "work", tmp_path / "made"
    model = build.build_base(heads, work, target / "base", SHORT, SHORT)
    assert build.build_base([], work, target / "base", SHORT, SHORT).ref == model.ref  # nothing was made again
    base = load_base(open_model(target / "base"), Device())
    assert Unlike.of(model, 192) is not None
    summary = adapting.build_adapter(
        model, "fetal_head", heads, AdapterRecipe(epochs=1, batch=8), work / "adapters", target / "fetal_head"
    )
    assert json.loads(json.dumps(summary))["test"]["trimester"]["questions"] > 0
    Adapters(base).add(open_model(target / "fetal_head"))
    assert json.loads((target / "base.training_summary.json").read_text())["sight"]["history"][0]["epoch"] == 1
