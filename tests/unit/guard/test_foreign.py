"""Detectors of plugins: found through a real entry point, named when they cannot be, never loaded unasked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from clinic_ai.domain import Audience, GuardAction, Statement, StudyFacts
from clinic_ai.errors import PolicyError
from clinic_ai.guard.client import Guard
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.proof import load_policy
from clinic_ai.processes import Crew
from clinic_ai.tasks import GuardSubject

MODULE = """
from clinic_ai.guard.detectors import Detector, Flag
from clinic_ai.hookspecs import hookimpl


class Shouting(Detector):
    letters: int = 5

    def detect(self, view):
        if "FALLS" in view.text.raw:
            raise ZeroDivisionError("of a plugin")
        runs = [t for t in view.text.raw.split() if t.isupper() and len(t) >= self.letters]
        return Flag("a word in capitals") if runs else None


@hookimpl
def guard_detectors():
    return {"shouting": Shouting, "nothing": int}
"""
RULE = """
[[rule]]
id = "shouting"
hazard = "A draft shouts."
audiences = ["clinician"]
when = { detector = "%s", letters = 4 }
action = "annotate"
message = "This shouts."
"""
CASES = """
[[case]]
rule = "shouting"
kind = "firing"
audience = "clinician"
text = "The heart is of NORMAL size."

[[case]]
rule = "shouting"
kind = "non_firing"
audience = "clinician"
text = "The heart is of normal size."

[[case]]
rule = "shouting"
kind = "mutation"
audience = "clinician"
text = "The heart is of NORMLA size."
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a plugin as pip would: a module, and a dist-info with its entry point."""
    site = tmp_path / "site"
    info = site / "clinic_ai_loud-1.dist-info"
    info.mkdir(parents=True)
    (site / "clinic_ai_loud.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clinic-ai-loud\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[clinic_ai]\nloud = clinic_ai_loud\nbroken = clinic_ai_not_there\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the guard's child
    yield "clinic_ai_loud"
    sys.modules.pop("clinic_ai_loud", None)


def pack_with(tmp_path: Path, detector: str) -> Path:
    pack = shutil.copytree(shipped_pack("default"), tmp_path / "pack")
    with (pack / "policy.toml").open("a") as rules:
        rules.write(RULE % detector)
    with (pack / "cases.toml").open("a") as cases:
        cases.write(CASES)
    return pack


def test_a_pack_may_use_a_detector_of_a_plugin(plugin: str, tmp_path: Path) -> None:
    policy = load_policy(pack_with(tmp_path, "loud.shouting"))
    assert policy.rules[-1].entry.id == "shouting"


def test_a_plugin_is_not_loaded_for_a_pack_that_does_not_name_it(plugin: str) -> None:
    load_policy(shipped_pack("default"))
    assert plugin not in sys.modules


@pytest.mark.parametrize(
    ("detector", "problem"),
    [
        ("loud.silent", "the plugin 'loud' has no detector 'silent'"),
        ("loud.nothing", "the plugin 'loud' has no detector 'nothing'"),
        ("quiet.shouting", "the plugin 'quiet', which is not installed"),
        ("broken.shouting", "the plugin 'broken' cannot be asked for its detectors: ModuleNotFoundError"),
    ],
)
def test_a_detector_that_is_not_there_refuses_the_pack_in_words(
    plugin: str, tmp_path: Path, detector: str, problem: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(pack_with(tmp_path, detector))
    assert "rule shouting" in caught.value.message
    assert problem in caught.value.message


def test_a_detector_that_raises_holds_the_report(plugin: str, tmp_path: Path) -> None:
    alerts: list[str] = []
    crew = Crew()
    guard = Guard(crew, pack_with(tmp_path, "loud.shouting"), on_alert=lambda code, *_: alerts.append(code))
    try:
        guard.load()
        subject = GuardSubject(facts=StudyFacts(), validated=True, reference=False)
        verdicts = [
            guard.judge(subject, Audience.CLINICIAN, (Statement(statement_id="a_1", kind="answer", text=text),))
            for text in ("The heart is of normal size.", "The patient FALLS.")
        ]
    finally:
        guard.close()
        crew.close()
    assert [verdict.action for verdict in verdicts] == [GuardAction.ANNOTATE, GuardAction.HOLD]
    assert [len(verdict.released) for verdict in verdicts] == [1, 0]
    assert alerts == ["guard_unavailable"]
