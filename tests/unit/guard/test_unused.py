"""A misspelt name in a pack is refused; it would otherwise look like a change that was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clinic_ai.errors import PolicyError
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import read_policy


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Return a pack that changes nothing of "default" so far."""
    shutil.copytree(shipped_pack("default"), tmp_path / "default")
    ours = tmp_path / "ours"
    for folder in ("lexicons", "templates"):
        (ours / folder).mkdir(parents=True)
    (ours / "policy.toml").write_text('name = "ours"\nversion = "1"\nextends = "default"\n')
    (ours / "cases.toml").write_text("case = []\n")
    return ours


def problems(pack: Path) -> list[str]:
    with pytest.raises(PolicyError) as refused:
        read_policy(pack)
    return [line.removeprefix("- ") for line in refused.value.message.splitlines()[1:]]


@pytest.mark.parametrize(
    ("table", "name", "meant"),
    [
        ("patient", "gneric", "generic"),
        ("patient", "fnding_known", "finding_known"),
        ("clinician", "question_siz", "question_size"),
        ("technician", "anwser", "answer"),
        ("marks", "preliminry", "preliminary"),
    ],
)
def test_a_template_that_nothing_asks_for_is_refused(pack: Path, table: str, name: str, meant: str) -> None:
    (pack / "templates" / "en.toml").write_text(f'[{table}]\n{name} = "Your care team will tell you."\n')
    assert problems(pack) == [
        f"templates/en.toml [{table}] {name} has no effect: nothing asks for it; did you mean {meant!r}?"
    ]


def test_a_word_list_that_no_rule_uses_is_refused(pack: Path) -> None:
    (pack / "lexicons" / "alarmng.txt").write_text("sarcoidosis\n")
    assert problems(pack) == [
        "lexicons/alarmng.txt has no effect: no rule and no question looks in it; did you mean 'alarming'?"
    ]


@pytest.mark.parametrize("name", ["normals", "kinds", "question-scope", "findings"])
def test_lists_that_are_used_by_their_names_are_taken(pack: Path, name: str) -> None:
    (pack / "lexicons" / f"{name}.txt").write_text("@base\n")
    assert read_policy(pack).name == "ours"


def test_what_a_rule_left_out_no_longer_names_is_not_the_clinics_fault(pack: Path) -> None:
    head = pack / "policy.toml"
    head.write_text(head.read_text() + 'without = ["patient-reading-level", "banned-wording"]\n')
    (pack / "lexicons" / "banned-wording.txt").write_text("@base\n")
    (pack / "templates" / "en.toml").write_text('[patient]\ngeneric = "Your care team will tell you."\n')
    assert read_policy(pack).templates["en"].patient["generic"] == "Your care team will tell you."


def test_a_mistake_in_a_rule_is_told_without_the_lists_it_would_have_used(pack: Path) -> None:
    (pack / "lexicons" / "orders.txt").write_text("at once\n")
    head = pack / "policy.toml"
    head.write_text(
        head.read_text()
        + """[[rule]]
id = "orders"
hazard = "A machine gives an order."
audiences = ["clinician"]
when = { detector = "lexikon", lexicon = "orders" }
action = "hold"
message = "A person must decide."
"""
    )
    (problem,) = problems(pack)
    assert "there is no detector 'lexikon'" in problem
