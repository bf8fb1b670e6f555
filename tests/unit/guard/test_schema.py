"""The published schemas are what the code makes, take the shipped packs, and refuse what the guard would refuse."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.schema import PUBLISHED

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_published_schema_is_the_one_the_code_makes(name: str) -> None:
    how = "run: python -m clinic_ai.guard.schema docs"
    assert (DOCS / name).read_text(encoding="utf-8") == PUBLISHED[name](), how


def valid(schema: str, table: dict[str, Any]) -> bool:
    body = json.loads((DOCS / schema).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(body)
    # TOML has arrays where JSON Schema of a tuple has them too; dates do not occur.
    return bool(jsonschema.Draft202012Validator(body).is_valid(table))


def test_the_shipped_questions_follow_their_schema() -> None:
    table = tomllib.loads((shipped_pack("default") / "questions.toml").read_text())
    assert valid("questions.schema.json", table)
    table["intent"][0]["when"] = {"detector": "flatt"}
    assert not valid("questions.schema.json", table)


@pytest.mark.parametrize("pack", ["default", "strict"])
def test_shipped_packs_follow_the_schemas(pack: str) -> None:
    for part in ("policy", "cases"):
        assert valid(f"{part}.schema.json", tomllib.loads((shipped_pack(pack) / f"{part}.toml").read_text())), part


@pytest.mark.parametrize(
    "when",
    [
        {"detector": "marrkup"},
        {"detector": "text_length"},
        {"detector": "text_length", "maximum": 0},
        {"detector": "lexicon", "lexicon": "alarming", "fuzzy": True},
        {"all": []},
        {"all": [{"detector": "markup"}], "any": [{"detector": "markup"}]},
    ],
)
def test_a_condition_that_the_guard_refuses_breaks_the_schema(when: dict[str, Any]) -> None:
    rule = {"id": "x", "hazard": "h", "audiences": ["patient"], "action": "hold", "message": "m"}
    head = {"name": "x", "version": "1"}
    assert valid("policy.schema.json", {**head, "rule": [{**rule, "when": {"detector": "markup"}}]})
    assert not valid("policy.schema.json", {**head, "rule": [{**rule, "when": when}]})
