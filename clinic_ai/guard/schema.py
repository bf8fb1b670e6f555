"""JSON Schema of what a pack holds, for editors: ``python -m clinic_ai.guard.schema docs`` writes the published files.

The appliance itself reads packs with the models these come from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinic_ai.guard.cases import CaseFile
from clinic_ai.guard.detectors import CATALOGUE, Detector
from clinic_ai.guard.detectors.asked import ASKED
from clinic_ai.guard.intents import QuestionFile
from clinic_ai.guard.policy import MAX_DEPTH, PolicyFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> str:
    """Return the schema of ``policy.toml``: every detector with its parameters, without those that plugins add."""
    body = PolicyFile.model_json_schema()
    body["$defs"]["RuleEntry"]["properties"]["when"] = _conditions(body["$defs"], CATALOGUE)
    return _text(body)


def questions_schema() -> str:
    """Return the schema of ``questions.toml``, whose conditions have detectors of their own beside those of rules."""
    body = QuestionFile.model_json_schema()
    body["$defs"]["IntentEntry"]["properties"]["when"] = _conditions(body["$defs"], {**CATALOGUE, **ASKED})
    return _text(body)


def _conditions(definitions: dict[str, Any], catalogue: Mapping[str, type[Detector]]) -> dict[str, Any]:
    """Add what a condition may be to the definitions of a schema, and return the reference to it."""
    names = []
    for name, model in sorted(catalogue.items()):
        detector = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= detector.pop("$defs", {})
        detector["properties"] = {"detector": {"const": name}, **detector.get("properties", {})}
        detector["required"] = ["detector", *detector.get("required", ())]
        definitions[f"detector_{name}"] = detector
        names.append({"$ref": f"#/$defs/detector_{name}"})
    condition = {"$ref": "#/$defs/condition"}
    several = {"type": "array", "items": condition, "minItems": 1}
    combined = [
        {"type": "object", "properties": {word: inner}, "required": [word], "additionalProperties": False}
        for word, inner in (("all", several), ("any", several), ("not", condition))
    ]
    definitions["condition"] = {
        "description": f"A detector with its parameters, or all, any, not of such, at most {MAX_DEPTH} deep.",
        "oneOf": [*names, *combined, {"$ref": "#/$defs/detector_of_a_plugin"}],
    }
    definitions["detector_of_a_plugin"] = {
        "description": "A detector that a plugin adds: plugin.name, with parameters of its own.",
        "type": "object",
        "properties": {"detector": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$"}},
        "required": ["detector"],
    }
    return condition


def cases_schema() -> str:
    """Return the schema of ``cases.toml``."""
    return _text(CaseFile.model_json_schema())


PUBLISHED = {
    "policy.schema.json": policy_schema,
    "cases.schema.json": cases_schema,
    "questions.schema.json": questions_schema,
}
"""The files in ``docs/`` and what makes them."""


def _text(body: dict[str, Any]) -> str:
    return json.dumps({"$schema": _DIALECT, **body}, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file_name, make in PUBLISHED.items():
        Path(sys.argv[1], file_name).write_text(make(), encoding="utf-8")
