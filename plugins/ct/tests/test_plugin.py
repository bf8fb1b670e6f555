"""The manifest: what is claimed, and that every condition has a code and a sentence."""

from __future__ import annotations

import importlib
import subprocess
import sys

from clinic_ai.contract import Engine
from clinic_ai.describing import Fitter
from clinic_ai.results.codes import finding_code
from clinic_ai_ct.label_sets import CONDITION_OF, label_sets
from clinic_ai_ct.plugin import describe_plugin
from clinic_ai_ct.reference.examples import JUDGED

CONDITIONS = {condition.code: condition for condition in describe_plugin().conditions}


def test_the_conditions_are_those_of_the_description_and_have_codes():
    wanted = {CONDITION_OF.get(key, key) for key in label_sets()["vlm3d"].keys}
    assert set(CONDITIONS) == wanted
    assert {code: finding_code(code).label for code in CONDITIONS} == {c: i.label for c, i in CONDITIONS.items()}


def test_all_that_phantoms_show_can_be_found():
    assert {CONDITION_OF.get(label, label) for label in JUDGED} <= set(CONDITIONS)


def test_the_manifest_is_light_and_names_engine_and_trainer():
    code = "import sys, clinic_ai_ct.plugin as p; p.describe_plugin(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    module, _, name = describe_plugin().engine.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)()
    engine.close()
    module, _, name = str(describe_plugin().trainer).partition(":")
    assert isinstance(getattr(importlib.import_module(module), name)(), Fitter)
