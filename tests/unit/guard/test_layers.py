"""A pack that extends another: what is taken over, what is replaced, and what its digest covers."""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clinic_ai.domain import Audience, GuardAction, Statement, StudyFacts
from clinic_ai.errors import PolicyError
from clinic_ai.guard.engine import judge
from clinic_ai.guard.inspection import describe_pack
from clinic_ai.guard.packfiles import pack_digest, read_pack_files
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.guard.policy import Policy
from clinic_ai.guard.proof import load_policy
from clinic_ai.tasks import GuardSubject, GuardTask


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    for name in ("default", "strict"):
        shutil.copytree(shipped_pack(name), tmp_path / name)
    return tmp_path


@pytest.fixture
def edit(packs: Path) -> Callable[[str, str, str], None]:
    def change(name: str, old: str, new: str) -> None:
        content = (packs / name).read_text()
        assert old in content
        (packs / name).write_text(content.replace(old, new))

    return change


Edit = Callable[[str, str, str], None]


def refusal(pack: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(pack)
    return caught.value.message


def test_what_is_not_changed_is_taken_over(packs: Path) -> None:
    default, strict = load_policy(packs / "default"), load_policy(packs / "strict")
    own = [rule.entry.id for rule in strict.rules if rule.entry not in [r.entry for r in default.rules]]
    assert "urgent-words" in own
    assert [r.entry.id for r in strict.rules if r.entry.id != "urgent-words"] == [r.entry.id for r in default.rules]
    assert strict.templates["en"].patient == default.templates["en"].patient
    assert strict.templates["en"].marks["preliminary"] != default.templates["en"].marks["preliminary"]
    assert strict.templates["de"] == default.templates["de"]


def test_a_word_list_can_take_the_other_in(packs: Path) -> None:
    strict = load_policy(packs / "strict")
    assert holds(strict, "There is a malignant tumor.")
    assert holds(strict, "There is a shadow on the lung.")


def holds(policy: Policy, text: str) -> bool:
    statement = Statement(statement_id="a_1", kind="answer", text=text)
    subject = GuardSubject(facts=StudyFacts(), validated=True, reference=False)
    task = GuardTask(audience=Audience.PATIENT, subject=subject, statements=(statement,), policy_hash=policy.digest)
    return judge(policy, task).action is GuardAction.HOLD


def test_the_mark_that_notepad_puts_before_text_is_no_word(packs: Path) -> None:
    for path in (p for pack in ("default", "strict") for p in (packs / pack).rglob("*.t*")):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    strict = load_policy(packs / "strict")
    assert len(strict.rules) > 30
    assert holds(strict, "There is a malignant tumor.")
    assert holds(strict, "There is a shadow on the lung.")
    assert describe_pack(packs / "strict").terms["alarming"] == describe_pack(shipped_pack("strict")).terms["alarming"]


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("@bse", "lexicons/alarming.txt line 1: '@bse' is no instruction; did you mean @base"),
        ("@Base", "did you mean @base"),
        ("@all", "there are @base and @replace"),
        ("# all of default", "lexicons/alarming.txt does not say what becomes of the list"),
    ],
)
def test_a_list_does_not_take_the_place_of_another_unsaid(packs: Path, first: str, problem: str) -> None:
    (packs / "strict" / "lexicons" / "alarming.txt").write_text(f"{first}\nshadow on the lung\n")
    message = refusal(packs / "strict")
    assert problem in message
    assert message.count("\n") == 1, "nothing else is wrong, and nothing else is told"


def test_a_list_can_take_the_place_of_another_if_it_says_so(packs: Path) -> None:
    words = (packs / "default" / "lexicons" / "alarming.txt").read_text()
    (packs / "strict" / "lexicons" / "alarming.txt").write_text(f"@replace  # all of it\n{words}\nshadow on the lung\n")
    assert holds(load_policy(packs / "strict"), "There is a shadow on the lung.")
    assert "alarming" in describe_pack(packs / "strict").terms


def test_a_list_of_a_new_name_has_nothing_to_take_in(packs: Path) -> None:
    with (packs / "strict" / "lexicons" / "orders.txt").open("a") as words:
        words.write("@base\n")
    assert "orders.txt line 7: @base stands for a list of this name in an extended pack" in refusal(packs / "strict")


def test_lines_are_counted_in_the_clinics_own_file(packs: Path) -> None:
    (packs / "strict" / "lexicons" / "alarming.txt").write_text("@base\nshadow\nx*\n")
    assert "lexicons/alarming.txt line 3: the term 'x*'" in refusal(packs / "strict")


def test_the_digest_covers_what_it_stands_on_and_a_kept_copy_is_the_same(packs: Path, tmp_path: Path) -> None:
    files = read_pack_files(packs / "strict")
    digest = pack_digest(files)
    kept = tmp_path / "kept" / "whatever"
    for name, content in files.items():
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(content)
    assert load_policy(kept).digest == digest  # "default" does not lie beside it
    with (packs / "default" / "lexicons" / "alarming.txt").open("a") as words:
        words.write("sarcoidosis\n")
    assert pack_digest(read_pack_files(packs / "strict")) != digest


def test_a_rule_can_be_left_out_with_its_cases(packs: Path, edit: Edit) -> None:
    edit("strict/policy.toml", 'extends = "default"', 'extends = "default"\nwithout = ["volume-from-one-slice"]')
    strict = load_policy(packs / "strict")
    assert "volume-from-one-slice" not in {rule.entry.id for rule in strict.rules}
    assert "volume-from-one-slice" not in {case.rule for case in strict.cases}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('extends = "default"', 'extends = "default"\nwithout = ["no-such-rule"]', "default has no rule no-such-rule"),
        ('extends = "default"', 'without = ["markup"]', "only a pack that extends another"),
        ('extends = "default"', 'extends = "strict"', "is no other pack"),
        ('extends = "default"', 'extends = "../default"', "is no other pack"),
        ('extends = "default"', 'extends = "nowhere"', "nowhere cannot be read"),
    ],
)
def test_what_cannot_be_extended_is_named(packs: Path, edit: Edit, old: str, new: str, problem: str) -> None:
    edit("strict/policy.toml", old, new)
    assert problem in refusal(packs / "strict")


def test_a_changed_rule_needs_its_own_cases(packs: Path, edit: Edit) -> None:
    edit("strict/cases.toml", 'rule = "other-number"\nkind = "mutation"', 'rule = "other-number"\nkind = "firing"')
    assert "rule other-number has no mutation case" in refusal(packs / "strict")


def test_a_chain_of_packs_is_refused(packs: Path, edit: Edit) -> None:
    shutil.copytree(packs / "strict", packs / "stricter")
    edit("stricter/policy.toml", 'extends = "default"', 'extends = "strict"')
    assert "which extends another one" in refusal(packs / "stricter")
